"""Charts as inline SVG: text that scales and prints, a title and a description for who cannot see it, no script."""

from collections.abc import Mapping, Sequence
from html import escape
from math import floor, log10

WIDTH, HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 16, 84
COLOURS = ("#1b5e8a", "#b3541e", "#3d7a3d", "#7a3d7a", "#6b6b00", "#8a1b3d", "#2f6f6f", "#555555")
"""Distinguishable on paper and to most colour-blind readers; each at least 4.5 : 1 on white."""


def line_chart(
    title: str,
    description: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
    limit: tuple[str, float] | None = None,
) -> str:
    """Return a chart of lines with markers.

    Args:
        title: Short title.
        description: What the chart shows, in words.
        series: {name: points}.
        x_label: Name of the x axis.
        y_label: Name of the y axis.
        limit: Name and value of a horizontal line.
    """
    xs = [x for points in series.values() for x, _ in points] or [0.0]
    ys = [y for points in series.values() for _, y in points] + ([limit[1]] if limit else []) or [0.0]
    frame = _Frame(min(xs), max(xs), max(ys))
    body = frame.axes(x_label, y_label)
    for index, (name, points) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(points) <= 60:
            body += [f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3" fill="{colour}"/>' for x, y in points]
        if len(series) > 1:
            body += _legend(index, name, colour)
    if limit is not None:
        y = frame.y(limit[1])
        body.append(_line(_LEFT, WIDTH - _RIGHT, y, y, 'stroke="#8a0000" stroke-dasharray="6 4"'))
        body.append(_text(WIDTH - _RIGHT, y - 5, limit[0], anchor="end", colour="#8a0000"))
    return _svg(title, description, body)


def stacked_bars(
    title: str, description: str, columns: Sequence[tuple[str, Mapping[str, float]]], *, x_label: str, y_label: str
) -> str:
    """Return a chart of one bar a column, stacked by part.

    Args:
        title: Short title.
        description: What the chart shows, in words.
        columns: (name, {part: height}) each.
        x_label: Name of the x axis.
        y_label: Name of the y axis.
    """
    parts = list(dict.fromkeys(part for _, heights in columns for part in heights))
    frame = _Frame(0, max(1, len(columns)), max((sum(heights.values()) for _, heights in columns), default=0.0))
    body = frame.axes(x_label, y_label, ticks=False)
    width = (WIDTH - _LEFT - _RIGHT) / max(1, len(columns))
    step = max(1, len(columns) // 12)
    for place, (name, heights) in enumerate(columns):
        base = 0.0
        for index, part in enumerate(parts):
            height = heights.get(part, 0.0)
            top, bottom = frame.y(base + height), frame.y(base)
            base += height
            if bottom - top >= 0.05:
                body.append(
                    f'<rect x="{_LEFT + place * width + width * 0.1:.1f}" y="{top:.1f}" width="{width * 0.8:.1f}" '
                    f'height="{bottom - top:.1f}" fill="{COLOURS[index % len(COLOURS)]}"/>'
                )
        if place % step == 0:
            body.append(_text(_LEFT + (place + 0.5) * width, HEIGHT - _BOTTOM + 16, name))
    for index, part in enumerate(parts):
        body += _legend(index, part, COLOURS[index % len(COLOURS)])
    return _svg(title, description, body)


def bars(title: str, description: str, values: Mapping[str, tuple[float, float | None]], *, unit: str) -> str:
    """Return horizontal bars, each with an optional limit mark.

    Args:
        title: Short title.
        description: What the chart shows, in words.
        values: {name: (value, limit)}.
        unit: What the values are.
    """
    highest = max((max(value, limit or 0.0) for value, limit in values.values()), default=0.0) or 1.0
    height = 34 * len(values) + 40
    scale = (WIDTH - 180 - 90) / highest
    body = []
    for place, (name, (value, limit)) in enumerate(values.items()):
        y = 12 + 34 * place
        body.append(_text(170, y + 15, name[:24], anchor="end"))
        body.append(f'<rect x="180" y="{y}" width="{max(1.0, value * scale):.1f}" height="20" fill="{COLOURS[0]}"/>')
        body.append(_text(186 + value * scale, y + 15, f"{value:.4g}", anchor="start"))
        if limit is not None:
            x = 180 + limit * scale
            body.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 4}" y2="{y + 24}" stroke="#8a0000" stroke-width="3"/>'
            )
    body.append(_text(180, height - 10, unit, anchor="start"))
    return _svg(title, description, body, height)


def timeline(title: str, description: str, rows: Mapping[str, Sequence[str | None]]) -> str:
    """Return a grid of hospitals by rounds; a filled square is a loss, and its letter the stage's first.

    Args:
        title: Short title.
        description: What the chart shows, in words.
        rows: {hospital: stage at which it was lost in each round, or None}.
    """
    count = max((len(stages) for stages in rows.values()), default=0)
    width = (WIDTH - 180) / max(1, count)
    height = 26 * len(rows) + 40
    body = []
    for place, (name, stages) in enumerate(rows.items()):
        y = 8 + 26 * place
        body.append(_text(170, y + 15, name[:24], anchor="end"))
        for index, stage in enumerate(stages):
            x = 180 + index * width
            fill = "#e8eef2" if stage is None else "#8a0000"
            body.append(f'<rect x="{x:.1f}" y="{y}" width="{max(0.5, width * 0.9):.2f}" height="20" fill="{fill}"/>')
            if stage is not None and width >= 10:
                body.append(_text(x + width * 0.45, y + 15, stage[:1], colour="#ffffff"))
    body.append(_text(180, height - 10, "rounds, from the first", anchor="start"))
    return _svg(title, description, body, height)


class _Frame:
    """Places values on the canvas; y begins at 0."""

    def __init__(self, low: float, high: float, top: float) -> None:
        self._low, self._high = low, high if high > low else low + 1
        self._step = _nice(top / 4)
        self._top = max(self._step * 4, top)

    def x(self, value: float) -> float:
        return _LEFT + (value - self._low) / (self._high - self._low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - value / self._top * (HEIGHT - _TOP - _BOTTOM)

    def axes(self, x_label: str, y_label: str, *, ticks: bool = True) -> list[str]:
        found = []
        for index in range(5):
            value = index * self._step
            y = self.y(value)
            found.append(_line(_LEFT, WIDTH - _RIGHT, y, y, 'stroke="#c8c8c8"'))
            found.append(_text(_LEFT - 6, y + 4, f"{value:.4g}", anchor="end"))
        if ticks:
            step = max(1.0, _nice((self._high - self._low) / 5))
            value = self._low
            while value <= self._high:
                found.append(_text(self.x(value), HEIGHT - _BOTTOM + 16, f"{value:.4g}"))
                value += step
        found.append(_text((WIDTH + _LEFT) / 2, HEIGHT - _BOTTOM + 32, x_label))
        middle = (HEIGHT - _BOTTOM) / 2
        found.append(
            f'<text transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
        )
        return found


def _nice(value: float) -> float:
    """The next step of 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 0.25
    power = 10.0 ** floor(log10(value))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value * (1 - 1e-9))


def _legend(index: int, name: str, colour: str) -> list[str]:
    x, y = _LEFT + 140 * (index % 4), HEIGHT - 26 + 16 * (index // 4)
    return [
        f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>',
        _text(x + 15, y, name[:18], anchor="start"),
    ]


def _line(x1: float, x2: float, y1: float, y2: float, stroke: str) -> str:
    return f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" {stroke}/>'


def _text(x: float, y: float, text: str, *, anchor: str = "middle", colour: str = "#222222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _svg(title: str, description: str, body: Sequence[str], height: float = HEIGHT) -> str:
    frame = f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" font-family="sans-serif" font-size="12"'
    told = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    label = escape(f"{title}. {description}")
    return f'<svg {frame} aria-label="{label}">{told}{"".join(body)}</svg>'
