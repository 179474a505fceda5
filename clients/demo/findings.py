"""The six findings of the cohort: pictures with medical names, and nothing else."""

from collections.abc import Callable

from clients.demo import shapes
from clients.demo.fields import Field, placed
from clients.demo.randomness import Stream

FINDINGS = (
    "calcification_cluster",
    "hazy_opacity",
    "linear_scar",
    "ring_lesion",
    "round_nodule",
    "spiculated_mass",
)
"""Names of the classes, sorted."""


def draw_finding(name: str, stream: Stream, pixels: int, x: float, y: float) -> Field:
    """Return how much a finding around (x, y) adds to the density of the tissue: float32[pixels, pixels] in [-1, 1].

    Raises:
        KeyError: There is no finding of that name.
    """
    return _DRAWERS[name](stream, pixels, x, y)


def _calcification_cluster(stream: Stream, pixels: int, x: float, y: float) -> Field:
    count = 7 + stream.below(9)
    return shapes.dots(stream, pixels, x, y, stream.between(0.18, 0.32), count) * stream.between(0.35, 0.6)


def _hazy_opacity(stream: Stream, pixels: int, x: float, y: float) -> Field:
    u, v = placed(pixels, x, y, stream.direction())
    return shapes.haze(stream, u * stream.between(0.8, 1.2), v, stream.between(0.24, 0.38)) * stream.between(0.3, 0.5)


def _linear_scar(stream: Stream, pixels: int, x: float, y: float) -> Field:
    u, v = placed(pixels, x, y, stream.direction())
    return shapes.stripe(stream, u, v, stream.between(0.26, 0.42), 0.03) * stream.between(0.2, 0.4)


def _ring_lesion(stream: Stream, pixels: int, x: float, y: float) -> Field:
    u, v = placed(pixels, x, y, stream.direction())
    size = stream.between(0.17, 0.3)
    rim = shapes.ring(stream, u, v, size, 0.05)
    return rim * stream.between(0.2, 0.4) - shapes.ball(stream, u, v, 0.8 * size, 0.06) * stream.between(0.05, 0.2)


def _round_nodule(stream: Stream, pixels: int, x: float, y: float) -> Field:
    u, v = placed(pixels, x, y, stream.direction())
    return shapes.ball(stream, u, v, stream.between(0.15, 0.28), stream.between(0.03, 0.07)) * stream.between(0.2, 0.42)


def _spiculated_mass(stream: Stream, pixels: int, x: float, y: float) -> Field:
    u, v = placed(pixels, x, y, stream.direction())
    return shapes.star(stream, u, v, stream.between(0.26, 0.42), 0.05) * stream.between(0.2, 0.42)


_DRAWERS: dict[str, Callable[[Stream, int, float, float], Field]] = {
    "calcification_cluster": _calcification_cluster,
    "hazy_opacity": _hazy_opacity,
    "linear_scar": _linear_scar,
    "ring_lesion": _ring_lesion,
    "round_nodule": _round_nodule,
    "spiculated_mass": _spiculated_mass,
}
