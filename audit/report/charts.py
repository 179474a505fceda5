"""Charts: lines, stacked bars, bars with limits, a grid of losses; colours that differ on paper too."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, floor, log10
from typing import TypeVar

from audit.report.drawing import TEXT, Box, Dot, Drawing, Label, Shape, Stroke
from audit.report.glyphs import cut_to, known, width_of
from audit.report.reading_order import in_order

WIDTH, HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 16, 16, 56
COLOURS = ("#1b5e8a", "#b3541e", "#3d7a3d", "#7a3d7a", "#6b6b00", "#8a1b3d", "#2f6f6f", "#555555")
"""Distinguishable on paper and to most colour-blind readers; each at least 4.5 : 1 on white."""

_GRID, _ALARM, _PALE = "#c8c8c8", "#8a0000", "#e8eef2"
_LONGEST_NAME = 300.0
"""Widest name at the left of bars and of hospitals' rounds; what is longer is cut."""

_LINES = 24
"""Bars, or hospitals of a timeline, of one drawing: more of them would not fit a page at a size that can be read."""

Points = Sequence[tuple[float, float]]
_Line = TypeVar("_Line")


def line_chart(
    title: str,
    description: str,
    series: Mapping[str, Points],
    *,
    x_label: str,
    y_label: str,
    limit: tuple[str, float] | None = None,
    logarithmic: str = "",
) -> Drawing:
    """Return a chart of lines with markers.

    Args:
        title: Short title.
        description: What the chart shows, in words.
        series: {name: points}.
        x_label: Name of the x axis.
        y_label: Name of the y axis.
        limit: Name and value of a horizontal line.
        logarithmic: Axes on which equal steps are equal factors: "", "x", "y" or "xy"; points at 0 are left out there.
    """
    shown = {
        name: [(x, y) for x, y in points if (x > 0 or "x" not in logarithmic) and (y > 0 or "y" not in logarithmic)]
        for name, points in series.items()
    }
    every = [point for points in shown.values() for point in points]
    xs, ys = [x for x, _ in every] or [1.0], [y for _, y in every] or [1.0]
    counted = all(float(x).is_integer() for x in xs)
    across = _Axis(min(xs), max(xs), _LEFT, WIDTH - _RIGHT, "x" in logarithmic, at_least=1.0 if counted else 0.0)
    highest = max([*ys, limit[1]] if limit else ys)
    low = min(ys) if "y" in logarithmic else 0.0
    up = _Axis(low, highest, HEIGHT - _BOTTOM, _TOP, "y" in logarithmic)
    body = _axes(across, up, x_label, y_label)
    for index, points in enumerate(shown.values()):
        colour = COLOURS[index % len(COLOURS)]
        path = tuple((across.at(x), up.at(y)) for x, y in points)
        body.append(Stroke(path, colour, 2))
        if len(points) <= 60:
            body += [Dot(x, y, 3, colour) for x, y in path]
    if limit is not None:
        y = up.at(limit[1])
        body.append(Stroke(((_LEFT, y), (WIDTH - _RIGHT, y)), _ALARM, 1.5, dash=True))
        body.append(Label(WIDTH - _RIGHT, y - 5, limit[0], "end", _ALARM))
    return _drawing(title, description, body, HEIGHT, list(shown) if len(shown) > 1 else [])


def stacked_bars(
    title: str, description: str, columns: Sequence[tuple[str, Mapping[str, float]]], *, x_label: str, y_label: str
) -> Drawing:
    """Return a chart of one bar a column, stacked by part.

    Args:
        title: Short title.
        description: What the chart shows, in words.
        columns: (name, {part: height}) each.
        x_label: Name of the x axis.
        y_label: Name of the y axis.
    """
    parts = list(dict.fromkeys(part for _, heights in columns for part in heights))
    highest = max((sum(heights.values()) for _, heights in columns), default=0.0)
    up = _Axis(0, highest, HEIGHT - _BOTTOM, _TOP, logarithmic=False)
    body = _axes(None, up, x_label, y_label)
    width = (WIDTH - _LEFT - _RIGHT) / max(1, len(columns))
    step = max(1, ceil(len(columns) / 16))
    for place, (name, heights) in enumerate(columns):
        base = 0.0
        for index, part in enumerate(parts):
            top, bottom = up.at(base + heights.get(part, 0.0)), up.at(base)
            base += heights.get(part, 0.0)
            if bottom - top >= 0.05:
                left = _LEFT + place * width + width * 0.1
                body.append(Box(left, top, width * 0.8, bottom - top, COLOURS[index % len(COLOURS)]))
        if place % step == 0:
            body.append(Label(_LEFT + (place + 0.5) * width, HEIGHT - _BOTTOM + 16, name))
    return _drawing(title, description, body, HEIGHT, parts)


def bars(
    title: str,
    description: str,
    values: Mapping[str, tuple[float, float | None]],
    *,
    unit: str,
    label: Callable[[float], str] | None = None,
) -> tuple[Drawing, ...]:
    """Return horizontal bars, each with an optional limit mark; on as many drawings of one scale as they need.

    Args:
        title: Short title.
        description: What the chart shows, in words.
        values: {name: (value, limit)}.
        unit: What the values are.
        label: How a value is written at its bar; None writes four digits.
    """
    highest = max((max(value, limit or 0.0) for value, limit in values.values()), default=0.0) or 1.0
    room = _room(values)
    left = 20 + room
    scale = (WIDTH - left - 100) / highest

    def drawn(part: Sequence[tuple[str, tuple[float, float | None]]], title: str) -> Drawing:
        height = 34 * len(part) + 40
        body: list[Shape] = []
        for place, (name, (value, limit)) in enumerate(part):
            y = 12 + 34 * place
            body.append(Label(left - 10, y + 15, _cut(name, room), "end"))
            body.append(Box(left, y, max(1.0, value * scale), 20, COLOURS[0]))
            if limit is not None:
                x = left + limit * scale
                body.append(Stroke(((x, y - 4), (x, y + 24)), _ALARM, 3))
            end = left + max(value, limit or 0.0) * scale
            body.append(Label(end + 6, y + 15, (label or _rounded)(value), "start"))
        body.append(Label(left, height - 10, unit, "start"))
        return _drawing(title, description, body, height, [])

    return _in_parts(title, list(values.items()), drawn)


def _rounded(value: float) -> str:
    return f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"


def timeline(title: str, description: str, rows: Mapping[str, Sequence[str | None]]) -> tuple[Drawing, ...]:
    """Return grids of hospitals by rounds; a dark square is a loss, and its letter the stage's first.

    Args:
        title: Short title.
        description: What the chart shows, in words.
        rows: {hospital: stage at which it was lost in each round, or None}.
    """
    count = max((len(stages) for stages in rows.values()), default=0)
    room = _room(rows)
    left = 20 + room
    width = (WIDTH - left) / max(1, count)

    def drawn(part: Sequence[tuple[str, Sequence[str | None]]], title: str) -> Drawing:
        height = 26 * len(part) + 40
        body: list[Shape] = []
        for place, (name, stages) in enumerate(part):
            y = 8 + 26 * place
            body.append(Label(left - 10, y + 15, _cut(name, room), "end"))
            for index, stage in enumerate(stages):
                x = left + index * width
                body.append(Box(x, y, max(0.5, width * 0.9), 20, _PALE if stage is None else _ALARM))
                if stage is not None and width >= 10:
                    body.append(Label(x + width * 0.45, y + 15, stage[:1], colour="#ffffff"))
        body.append(Label(left, height - 10, "rounds, from the first", "start"))
        return _drawing(title, description, body, height, [])

    return _in_parts(title, list(rows.items()), drawn)


def _in_parts(
    title: str, lines: Sequence[_Line], drawn: Callable[[Sequence[_Line], str], Drawing]
) -> tuple[Drawing, ...]:
    """Return a drawing of every so many lines, each titled with its place where there are several."""
    starts = range(0, max(1, len(lines)), _LINES)
    titles = (
        [title] if len(starts) == 1 else [f"{title} ({place} of {len(starts)})" for place in range(1, len(starts) + 1)]
    )
    return tuple(drawn(lines[start : start + _LINES], named) for start, named in zip(starts, titles, strict=True))


class _Axis:
    """Places values between two ends of the canvas, with ticks at round numbers.

    Args:
        low: Smallest value.
        high: Largest value.
        start: Where the smallest is drawn.
        end: Where the largest is drawn.
        logarithmic: Whether equal steps are equal factors.
        at_least: Smallest distance of two ticks.
    """

    def __init__(
        self, low: float, high: float, start: float, end: float, logarithmic: bool, *, at_least: float = 0.0
    ) -> None:
        self._start, self._end, self._logarithmic = start, end, logarithmic
        self.ticks: list[float]
        self._low: float
        self._high: float
        if logarithmic:
            first, last = floor(log10(low) + 1e-9), ceil(log10(high) - 1e-9)
            last = max(last, first + 1)
            every = max(1, ceil((last - first) / 8))
            self.ticks = [10.0**power for power in range(first, last + 1, every)]
            self._low, self._high = float(first), float(last)
            return
        step = max(at_least, _nice((high - low) / 5 if high > low else max(abs(high), 1.0) / 4))
        self._low = low if at_least else floor(low / step + 1e-9) * step
        count = max(1, ceil((high - self._low) / step - 1e-9))
        self._high = max(high, self._low + step) if at_least else self._low + count * step
        self.ticks = [self._low + step * index for index in range(count + 1) if self._low + step * index <= self._high]

    def at(self, value: float) -> float:
        place = log10(value) if self._logarithmic else value
        return self._start + (place - self._low) / (self._high - self._low) * (self._end - self._start)


def _axes(across: _Axis | None, up: _Axis, x_label: str, y_label: str) -> list[Shape]:
    body: list[Shape] = []
    for value in up.ticks:
        y = up.at(value)
        body.append(Stroke(((_LEFT, y), (WIDTH - _RIGHT, y)), _GRID))
        body.append(Label(_LEFT - 6, y + 4, _tick(value), "end"))
    if across is not None:
        body += [Label(across.at(value), HEIGHT - _BOTTOM + 16, _tick(value)) for value in across.ticks]
    body.append(Label((WIDTH + _LEFT) / 2, HEIGHT - _BOTTOM + 34, x_label))
    body.append(Label(14, (HEIGHT - _BOTTOM) / 2, y_label, turned=True))
    return body


def _tick(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g} M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:g} k"
    return f"{value:.4g}"


def _nice(value: float) -> float:
    """The next step of 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 0.25
    power = 10.0 ** floor(log10(value))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value * (1 - 1e-9))


def _width(name: str) -> float:
    """Width of a name as page or paper show it, whichever is wider; most fonts of browsers are narrower than DejaVu."""
    return max(width_of(in_order(name), TEXT), width_of(known(name), TEXT))


def _room(names: Iterable[str]) -> float:
    return min(_LONGEST_NAME, max(map(_width, names), default=0.0))


def _cut(name: str, room: float) -> str:
    return cut_to(in_order(name), room, TEXT)


def _drawing(title: str, description: str, body: Sequence[Shape], height: float, names: Sequence[str]) -> Drawing:
    """Return the canvas, with a legend below where there are names; it breaks into lines as it must."""
    shapes, x, y = list(body), float(_LEFT), height + 10.0
    for index, name in enumerate(names):
        room = WIDTH - _LEFT - 15.0
        shown = _cut(name, room)
        width = 15 + min(room, _width(shown)) + 14
        if x + width > WIDTH and x > _LEFT:
            x, y = float(_LEFT), y + 18
        shapes.append(Box(x, y - 9, 10, 10, COLOURS[index % len(COLOURS)]))
        shapes.append(Label(x + 15, y, shown, "start"))
        x += width
    return Drawing(WIDTH, y + 10 if names else height, title, description, tuple(shapes))
