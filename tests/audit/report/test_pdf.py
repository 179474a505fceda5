"""The PDF: the same bytes every time, text that can be selected, every number of the page, no missing glyph."""

import io

import pypdf
import pytest

from audit.report import build_report, render
from audit.report.blocks import Table, plain
from audit.report.pdf import render_pdf
from audit.report.sections import sections_of
from tests.audit.report.pages import rich_run


def text_of(encoded):
    pages = pypdf.PdfReader(io.BytesIO(encoded)).pages
    return " ".join(" ".join(page.extract_text().split()) for page in pages)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return build_report(rich_run(tmp_path_factory.mktemp("rich")))


def test_the_same_report_gives_the_same_bytes(report):
    assert render(report, "pdf") == render_pdf(report)


def test_every_section_and_every_short_cell_can_be_selected(report):
    squeezed = text_of(render_pdf(report)).replace(" ", "")
    for place, section in enumerate(sections_of(report), 1):
        assert f"{place}.{section.title}".replace(" ", "") in squeezed
        for block in section.blocks:
            if isinstance(block, Table):
                for row in block.rows:
                    for cell in row:
                        shown = plain(cell).replace(" ", "")
                        if shown != "-" and len(shown) < 16:
                            assert shown in squeezed
    assert "tumourtyping<b>" in squeezed


def test_the_outline_leads_to_every_section(report):
    outline = pypdf.PdfReader(io.BytesIO(render_pdf(report))).outline
    assert [entry.title for entry in outline] == [section.title for section in sections_of(report)]


def test_a_character_without_a_glyph_is_shown_by_its_number(report):
    changed = {**report, "data": {**report["data"], "name": "Łódź 中 Ωμέγα"}}
    text = text_of(render_pdf(changed))
    assert "Łódź (U+4E2D) Ωμέγα" in text
    assert "\ufffd" not in text


def test_a_report_of_a_private_run_has_its_charts(private_run):
    report = build_report(private_run)
    text = text_of(render_pdf(report))
    assert "Largest epsilon over the hospitals after each round." in text
    assert "every point of the line is a guarantee" in text
