"""The numbers of the page follow from audit.jsonl alone: without any other file they are the same."""

import json

import pytest

from audit.report import build_report, encode_report, render_html
from tests.audit.report.pages import Page, rich_run

FROM_FILES = {"identity", "verdicts"}
"""Sections that also say whether the other files agree."""


@pytest.mark.parametrize("kind", ["private", "rich"])
def test_without_the_other_files_every_section_and_number_is_the_same(request, tmp_path, kind):
    run = rich_run(tmp_path / "rich") if kind == "rich" else request.getfixturevalue("private_run")
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "audit.jsonl").write_bytes((run / "audit.jsonl").read_bytes())
    whole, found = build_report(run), build_report(alone)
    for section in whole:
        if section not in FROM_FILES:
            assert found[section] == whole[section], section
    assert sorted(Page(render_html(found)).numbers) == sorted(Page(render_html(whole)).numbers)


def test_the_report_regenerated_from_the_log_is_byte_identical(private_run, tmp_path):
    first = encode_report(build_report(private_run))
    for name in ("report.json", "report.html"):
        (private_run / name).write_text("overwritten")
    assert encode_report(build_report(private_run)) == first
    assert json.loads(first)["identity"]["is_verified"]
