"""Files and folders that are named wrongly: that is wrong usage, in one line, and says nothing about a record."""

import os
import shutil
from pathlib import Path

import click
import pytest

import cli
from tests.audit.ledger.money import policy_text

LONG = "x" * 300


def all_commands(command, name="securefed"):
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command)
    for part in command.list_commands(context):
        yield from all_commands(command.get_command(context, part), f"{name} {part}")


def test_no_command_takes_an_empty_path_for_the_current_folder():
    """As `"$RUN"` is where the variable was never set."""
    paths = [
        (name, param)
        for name, command in all_commands(cli.cli)
        for param in command.params
        if isinstance(param.type, click.Path)
    ]
    assert len(paths) > 50
    for name, param in paths:
        with pytest.raises(click.BadParameter, match=r"the path is empty; .* \(the current folder is called \.\)"):
            param.type.convert("", param, click.Context(click.Command(name)))


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "verify", ""),
        ("audit", "report", "run", "--output", ""),
        ("predict", "run", ""),
        ("simulate", "--output", ""),
    ],
)
def test_an_empty_path_is_wrong_usage(call, tmp_path, arguments):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert "the path is empty" in err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_run_is_not_accused(call, images, tmp_path):
    assert call("simulate", "--data", images, "--method", "zero-shot", "--output", "run", "--quiet")[0] == 0
    (tmp_path / "other").mkdir()
    says = "error: other: is no run folder (audit.jsonl and config.toml are missing); name one that simulate or a "
    for arguments in (["verify", "other"], ["report", "other"], ["compare", "run", "other"]):
        code, out, err = call("audit", *arguments)
        assert (code, out) == (2, "")
        assert err.startswith(says)
    assert not list((tmp_path / "other").iterdir())
    (tmp_path / "run" / "audit.jsonl").unlink()
    code, out, err = call("audit", "verify", "run")
    assert (code, "DOES NOT VERIFY" in err) == (3, True)


@pytest.mark.parametrize(
    ("option", "named", "says"),
    [
        ("--roster", "empty", "empty is no roster; name the file that was agreed on before the run (the roster is da"),
        ("--roster", "run/audit.jsonl", "run/audit.jsonl is no roster; "),
        ("--heads", "run/audit.jsonl", "run/audit.jsonl is no file of tree heads; name one that a hospital kept (a t"),
        ("--heads", "empty", "empty is no file of tree heads; "),
        ("--ledger", "empty", "empty is no ledger; name a file that runs charge (empty: is no ledger or cannot be "),
        ("--ledger", "run/config.toml", "run/config.toml is no ledger; name a file that runs charge ("),
    ],
)
def test_an_argument_of_another_kind_says_nothing_about_the_record(call, tmp_path, option, named, says):
    (tmp_path / "run").mkdir()
    (tmp_path / "empty").touch()
    for name in ("audit.jsonl", "config.toml"):
        (tmp_path / "run" / name).write_text('{"kind":"run_started"}\n' * 40)
    commands = ["verify"] if option == "--ledger" else ["verify", "report"]
    for command in commands:
        code, out, err = call("audit", command, "run", option, named)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {option}: {says}")
    assert sorted(path.name for path in Path("run").iterdir()) == ["audit.jsonl", "config.toml"]
    assert (tmp_path / "empty").read_bytes() == b""


def test_heads_and_rosters_that_contradict_the_record_are_findings(call, images):
    for name in ("run", "other"):
        assert call("simulate", "--data", images, "--rounds", 1, "--output", name, "--quiet")[0] == 0
    for option, named in (("--roster", "other/roster.json"), ("--heads", "other/heads.jsonl")):
        code, out, err = call("audit", "verify", "run", option, named)
        assert (code, "FAIL" in out, "DOES NOT VERIFY" in err) == (3, True, True)
    shutil.rmtree("other")


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "verify", LONG),
        ("audit", "report", LONG),
        ("audit", "compare", "run", LONG),
        ("audit", "ledger", "show", LONG),
        ("audit", "ledger", "history", LONG),
        ("audit", "ledger", "policy", LONG),
        ("audit", "ledger", "renew", LONG, "renewal.json"),
        ("audit", "verify", "loop"),
    ],
)
def test_a_path_that_no_disk_takes_is_told_in_one_line(call, tmp_path, arguments):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").touch()
    (tmp_path / "loop").symlink_to("loop")
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert ("name another" in err) or "name one that" in err


def test_no_key_or_policy_is_read_from_a_pipe_and_no_report_goes_where_none_can_be(call, images, tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert call("simulate", "--data", images, "--method", "zero-shot", "--output", "run", "--quiet")[0] == 0
    Path("policy.toml").write_text(policy_text("d7" * 32))
    assert call("audit", "ledger", "policy", "ledger.db", "policy.toml")[0] == 0
    sign = ["--hospital", "north", "--epsilon", "6", "--reason", "second study"]
    for arguments in (
        ["report", "run", "--key", "pipe"],
        ["report", "run", "--key", "/dev/zero"],
        ["ledger", "policy", "ledger.db", "pipe"],
        ["ledger", "renew", "ledger.db", "pipe"],
        ["ledger", "renew", "ledger.db", "new.json", "--key", "pipe", *sign],
    ):
        code, _, err = call("audit", *arguments)
        assert code in (1, 2)
        assert "cannot be read (it is no regular file)" in err
    code, _, err = call("audit", "report", "run", "--output", LONG)
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "cannot be a file or folder here (File name too long); name another place" in err
