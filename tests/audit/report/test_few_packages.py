"""An auditor's laptop: what docs/audit.md has installed is enough, and one package less is one line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(__file__).with_name("few_packages.py")
PAGE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")


def named():
    """The lines of the page, each a list of distributions: to verify, to compute epsilon, to write reports."""
    section = PAGE.partition("### On an auditor's laptop\n")[2]
    lines = re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1].splitlines()
    assert lines[0] == "pip install --no-deps ."
    return [line.removeprefix("pip install ").split() for line in lines[1:]]


def audited(packages, *commands):
    """The exit codes of commands where only these packages are installed; and what they printed."""
    given = json.dumps([[str(word) for word in command] for command in commands])
    program = [sys.executable, str(PROGRAM), ",".join(packages)]
    done = subprocess.run(program, input=given, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout, done.stderr


def test_the_packages_of_the_page_verify_a_record(private_run, ledger):
    commands = (("audit", "verify", private_run), ("audit", "ledger", "history", ledger.path))
    codes, said, _ = audited(named()[0], *commands)
    assert codes == [0, 0]
    assert re.search(r"^PASS +signatures", said, re.MULTILINE)
    assert re.search(r"^ABSENT +epsilon", said, re.MULTILINE)


def test_the_packages_of_the_page_compute_epsilon(charged_run, private_run, ledger):
    verify = ("audit", "verify", charged_run, "--ledger", ledger.path, "--roster", charged_run / "roster.json")
    compare = ("audit", "compare", charged_run, private_run)
    codes, said, _ = audited([*named()[0], *named()[1]], verify, compare, ("audit", "ledger", "show", ledger.path))
    assert codes == [0, 0, 0]
    for name in ("epsilon", "ledger"):
        assert re.search(rf"^PASS +{name}", said, re.MULTILINE)


def test_the_packages_of_the_page_write_reports_in_all_forms(charged_run, ledger, tmp_path):
    forms = [word for name in ("html", "md", "json", "pdf", "registry") for word in ("--format", name)]
    report = ("audit", "report", charged_run, *forms, "--ledger", ledger.path, "--output", tmp_path / "mine")
    codes, _, _ = audited([name for line in named() for name in line], report)
    assert codes == [0]
    assert len(list((tmp_path / "mine").iterdir())) == 5


@pytest.mark.parametrize(
    ("packages", "module"), [(["numpy"], "click"), (["click", "rich"], "rfc8785"), (["click", "rfc8785"], None)]
)
def test_a_package_that_is_not_installed_is_one_line(private_run, packages, module):
    codes, _, said = audited(packages, ("audit", "verify", private_run))
    assert codes == [1]
    (line,) = said.splitlines()
    assert line.startswith(f"error: the Python module {module or ''}")
    assert "docs/audit.md names" in line
