"""A drawing as inline SVG: text that scales and prints, a title and a description for who cannot see it, no script."""

from html import escape

from audit.report.drawing import TEXT, Box, Dot, Drawing, Label, Shape, Stroke


def to_svg(drawing: Drawing) -> str:
    """Return the drawing as an SVG element that belongs inside a page."""
    frame = (
        f'viewBox="0 0 {drawing.width:.0f} {drawing.height:.0f}" role="img" font-family="sans-serif" font-size="{TEXT}"'
    )
    told = f"<title>{escape(drawing.title)}</title><desc>{escape(drawing.description)}</desc>"
    label = escape(f"{drawing.title}. {drawing.description}")
    return f'<svg {frame} aria-label="{label}">{told}{"".join(map(_shape, drawing.shapes))}</svg>'


def _shape(shape: Shape) -> str:
    match shape:
        case Stroke(points, colour, width, dash):
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            broken = ' stroke-dasharray="6 4"' if dash else ""
            return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{broken}/>'
        case Box(x, y, width, height, colour):
            return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.2f}" height="{height:.2f}" fill="{colour}"/>'
        case Dot(x, y, radius, colour):
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{colour}"/>'
        case Label(x, y, text, anchor, colour, turned):
            place = f'transform="translate({x:.1f} {y:.1f}) rotate(-90)"' if turned else f'x="{x:.1f}" y="{y:.1f}"'
            return f'<text {place} text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
