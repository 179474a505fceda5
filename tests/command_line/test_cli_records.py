"""Commands about records: verification, keys, plans, the ledger, runs side by side, sweeps."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from audit.report.compare import COLUMNS

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_verifies_and_a_changed_one_does_not(call, images):
    call("simulate", "--data", images, "--rounds", 2, "--output", "run", "--quiet")
    code, out, err = call("audit", "verify", "run", "--roster", "run/roster.json")
    assert (code, err) == (0, ""), out
    assert "FAIL" not in out
    code, out, err = call("audit", "verify", "run", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["is_verified"]
    assert {check["outcome"] for check in found["checks"]} <= {"PASS", "ABSENT"}
    assert found["unsigned_by"] == []
    log = Path("run/audit.jsonl")
    content = log.read_bytes()
    log.write_bytes(content.replace(b'"survivors":["a","b"', b'"survivors":["b","a"', 1))
    assert log.read_bytes() != content
    code, out, err = call("audit", "verify", "run", "--json")
    assert code == 3
    assert json.loads(out)["is_verified"] is False
    assert json.loads(out)["first_bad_event"] > 0
    assert "DOES NOT VERIFY" in err


def test_a_run_in_the_current_folder_is_called_like_that_folder(call, images, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    code, _, err = call("simulate", "--data", images, "--method", "zero-shot", "--output", ".", "--quiet")
    assert code == 0, err
    code, out, _ = call("audit", "verify", ".", "--json")
    assert (code, json.loads(out)["run_id"]) == (0, "mine")


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "verify", "gone"),
        ("audit", "report", "gone"),
        ("audit", "compare", "gone", "gone"),
        ("audit", "attack", "gone"),
        ("evaluate", "gone"),
        ("predict", "gone", "images"),
        ("simulate", "--quiet", "--resume", "gone"),
    ],
)
def test_a_run_that_is_not_there_is_a_wrong_usage_and_says_the_same_everywhere(call, arguments):
    line = "error: gone: is no run folder (there is no such folder); name one that simulate or a deployment has written"
    code, out, err = call(*arguments)
    assert (code, out, err.strip()) == (2, "", line)


@pytest.mark.parametrize("option", ["--roster", "--heads", "--ledger"])
@pytest.mark.parametrize("named", ["gone.json", "pipe"])
def test_an_argument_that_cannot_be_read_says_nothing_about_the_record(call, tmp_path, option, named):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").touch()
    os.mkfifo(tmp_path / "pipe")
    code, out, err = call("audit", "verify", "run", option, named)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {option}: {named} cannot be read (")
    assert call("audit", "verify", "run")[0] == 3


def test_verification_does_not_load_torch(call, images, tmp_path):
    call("simulate", "--data", images, "--rounds", 1, "--output", "run", "--quiet")
    code = (
        "import sys, cli; cli.cli(['audit', 'verify', 'run'], standalone_mode=False); assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["plan", "--clients", 101, "--sigma", -5], "sigma"),
        (["plan", "--clients", 150, "--eta", -3], "eta"),
        (["plan", "--clients", 10, "--dimension", 0], "dimension"),
        (["plan", "--clients", 10, "--dimension", 10**14], "dimension"),
        (["plan", "--clients", 10, "--value-bits", 1], "value_bits"),
        (["attack", "--id", "ZZ"], "'ZZ' is no attack of the catalogue; use A1, A2"),
    ],
)
def test_what_the_protocol_cannot_mean_is_refused_in_one_line(call, options, says):
    code, out, err = call("protocol", *options)
    assert code != 0
    assert out == ""
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_keys_are_made_and_gathered_into_a_roster(call):
    for name in ("server", "north", "south"):
        code, out, _ = call("keys", "new", name, "--folder", "keys")
        assert code == 0
        assert len(out.strip()) == 64
        assert Path(f"keys/{name}.key").stat().st_mode & 0o077 == 0
        assert Path(f"keys/{name}.key").read_bytes() not in Path(f"keys/{name}.pub").read_bytes()
    code, out, _ = call(
        "keys", "roster", "roster.json", "--server", "keys/server.pub", "keys/north.pub", "keys/south.pub"
    )
    assert code == 0
    assert len(out.strip()) == 64
    for arguments, says in (
        (["new", "north", "--folder", "keys"], "never overwritten"),
        (["new", "../x"], "use letters"),
        (["roster", "roster.json", "--server", "keys/server.pub", "keys/north.pub"], "never overwritten"),
        (["roster", "r2", "--server", "keys/server.pub", "keys/north.pub", "keys/north.pub"], "two hospitals"),
        (["roster", "r2", "--server", "keys/north.pub", "keys/north.pub"], "stands twice"),
        (["roster", "r2", "--server", "keys/server.key", "keys/north.pub"], "no public key"),
    ):
        code, _, err = call("keys", *arguments)
        assert code in (1, 2)
        assert says in err
        assert "Traceback" not in err


def test_a_plan_gives_the_known_values_and_refuses_what_is_not_safe(call):
    options = ["--threat-model", "semi-honest", "--corrupt", "0.33", "--dropout", "0.1", "--json"]
    code, out, _ = call("protocol", "plan", "--clients", 1000, *options)
    planned = json.loads(out)
    assert (code, planned["neighbours"], planned["threshold"]) == (0, 102, 72)
    code, out, _ = call("protocol", "plan", "--clients", 10)
    assert code == 0
    assert "threshold t           7" in out
    code, out, err = call("protocol", "plan", "--clients", 10, "--corrupt", "0.33", "--dropout", "0.33")
    assert (code, out) == (1, "")
    assert "fewer than 3 honest" in err


def test_the_attack_catalogue_finds_nothing_broken(call, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a program: what nobody handles goes to stderr
    code, out, err = call("protocol", "attack", "--json")
    reports = json.loads(out)
    assert (code, err) == (0, "")
    assert {f"A{number}" for number in range(1, 22)} == {report["id"].rstrip("abcdefg") for report in reports}
    assert not [report for report in reports if report["outcome"] == "broken"]


def test_clients_that_were_dealt_are_named_in_the_claim_and_in_what_budgets_are_worth(call, images):
    from tests.securefed.private_runs import budgets

    for site in ("b", "c", "d"):
        shutil.rmtree(images / site)
    clients = [f"client_{number}" for number in range(1, 5)]
    budgets(Path("ledger.db"), 9.0, clients)
    private = ("--dp", "local", "--epsilon", 8, "--rounds", 1, "--json", "--quiet")
    dealt = ("simulate", "--data", images, "--clients", 4, *private)
    code, out, err = call(*dealt, "--set", "privacy.ledger=ledger.db")
    assert code == 0, err
    assert "do not limit what is spent on an image" in err
    assert any("to which client an image" in text for text in json.loads(out)["privacy"]["unprotected"])
    assert "do not limit" not in call(*dealt)[2]
    code, out, err = call("simulate", *private)
    assert code == 0, err
    assert not any("to which client an image" in text for text in json.loads(out)["privacy"]["unprotected"])


def test_a_hospital_in_a_ledger_is_named_as_it_is_written(call):
    from tests.audit.ledger.money import policy_text

    Path("policy.toml").write_text(policy_text("d7" * 32).replace('"north"', '"north [/red] :smile:"'))
    assert call("audit", "ledger", "policy", "ledger.db", "policy.toml")[0] == 0
    code, out, err = call("audit", "ledger", "show", "ledger.db")
    assert (code, "north [/red] :smile:" in out) == (0, True), err


def test_a_ledger_from_policy_to_renewal(call):
    from audit.accounting import Gaussian, Repeated, upper_epsilon
    from audit.ledger import Account, BudgetExceededError, Charge, Ledger
    from tests.audit.ledger.money import policy_text

    call("keys", "new", "dpo")
    call("keys", "new", "mallory")
    signer = json.loads(Path("dpo.pub").read_text())["key"]
    Path("policy.toml").write_text(policy_text(signer))
    Path("empty.db").touch()
    for name, wrong in (("ledger.db", "does not exist"), ("empty.db", "is no ledger")):
        for what in ("show", "history", "policy"):
            code, out, err = call("audit", "ledger", what, name)
            assert (code, out) == (2, "")
            assert err.startswith(f"error: {name}: {wrong}")
    assert Path("empty.db").read_bytes() == b""
    assert not Path("ledger.db").exists()
    code, out, err = call("audit", "ledger", "policy", "ledger.db", "policy.toml")
    assert (code, out, err) == (0, "north: epsilon 3 at delta 1e-05 for one image\n", "")
    Path("policy.toml").write_text(policy_text(signer).replace("= 3", "= 300"))
    code, _, err = call("audit", "ledger", "policy", "ledger.db", "policy.toml")
    assert code == 1
    assert "only a signed renewal changes it" in err
    account = Account("north", "ab" * 32, "image")
    with Ledger(Path("ledger.db")) as ledger:
        ledger.reserve(account, Charge("run", "run/1", Gaussian(4.0), 5))
        with pytest.raises(BudgetExceededError) as caught:
            ledger.reserve(account, Charge("run", "run/2", Gaussian(0.5)))
        assert caught.value.exit_code == 4
    code, out, _ = call("audit", "ledger", "show", "ledger.db", "--json")
    (line,) = json.loads(out)["lines"]
    assert code == 0
    assert line["spent"] == upper_epsilon([Repeated(Gaussian(4.0), 5)], 1e-5)
    assert line["refused"] == 1
    sign = ["--hospital", "north", "--epsilon", "6", "--reason", "second study"]
    code, _, err = call("audit", "ledger", "renew", "ledger.db", "forged.json", "--key", "mallory.key", *sign)
    assert code == 3
    assert "not signed by the signer" in err
    code, out, _ = call("audit", "ledger", "renew", "ledger.db", "r.json", "--key", "dpo.key", *sign, "--sign-only")
    assert (code, out) == (0, "renewal 1 of north: epsilon 6, signed, not yet in force\n")
    shown = call("audit", "ledger", "show", "ledger.db")[1].split()
    assert {"3", "1e-05", "add-or-remove-one"} <= set(shown)
    for wrong in ("nan", "inf", "-1", "0"):
        refused = ["audit", "ledger", "renew", "ledger.db", "n.json", "--key", "dpo.key", *sign, "--epsilon", wrong]
        code, _, err = call(*refused)
        assert code == 2
        assert f"--epsilon: {wrong}: use a positive number" in err
    code, out, _ = call("audit", "ledger", "renew", "ledger.db", "r.json")
    assert (code, out) == (0, "renewal 1 of north: epsilon 6, in force\n")
    assert call("audit", "ledger", "renew", "ledger.db", "r.json")[0] == 3
    assert call("audit", "ledger", "renew", "ledger.db", "r.json", *sign)[0] == 2
    code, out, _ = call("audit", "ledger", "history", "ledger.db")
    assert code == 0
    assert [line.split()[2] for line in out.splitlines()[1:]] == ["policy", "reserved", "refused", "renewed"]
    assert "second study" in out
    assert json.loads(call("audit", "ledger", "history", "ledger.db", "--json", "--hospital", "south")[1]) == []
    code, out, _ = call("audit", "ledger", "policy", "ledger.db")
    Path("again.toml").write_text(out)
    assert call("audit", "ledger", "policy", "second.db", "again.toml")[0] == 0


@pytest.mark.parametrize("count", [1, 9, 48])
@pytest.mark.parametrize("width", [None, 60, 100])
def test_any_number_of_runs_side_by_side_is_legible(call, monkeypatch, width, count):
    """In blocks of as many as a terminal has room for, in lines of any length where there is none."""
    compared = {"warnings": [], "runs": [dict.fromkeys(dict(COLUMNS)) for _ in range(count)]}
    for number, row in enumerate(compared["runs"]):
        row |= {"run_id": f"run-{number:016}", "verified": True, "up_total": 1234567890 + number}
    monkeypatch.setattr("securefed.commands.compare.require_run", lambda *_: None)
    monkeypatch.setattr("audit.report.build_report", lambda _: {})
    monkeypatch.setattr("audit.report.compare.compare_reports", lambda _: compared)
    if width is not None:
        monkeypatch.setattr("securefed.commands.compare.stdout_console", lambda: Console(width=width))
    code, out, _ = call("audit", "compare", *map(str, range(count)))
    assert code == 0
    blocks = out.rstrip("\n").split("\n\n") if width else [out]
    a_block = count if width is None else (width - 25) // 22
    assert [len(block.strip("\n").splitlines()) for block in blocks] == [len(COLUMNS)] * -(-count // a_block)
    assert max(map(len, out.splitlines())) <= (width or 25 + 22 * count)
    assert out.split().count("verifies") == count
    for row in compared["runs"]:
        assert out.count(row["run_id"]) == out.count(f"{row['up_total']:,}") == 1


def test_runs_side_by_side(call, images):
    for name in ("one", "two"):
        more = ["--no-secure-agg"] if name == "two" else []
        assert call("simulate", "--data", images, "--rounds", 1, "--output", name, "--quiet", *more)[0] == 0
    code, out, err = call("audit", "compare", "one", "two")
    assert (code, err) == (0, "")
    assert "worst hospital" in out
    rows = json.loads(call("audit", "compare", "one", "two", "--json")[1])["runs"]
    assert [row["masked"] for row in rows] == [True, False]
    assert rows[0]["accuracy"] == json.loads(Path("one/summary.json").read_text())["mean"]["ensemble"]["accuracy"]
    assert call("audit", "compare", "one", "two", "--format", "md")[1].startswith("| run |")
    assert call("audit", "compare", "one", "--format", "pdf")[0] == 2
    code, _, err = call("audit", "report", "one", "--format", "registry")
    assert code == 1
    assert "lists deployments of differential privacy only" in err
    with Path("two/summary.json").open("a") as stream:
        stream.write(" ")
    code, out, err = call("audit", "compare", "one", "two")
    assert code == 3
    assert "two DOES NOT VERIFY" in err


def test_a_sweep_from_its_file_to_its_table(call, tmp_path):
    (tmp_path / "grid.toml").write_text(
        '[federation]\nmethod = "zero-shot"\ndevice = "cpu"\n[grid]\n"federation.seed" = [0, 1]\n'
        '"training.profile" = ["default"]\n'
    )
    code, out, err = call("sweep", "grid.toml", "--dry-run")
    assert code == 0, err
    assert out.count("waiting") == 2
    assert not (tmp_path / "sweeps").exists()
    code, out, err = call("sweep", "grid.toml", "--jobs", 1, "--json", "--quiet")
    assert code == 0, err
    result = json.loads(out)
    assert [cell["values"]["federation.seed"] for cell in result["cells"]] == [0, 1]
    assert all(cell["status"] == "finished" and 0 < cell["accuracy"] <= 1 for cell in result["cells"])
    assert Path(result["folder"], "results.csv").exists()
    code, out, err = call("sweep", "grid.toml", "--quiet")
    assert code == 0, err
    assert "results: sweeps/grid/results.csv" in out
    code, out, err = call("sweep", "grid.toml", "--set", "federation.seed=2")
    assert (code, out) == (2, "")
    assert "is varied by the grid" in err
    code, out, err = call("sweep", "absent.toml")
    assert (code, out) == (2, "")
    assert "absent.toml cannot be read" in err
