"""Charts of any length, down to none."""

import subprocess
import sys
from itertools import pairwise

import pytest

from audit.report.charts import bars, line_chart, stacked_bars, timeline
from audit.report.drawing import TEXT, Box, Label
from audit.report.glyphs import cut_to, known, width_of
from audit.report.html import render_html
from audit.report.style import STYLE
from audit.report.svg import to_svg
from tests.audit.report.pages import Page


@pytest.mark.parametrize("count", [0, 1, 2, 50, 500])
def test_charts_of_any_length_are_well_formed(count):
    points = [(float(x), float(x * x)) for x in range(1, count + 1)]
    columns = [(str(x), {"payload": 10.0 * x, "keys & shares": 1.0}) for x in range(count)]
    rows = {"north": [None, "Unmasking"] * count, "<site>": [None] * count}
    for drawing in (
        line_chart("t<", 'd"', {"a": points}, x_label="x", y_label="y", limit=("limit", 5.0)),
        line_chart("t", "d", {}, x_label="x", y_label="y"),
        line_chart("t", "d", {"a": points, "b": [(0.5, 1e-5), (0.0, 0.0)]}, x_label="x", y_label="y", logarithmic="xy"),
        stacked_bars("t", "d", columns, x_label="x", y_label="y"),
        *bars("t", "d", {str(x): (float(x), None if x % 2 else 3.0) for x in range(count)}, unit="u"),
        *timeline("t", "d", rows),
    ):
        parsed = Page(to_svg(drawing))
        for shape in drawing.shapes:
            for x, y in getattr(shape, "points", [(getattr(shape, "x", 0), getattr(shape, "y", 0))]):
                assert 0 <= x <= drawing.width
                assert 0 <= y <= drawing.height
        assert parsed.tags[0][0] == "svg"
        for tag, given in parsed.tags:
            if tag == "rect":
                assert float(given["width"]) > 0
                assert float(given["height"]) > 0


@pytest.mark.parametrize("count", [24, 25, 100])
def test_many_bars_are_drawn_on_one_scale_in_parts_that_fit_a_page(count):
    names = [f"h{place:03d}" for place in range(count)]
    for drawings in (
        bars("Spent", "d", {name: (1.0 + place, None) for place, name in enumerate(names)}, unit="epsilon"),
        timeline("Losses", "d", {name: [None, "Unmasking"] for name in names}),
    ):
        assert len(drawings) == -(-count // 24)
        assert max(drawing.height for drawing in drawings) <= 24 * 34 + 40
        shown = [shape.text for drawing in drawings for shape in drawing.shapes if isinstance(shape, Label)]
        assert [text for text in shown if text in names] == names
        assert drawings[-1].title.endswith(f"({len(drawings)} of {len(drawings)})") == (count > 24)
    widths = [
        shape.width
        for drawing in bars("t", "d", dict.fromkeys(names, (1.0, None)), unit="u")
        for shape in drawing.shapes
        if isinstance(shape, Box)
    ]
    assert len(set(widths)) == 1


LONG = (
    "UNIVERSITÄTSKLINIKUM HAMBURG-EPPENDORF",
    "W" * 80,
    "\u5317\u4eac\u534f\u548c\u533b\u9662" * 3,
    "northern general",
    "e\u0301" * 60,
)


def span(shape):
    """Where a label begins and ends, in the font of paper; most of browsers are narrower."""
    width = width_of(shape.text, TEXT)
    return {"start": (shape.x, shape.x + width), "end": (shape.x - width, shape.x)}[shape.anchor]


@pytest.mark.parametrize("names", [LONG, LONG[:1], LONG[3:4], [*LONG, *(f"SITE {place}" for place in range(20))]])
def test_names_of_any_letters_stay_inside_of_the_drawing_and_beside_each_other(names):
    drawings = [
        *bars("t", "d", dict.fromkeys(names, (0.5, 0.9)), unit="u"),
        *timeline("t", "d", {name: [None, "Unmasking"] for name in names}),
        stacked_bars("t", "d", [("1", dict.fromkeys(names, 10.0))], x_label="x", y_label="y"),
        line_chart("t", "d", {name: [(1.0, 0.5)] for name in (*names, "mean")}, x_label="x", y_label="y"),
    ]
    for drawing in drawings:
        written = [shape for shape in drawing.shapes if isinstance(shape, Label) and shape.anchor != "middle"]
        for shape in written:
            first, last = span(shape)
            assert first >= 0, shape
            assert last <= drawing.width, shape
        for one, other in pairwise(written):
            if (one.y, one.anchor) == (other.y, other.anchor):
                assert span(one)[1] < span(other)[0], (one, other)


def test_names_are_shown_whole_where_there_is_room_and_cut_at_their_end_where_there_is_none():
    def shown(name):
        (drawing,) = bars("t", "d", {name: (1.0, None)}, unit="u")
        return next(shape.text for shape in drawing.shapes if isinstance(shape, Label))

    assert shown("i" * 60) == "i" * 60
    assert shown(LONG[0]) == LONG[0]
    assert shown("M" * 40) == "M" * 27 + "..."
    assert shown(LONG[2]) == LONG[2]
    assert shown("a\u202eb") == "a\\u202eb"


def test_text_is_as_wide_as_paper_shows_it():
    from reportlab.pdfbase import pdfmetrics

    from audit.report.pdf import _register_fonts

    _register_fonts()
    for text in (LONG[0], "Ωμέγα, 12,345", known(LONG[2])):
        assert width_of(text, 11) == pytest.approx(pdfmetrics.stringWidth(text, "DejaVuSans", 11))
    assert width_of("\u5317\u0485", 12) == 12  # the font has neither: a sign, and a mark over it
    assert cut_to("abc", 0, 12) == "..."


def test_who_verifies_a_signed_report_loads_no_library_of_plots():
    code = "import audit.check_report, audit.report, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_a_chart_keeps_its_size_on_a_phone_and_is_scrolled_there(private_report):
    """Shrunk to such a screen, its text was 7 pixels high."""
    phone = STYLE.partition("(max-width: 40rem)")[2].partition("@media")[0]
    assert "svg { min-width: 40rem; }" in phone
    page = render_html(private_report)
    assert page.count("<svg") > 2
    assert all(
        before.endswith('">') and '<figure><div class="scroll"' in before[-300:] for before in page.split("<svg")[:-1]
    )
