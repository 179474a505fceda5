"""The example report in docs/ is what the code makes of its JSON: one that is out of date fails here."""

import json
import runpy
import sys
from pathlib import Path

from audit.report import decode_report, encode_report, render_html
from audit.report.sections import sections_of

EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "example"
AGAIN = "out of date: python docs/example/make.py"


def test_the_page_is_rendered_from_its_json_by_this_code():
    report = decode_report((EXAMPLE / "report.json").read_bytes())
    assert encode_report(report) == (EXAMPLE / "report.json").read_bytes(), AGAIN
    assert render_html(report) == (EXAMPLE / "report.html").read_text(), AGAIN


def test_it_is_a_whole_report_of_a_run_that_verifies():
    report = json.loads((EXAMPLE / "report.json").read_bytes())
    assert report["identity"]["is_verified"]
    assert report["identity"]["is_complete"]
    assert all(section.blocks for section in sections_of(report))
    assert {check["name"] for check in report["identity"]["checks"]} >= {"log", "signatures", "bytes", "model"}
    assert {entry["name"].split(" A")[0] for entry in report["empirical"]} >= {"gradient inversion", "protocol attack"}
    assert any(entry["dropouts"] for entry in report["rounds"])
    assert len(report["purpose"]["open_items"]) == 3


def test_it_is_small():
    assert sum(path.stat().st_size for path in EXAMPLE.iterdir() if path.is_file()) < 250_000


def test_it_can_be_made_again(tmp_path, monkeypatch):
    """By its script as it stands, into a folder of this test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("make.py", "study.toml"):
        (tmp_path / "docs" / "example" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / "example" / name).write_bytes((EXAMPLE / name).read_bytes())
    runpy.run_path(str(tmp_path / "docs" / "example" / "make.py"), run_name="__main__")
    made, kept = (json.loads((folder / "report.json").read_bytes()) for folder in (tmp_path / "docs/example", EXAMPLE))
    assert made["identity"]["is_verified"]
    assert made["claim"]["claim"] == kept["claim"]["claim"]
    assert [row["dropouts"] for row in made["rounds"]] == [row["dropouts"] for row in kept["rounds"]]
