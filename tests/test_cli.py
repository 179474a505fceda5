"""The command line as a user meets it: help, results, one-line errors with the way out, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli import cli
from securefed.commands.failure import run_with_one_line_errors

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [
    [],
    ["simulate"],
    ["sweep"],
    ["evaluate"],
    ["predict"],
    ["encode"],
    ["data"],
    ["data", "inspect"],
    ["data", "demo"],
    ["audit"],
    ["audit", "verify"],
    ["audit", "report"],
    ["audit", "compare"],
    ["audit", "attack"],
    ["audit", "ledger"],
    ["audit", "ledger", "show"],
    ["audit", "ledger", "policy"],
    ["audit", "ledger", "renew"],
    ["audit", "ledger", "history"],
    ["keys"],
    ["keys", "new"],
    ["keys", "roster"],
    ["protocol"],
    ["protocol", "plan"],
    ["protocol", "attack"],
    ["privacy"],
    ["privacy", "plan"],
    ["privacy", "check"],
]


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run a command in this process, in a folder of its own; return (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECUREFED_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["securefed", *map(str, arguments)])
        code = run_with_one_line_errors(cli)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def images(tmp_path):
    """Four sites, two classes that differ by brightness, six images each."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    for site in ("a", "b", "c", "d"):
        for label, level in (("bright", 180), ("dark", 60)):
            folder = root / site / label
            folder.mkdir(parents=True)
            for index in range(10):
                pixels = np.clip(rng.normal(level, 25, (40, 40, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words) or "securefed")
def test_help_fits_a_screen(call, command):
    code, out, err = call(*command, "--help")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 80
    options = [line for line in lines if line.startswith("  --")]
    assert all(len(line.split("  ")) > 2 for line in options)


def test_help_does_not_load_torch():
    code = "import sys, cli; cli.cli(['simulate', '--help'], standalone_mode=False); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_a_run_on_images_from_start_to_prediction(call, images):
    code, out, err = call("simulate", "--data", images, "--encoder", "demo", "--rounds", 2, "--output", "run")
    assert code == 0, err
    assert "mean over sites" in out
    assert "NOT CLAIMED" in out
    assert err.startswith("SIMULATION")
    code, out, _ = call("evaluate", "run", "--json", "--quiet")
    assert code == 0
    summary = json.loads(Path("run/summary.json").read_text())
    evaluated = json.loads(out)
    assert evaluated["mean"] == summary["mean"]
    code, out, _ = call("predict", "run", images / "a" / "dark", "--site", "a", "--json")
    assert code == 0
    predictions = json.loads(out)
    assert len(predictions) == 10
    assert sum(predictions[0]["probabilities"]["ensemble"].values()) == pytest.approx(1, abs=1e-4)
    assert set(predictions[0]["probabilities"]) == {"fam", "mlp", "ensemble"}
    code, out, _ = call("predict", "run", images / "b" / "bright" / "0.png")
    assert code == 0
    assert "bright" in out


def test_the_second_run_encodes_no_image(call, images):
    results = []
    for name in ("one", "two"):
        code, out, err = call("simulate", "--data", images, "--rounds", 1, "--output", name, "--json", "--quiet")
        assert (code, err) == (0, ""), err
        results.append(json.loads(out))
    assert results[0]["provenance"]["images_encoded"] == 80
    assert results[1]["provenance"]["images_encoded"] == 0
    assert results[0]["fam_sha256"] == results[1]["fam_sha256"]


def test_exported_features_give_the_same_model(call, images):
    call("simulate", "--data", images, "--rounds", 1, "--output", "one", "--quiet")
    code, out, _ = call("encode", "--data", images, "--export", "features.npz", "--json", "--quiet")
    assert code == 0
    assert json.loads(out)["images_encoded"] == 0
    code, _, err = call("simulate", "--encoder", "features:features.npz", "--rounds", 1, "--output", "two", "--quiet")
    assert code == 0, err
    digests = [json.loads(Path(name, "summary.json").read_text())["fam_sha256"] for name in ("one", "two")]
    assert digests[0] == digests[1]


def test_inspect_counts_and_warns(call, images):
    (images / "a" / "dark" / "broken.png").write_bytes(b"no image")
    code, out, _ = call("data", "inspect", images)
    assert code == 0
    assert "80 images, 2 classes, 4 sites" in out
    assert "warning" in out
    code, out, _ = call("data", "inspect", images, "--json")
    report = json.loads(out)
    assert report["images"] == 80
    assert any(warning["kind"] == "broken_image" for warning in report["warnings"])


def one_class(root):
    for path in root.rglob("dark/*"):
        path.unlink()
    return ["--data", root]


def corrupt(root):
    (root / "a" / "dark" / "0.png").write_bytes(b"\x89PNG broken")
    return ["--data", root, "--strict"]


MISTAKES = {
    "missing folder": (lambda root: ["--data", "no/such/folder"], 2, "check --data"),
    "one-class data": (one_class, 1, "at least two classes"),
    "corrupt image": (corrupt, 1, "repair or remove"),
    "unknown encoder": (lambda root: ["--data", root, "--encoder", "ViT-B-23/openai"], 2, "did you mean"),
    "unknown weights": (lambda root: ["--data", root, "--encoder", "ViT-B-32/opnai"], 2, "ViT-B-32/openai"),
    "unknown config key": (lambda root: ["--set", "federation.round=3"], 2, "did you mean rounds"),
    "negative rounds": (lambda root: ["--rounds", "-3"], 2, "use 1 or more"),
    "read-only output": (lambda root: ["--output", "/proc/securefed-run"], 1, "writable place"),
    "unknown option": (lambda root: ["--round", "3"], 2, "No such option"),
    "unknown method": (lambda root: ["--method", "fedsgd"], 2, "fedmedclip"),
    "unknown site to drop": (lambda root: ["--data", root, "--drop", "x@1:Unmasking"], 2, "there is no site"),
    "missing config": (lambda root: ["--config", "none.toml"], 2, "check the path"),
    "resume of nothing": (lambda root: ["--resume", "none"], 1, "no run folder"),
    "resume with flags": (lambda root: ["--resume", "none", "--rounds", "3"], 2, "no other option"),
    "missing column": (lambda root: ["--data", root, "--split-column", "fold"], 2, "--split-column"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_with_the_way_out(call, images, mistake):
    make, expected, says = MISTAKES[mistake]
    code, out, err = call("simulate", "--quiet", *make(images))
    assert out == ""
    assert code == expected if expected is not None else code in (1, 2)
    errors = [line for line in err.splitlines() if line.lower().startswith("error")]
    assert len(errors) == 1, err
    assert says in errors[0]
    assert "Traceback" not in err


def test_one_client_with_secure_aggregation_is_told_what_to_do(call, images):
    for site in ("b", "c", "d"):
        for path in (images / site).rglob("*.png"):
            path.unlink()
    code, _, err = call("simulate", "--quiet", "--data", images, "--secure-agg")
    assert code == 2
    assert "a sum over 1 hospital hides nobody" in err
    assert "--clients" in err
    code, _, err = call("simulate", "--quiet", "--data", images, "--clients", 3, "--rounds", 1, "--output", "run")
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["evaluate", "none"], 1, "no run folder"),
        (["predict", "none", "x.png"], 1, "no run folder"),
        (["predict", "none"], 2, "Missing argument"),
        (["data", "inspect", "none"], 2, "check --data"),
        (["data", "demo", "/proc/x"], 1, "name a new folder"),
        (["encode", "--export", "x.csv", "--data", "none"], 2, "check --data"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_other_commands_fail_in_one_line_too(call, arguments, code, says):
    got, out, err = call(*arguments)
    assert (got, out) == (code, "")
    assert says in err
    assert "Traceback" not in err


def test_a_second_output_is_never_overwritten(call, images):
    call("simulate", "--data", images, "--rounds", 1, "--output", "run", "--quiet")
    before = Path("run/summary.json").read_bytes()
    code, _, err = call("simulate", "--data", images, "--rounds", 1, "--output", "run", "--quiet")
    assert code == 1
    assert "never overwrites" in err
    assert Path("run/summary.json").read_bytes() == before


def test_ctrl_c_tells_how_to_go_on_and_resume_ends_with_the_same_model(images, tmp_path):
    environment = {**os.environ, "SECUREFED_CACHE": str(tmp_path / "cache")}
    base = [sys.executable, str(ROOT / "cli.py"), "simulate"]
    common = ["--data", str(images), "--rounds", "30"]
    whole = subprocess.run(
        [*base, *common, "--output", str(tmp_path / "whole"), "--json"], env=environment, capture_output=True
    )
    assert whole.returncode == 0, whole.stderr
    cut = tmp_path / "cut"
    process = subprocess.Popen(
        [*base, *common, "--output", str(cut)], env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (cut / "checkpoint" / "latest.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"--resume {cut}" in err
    assert "Traceback" not in err
    resumed = subprocess.run([*base, "--resume", str(cut), "--json"], env=environment, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["fam_sha256"] == json.loads(whole.stdout)["fam_sha256"]


def test_a_run_verifies_and_a_changed_one_does_not(call, images):
    call("simulate", "--data", images, "--rounds", 2, "--output", "run", "--quiet")
    code, out, err = call("audit", "verify", "run", "--roster", "run/roster.json")
    assert (code, err) == (0, ""), out
    assert "FAIL" not in out
    log = Path("run/audit.jsonl")
    content = log.read_bytes()
    log.write_bytes(content.replace(b'"survivors":["a","b"', b'"survivors":["b","a"', 1))
    assert log.read_bytes() != content
    code, out, err = call("audit", "verify", "run", "--json")
    assert code == 3
    assert json.loads(out)["is_verified"] is False
    assert json.loads(out)["first_bad_event"] > 0
    assert "DOES NOT VERIFY" in err


def test_verification_does_not_load_torch(call, images, tmp_path):
    call("simulate", "--data", images, "--rounds", 1, "--output", "run", "--quiet")
    code = (
        "import sys, cli; cli.cli(['audit', 'verify', 'run'], standalone_mode=False); assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True)


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


def test_the_attack_catalogue_finds_nothing_broken(call):
    code, out, _ = call("protocol", "attack", "--json")
    reports = json.loads(out)
    assert code == 0
    assert {f"A{number}" for number in range(1, 22)} == {report["id"].rstrip("abcdefg") for report in reports}
    assert not [report for report in reports if report["outcome"] == "broken"]


POLICY = """
format = "securefed-budget-policy/1"

[[budget]]
hospital = "north"
unit = "image"
epsilon = 3
delta = 1e-5
adjacency = "add-or-remove-one"
signer = "{signer}"
"""


def test_a_ledger_from_policy_to_renewal(call):
    from audit.accounting import Gaussian, Repeated, upper_epsilon
    from audit.ledger import Account, BudgetExceededError, Charge, Ledger

    call("keys", "new", "dpo")
    call("keys", "new", "mallory")
    signer = json.loads(Path("dpo.pub").read_text())["key"]
    Path("policy.toml").write_text(POLICY.format(signer=signer))
    assert call("audit", "ledger", "show", "ledger.db")[0] == 1
    code, out, err = call("audit", "ledger", "policy", "ledger.db", "policy.toml")
    assert (code, out, err) == (0, "north: epsilon 3 at delta 1e-05 for one image\n", "")
    Path("policy.toml").write_text(POLICY.format(signer=signer).replace("= 3", "= 300"))
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
    assert "3" in call("audit", "ledger", "show", "ledger.db")[1]
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
