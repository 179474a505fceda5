"""What the documents show is run as written; what they name exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text):
    """Lines of shell blocks, without those that set up an environment (the CI script runs these)."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    return [line for line in lines if line and "pip install" not in line and not line.startswith("#")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with `securefed` and `python` on its path."""
    folder = tmp_path_factory.mktemp("readme")
    programs = folder / "bin"
    programs.mkdir()
    for name, command in (("securefed", f'"{sys.executable}" "{ROOT / "cli.py"}"'), ("python", f'"{sys.executable}"')):
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    return folder


def test_every_example_of_the_readme_runs_as_written(workplace):
    environment = {
        **os.environ,
        "PATH": f"{workplace / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SECUREFED_CACHE": str(workplace / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    lines = commands(README)
    assert len(lines) >= 6
    for line in lines:
        result = subprocess.run(["sh", "-c", line], cwd=workplace, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{line}\n{result.stderr[-2000:]}"


def test_the_python_page_runs_as_written(tmp_path):
    program = "\n".join(blocks((ROOT / "docs/python.md").read_text(), "python"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SECUREFED_CACHE": str(tmp_path / "cache")}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert len(result.stdout.splitlines()) == 5


def test_the_first_commands_of_the_readme_are_those_of_the_ci_script():
    setup = [line for block in blocks(README, "sh") for line in block.splitlines() if "pip install" in line]
    assert len(setup) == 2
    assert "simulate --secure-agg" in setup[0]
    script = (ROOT / ".ci/run").read_text()
    test_command = setup[1].split("&&")[1].strip().removeprefix(".venv/bin/python ")
    assert test_command in script
    assert "'.[test]'" in setup[1]
    assert re.search(r"'\.\[test(,[a-z]+)*\]'", script), "the script installs what the tests need, and the engines"


@pytest.mark.parametrize(
    "page", [*sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")), "README.md"]
)
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), f"{page}: {target}"


def test_decisions_are_numbered_once_each():
    pages = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        assert page.read_text().startswith(f"# {int(page.name[:4])}. "), page
