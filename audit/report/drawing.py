"""Drawings as plain shapes, so that page and paper show the same one."""

from dataclasses import dataclass

INK = "#222222"
TEXT = 12
"""Height of the text, in the units of a drawing."""


@dataclass(frozen=True)
class Stroke:
    """A line through points; `dash` breaks it."""

    points: tuple[tuple[float, float], ...]
    colour: str
    width: float = 1.0
    dash: bool = False


@dataclass(frozen=True)
class Box:
    """A filled rectangle; x, y is its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True)
class Dot:
    """A filled circle."""

    x: float
    y: float
    radius: float
    colour: str


@dataclass(frozen=True)
class Label:
    """Text on a base line; `anchor` is start, middle or end, `turned` reads upwards."""

    x: float
    y: float
    text: str
    anchor: str = "middle"
    colour: str = INK
    turned: bool = False


Shape = Stroke | Box | Dot | Label


@dataclass(frozen=True)
class Drawing:
    """Shapes on a canvas whose y axis points down.

    Attributes:
        width: In units of which the text is TEXT high.
        height: Likewise.
        title: Short title, for who cannot see it.
        description: What it shows, in words.
        shapes: From back to front.
    """

    width: float
    height: float
    title: str
    description: str
    shapes: tuple[Shape, ...]
