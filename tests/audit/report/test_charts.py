"""Charts of any length, down to none."""

import pytest

from audit.report.charts import bars, line_chart, stacked_bars, timeline
from audit.report.drawing import Box, Label
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
