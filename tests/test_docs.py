"""What the documents show is run as written; what they name exists."""

import ast
import dataclasses
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import typing
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from audit.accounting import Repeated, SampledGaussian, upper_epsilon
from clients.data import DataOptions
from clients.data.splits import split_by_hash
from clients.method import TrainingSettings
from securefed.config import PROFILES, RunConfig
from securefed.site.settings import SiteSettings

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


def test_the_table_of_a_sweep_is_read_as_the_page_shows(tmp_path, monkeypatch, capsys):
    (program,) = blocks((ROOT / "docs/sweep.md").read_text(), "python")
    lines = [("fedmedclip", "a", 0.1), *(("fedmedclip", "mean over sites", value) for value in (0.5, 0.7))]
    columns = dict(zip(("federation.method", "site", "value"), map(list, zip(*lines, strict=True)), strict=True))
    columns |= {"part": ["ensemble"] * 3, "metric": ["accuracy"] * 3}
    (tmp_path / "sweeps/grid").mkdir(parents=True)
    parquet.write_table(pa.table(columns), tmp_path / "sweeps/grid/results.parquet")
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    assert "'value_mean': 0.6," in capsys.readouterr().out


def test_the_readme_sets_in_bold_what_is_highest_in_its_column():
    rows = [line.strip("|\n").split("|")[1:] for line in README.splitlines() if re.search(r"\d \(\d+\.\d", line)]
    rows = [row for row in rows if len(row) == 2]
    assert len(rows) == 7
    for column in zip(*rows, strict=True):
        accuracy = [float(re.search(r"\d+\.\d", cell)[0]) for cell in column]
        assert [value for value, cell in zip(accuracy, column, strict=True) if "**" in cell] == [max(accuracy)]


def test_the_page_on_splits_says_the_hash_that_is_taken():
    said = re.search(r"SHA-256 over `(securefed/split/v1/0/)<patient>`", (ROOT / "docs/data.md").read_text())[1]
    digest = hashlib.sha256(f"{said}p7".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    expected = "train" if place < 0.6 else "val" if place < 0.8 else "test"
    assert split_by_hash("p7", DataOptions().split_shares, DataOptions().split_seed) == expected


def test_every_row_of_the_readme_s_table_is_on_the_page_of_its_source():
    """Ensembles, in the order of the two data sets."""
    sources = ((ROOT / f"docs/results/{name}.md").read_text() for name in ("accuracy", "reference"))
    known = [re.findall(r"\d+\.\d[^|]*?\)", line) for text in sources for line in text.splitlines() if "|" in line]
    rows = [line.replace("**", "").split("|")[2:4] for line in README.splitlines() if re.search(r"\d \(\d+\.\d", line)]
    rows = [[cell.strip() for cell in row] for row in rows if len(row) == 2 and "%" not in row[0]]
    assert len(rows) == 7
    for row in rows:
        for cell in row:
            assert any(cell in cells for cells in known), cell


def test_the_python_page_names_the_errors_outside_the_five_trees():
    bases = {}
    for package in ("securefed", "protocols", "clients", "audit"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    bases[node.name] = {base.id for base in node.bases if isinstance(base, ast.Name)}
    trees = {"SecureFedError", "DataError", "EncoderError", "ProtocolError", "AuditError"}
    inside, found = set(trees), {name for name, parents in bases.items() if parents & trees}
    while found - inside:
        inside |= found
        found = {name for name, parents in bases.items() if parents & inside}
    said = set(re.findall(r"`(?:[a-z.]+\.)?(\w+Error)`", (ROOT / "docs/python.md").read_text()))
    outside = {name for name in bases if name.endswith("Error")} - inside
    assert said - trees - {"ConfigError", "ValueError", "RuntimeError"} == outside


def test_the_page_on_audits_says_what_two_runs_cost_together():
    page = (ROOT / "docs/audit.md").read_text()
    said = re.search(
        r"two runs of (\d+) steps at noise multiplier ([\d.]+)\s+and sampling rate ([\d.]+), which cost ([\d.]+) each "
        r"at delta 1e-5, cost ([\d.]+) together, not ([\d.]+)\.",
        page,
    ).groups()
    step = SampledGaussian(float(said[1]), float(said[2]))
    one, two = (upper_epsilon([Repeated(step, runs * int(said[0]))], 1e-5) for runs in (1, 2))
    assert [f"{one:.2f}", f"{two:.2f}", f"{2 * float(said[3]):.2f}"] == list(said[3:])


def test_every_setting_stands_on_a_page():
    """In code, as its name; with its section where several sections have one of that name."""
    pages = "\n".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", pages, re.DOTALL))
    sections = {**typing.get_type_hints(RunConfig), **typing.get_type_hints(SiteSettings)}
    names = [(section, field.name) for section, kind in sections.items() for field in dataclasses.fields(kind)]
    count = Counter(name for _, name in names)
    pattern = r"(?<![\w./-])(?:{0}\.){1}{2}(?![\w./-])"
    missing = [
        f"{section}.{name}"
        for section, name in names
        if not re.search(pattern.format(section, "?" if count[name] == 1 else "", name), code)
    ]
    assert missing == []


def test_the_page_on_privacy_has_what_its_profiles_set():
    page = (ROOT / "docs/privacy.md").read_text()
    head, _, *lines = page[page.index("| setting | `default` |") :].split("\n\n")[0].splitlines()
    assert head == "| setting | `default` | `private` | `private-one-way` |"
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines]
    profiles = [dataclasses.asdict(PROFILES[name]()) for name in ("default", "private", "private-one-way")]
    assert [row[0] for row in rows] == [key for key in profiles[0] if len({str(made[key]) for made in profiles}) > 1]
    for key, *said in rows:
        values = [made[key] for made in profiles]
        assert said == [f"{value:g}" if type(value) in (int, float) else str(value).lower() for value in values], key


def test_the_page_on_the_method_has_every_departure_with_its_effect():
    section = (
        (ROOT / "docs/method.md").read_text().split("## Where the default departs from the paper")[1].split("\n## ")[0]
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| `")]
    default, paper = (dataclasses.asdict(profile()) for profile in (TrainingSettings.default, TrainingSettings.paper))
    named = {field for row in rows for field in re.findall(r"`(\w+)`", row[0])}
    assert named == {field for field in default if default[field] != paper[field]}
    results = json.loads((ROOT / "docs/results/ablation.json").read_text())["results"]
    said = [[row[3 + k] for row in rows] for k in range(len(results))]
    for shown, variants in zip(said, results.values(), strict=True):
        effects = []
        for runs in variants.values():
            pairs = zip(runs, variants["default"], strict=True)
            points = [run["ensemble"][0] - reference["ensemble"][0] for run, reference in pairs]
            effects.append(f"{statistics.fmean(points):+.1f} ± {statistics.stdev(points):.1f}")
        assert all(effect in effects for effect in shown)


@pytest.mark.parametrize("package", ["clients", "protocols", "audit"])
def test_the_page_on_the_architecture_names_functions_that_its_packages_have(package):
    page = (ROOT / "docs/architecture.md").read_text().partition(f"### {package} -> securefed")[2].partition("### ")[0]
    code = re.sub(r"#.*", "", "\n".join(blocks(page, "python")))
    sources = [path.read_text() for home in (package, "securefed") for path in (ROOT / home).rglob("*.py")]
    defined = re.findall(r"^ *(?:def|class) (\w+)", "\n".join(sources), re.MULTILINE)
    assert set(re.findall(r"(\w+)\(", code)) - set(defined) == set()
