"""The static checks are part of the tests: one command runs everything."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

CHECKS = {
    "ruff check": ["-m", "ruff", "check", "."],
    "ruff format": ["-m", "ruff", "format", "--check", "."],
    "mypy strict": ["-m", "mypy"],
    "import contracts": ["-c", "from importlinter.cli import lint_imports_command as c; c()"],
}


@pytest.mark.parametrize("arguments", CHECKS.values(), ids=CHECKS.keys())
def test_the_tree_passes(arguments):
    result = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=550)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]


def test_the_top_level_is_the_agreed_one():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert top == {
        "securefed", "protocols", "clients", "audit", "tests", "cli.py", "benchmarks", "docs", ".ci", ".gitignore",
        "README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "MANIFEST.in", "pyproject.toml",
    }  # fmt: skip


def test_a_source_archive_holds_every_file_of_the_checkout(tmp_path):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    for name in listed.stdout.splitlines():  # a copy: building leaves folders, which other tests would meet
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "sdist"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    (archive,) = tmp_path.glob("dist/*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert set(listed.stdout.splitlines()) - names == set()


def test_no_module_is_longer_than_400_lines():
    packages = ["securefed", "protocols", "clients", "audit", "tests", "benchmarks"]
    paths = [ROOT / "cli.py", *(path for package in packages for path in (ROOT / package).rglob("*.py"))]
    long = {str(path): lines for path in paths if (lines := len(path.read_text().splitlines())) > 400}
    assert long == {}


def test_every_dependency_is_defended_and_used():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=\[]", line)[0] for line in project["dependencies"]}
    defended = set(re.findall(r"^\| ([a-z0-9_-]+) \|", (ROOT / "docs/dependencies.md").read_text(), re.M)) - {"package"}
    assert declared == defended
    sources = "\n".join(
        path.read_text()
        for package in ["securefed", "protocols", "clients", "audit"]
        for path in (ROOT / package).rglob("*.py")
    )
    modules = importlib.metadata.packages_distributions()
    for name in declared:
        canonical = re.sub(r"[-_.]+", "-", name).lower()
        imports = [m for m, ds in modules.items() if canonical in {re.sub(r"[-_.]+", "-", d).lower() for d in ds}]
        assert any(re.search(rf"^\s*(import|from) {module}\b", sources, re.M) for module in imports), name


def test_nothing_outside_the_tests_knows_where_developers_keep_their_data():
    shared = "../" + "shared"
    for path in [*ROOT.rglob("*.py"), *ROOT.rglob("*.md"), *ROOT.rglob("*.toml"), ROOT / ".ci" / "run"]:
        if ".venv" in path.parts or "build" in path.parts:
            continue
        assert shared not in path.read_text(), path
