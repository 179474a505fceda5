"""The PDF: the same bytes every time, text that can be selected, every number of the page, no missing glyph."""

import io

import pypdf
import pytest

from audit.report import build_report, render
from audit.report.blocks import Table, plain
from audit.report.glyphs import width_of
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


def test_a_hundred_hospitals_with_test_metrics_and_losses_fit_pages(report):
    names = [f"hospital_{place:03d}" for place in range(100)]
    utility, (first, *others) = report["utility"], report["rounds"]
    one = next(iter(utility["sites"].values()))
    changed = {
        **report,
        "utility": {**utility, "sites": dict.fromkeys(names, one)},
        "data": {**report["data"], "hospitals": names},
        "hospitals": [{**report["hospitals"][0], "name": name, "epsilon": 1.0} for name in names],
        "rounds": [{**first, "dropouts": dict.fromkeys(names, "Unmasking")}, *others],
    }
    text = text_of(render_pdf(changed))
    assert "Accuracy at each hospital. Part 5 of 5." in text
    assert "A dark square is a loss, with the first letter of the stage. Part 5 of 5." in text
    assert text.count("hospital_099") >= 4


def test_a_cell_longer_than_a_page_goes_on_overleaf(report):
    classes = [f"{place:03d}" + "x" * 200 for place in range(100)]
    text = text_of(render_pdf({**report, "data": {**report["data"], "classes": classes}})).replace(" ", "")
    assert all(f"{place:03d}xxx" in text for place in range(100))


def test_a_drawing_of_any_height_is_scaled_to_a_page(report, monkeypatch):
    monkeypatch.setattr("audit.report.charts._LINES", 1000)
    sites = dict.fromkeys((f"h{place}" for place in range(100)), next(iter(report["utility"]["sites"].values())))
    assert render_pdf({**report, "utility": {**report["utility"], "sites": sites}})


def test_names_without_glyphs_end_with_the_drawing(report, monkeypatch):
    """Signs by their number are wider than the signs, for which pages have room."""
    written = []
    monkeypatch.setattr("reportlab.pdfgen.canvas.Canvas.drawRightString", lambda _, *given: written.append(given[2]))
    sites = dict.fromkeys(["\u5317\u4eac" * 10], next(iter(report["utility"]["sites"].values())))
    render_pdf({**report, "utility": {**report["utility"], "sites": sites}})
    (name,) = {text for text in written if text.startswith("(U+5317)")}
    assert name.endswith("...")
    assert width_of(name, 11) <= 310
