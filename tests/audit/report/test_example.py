"""The example report in docs/ is what the code makes of its JSON: one that is out of date fails here."""

import json
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
