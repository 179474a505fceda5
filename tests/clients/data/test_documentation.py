"""docs/data.md says what the code does."""

import re
from pathlib import Path

import clients
from clients.data import feature_table, table
from clients.data.load import STRICT_KINDS

ROOT = Path(clients.__file__).parents[1]
TEXT = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")


def section(title):
    return TEXT.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]


def test_every_finding_is_listed_with_what_strict_does():
    kinds = set()
    for folder in ("data", "encoders"):
        for path in (ROOT / "clients" / folder).glob("*.py"):
            kinds |= set(re.findall(r'(?:\bfinding|DataWarning)\(\s*"(\w+)"', path.read_text(encoding="utf-8")))
    listed, refused = set(), set()
    for line in section("Findings").splitlines():
        if line.startswith("| `"):
            names = set(re.findall(r"`(\w+)`", line.split("|")[1]))
            listed |= names
            if "refused" in line.rsplit("|", 2)[1]:
                refused |= names
    assert kinds == listed
    assert refused == STRICT_KINDS


def test_columns_and_their_options_are_listed():
    for meaning, names in table.STANDARD_NAMES.items():
        row = next(line for line in section("Columns").splitlines() if f"--{meaning}-column" in line)
        assert tuple(re.findall(r"`(\w+)`", row)) == names


def test_the_names_in_a_file_of_features_are_listed():
    rows = [line.split("|")[1] for line in section("Files of features").splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert listed == feature_table._ARRAYS | feature_table._STRINGS


def test_the_fingerprints_are_those_that_are_tested():
    tested = Path(__file__).with_name("test_real_sets.py").read_text(encoding="utf-8")
    fingerprints = re.findall(r"Fingerprint[^`]*`([0-9a-f]{64})`", TEXT)
    assert len(fingerprints) == 2
    assert all(value in tested for value in fingerprints)
