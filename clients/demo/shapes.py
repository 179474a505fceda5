"""Outlines that both the cohort's findings and the generic world of the encoder's training are made of.

Each function returns float32[size, size] in [0, 1]: how much of the shape is at each pixel. Coordinates u, v have their
origin in the middle of the shape; lengths are in units of half the picture.
"""

import numpy as np

from clients.demo.fields import Field, bump, cloud, radius, stamp, waves, within
from clients.demo.randomness import Stream


def ball(stream: Stream, u: Field, v: Field, size: float, softness: float) -> Field:
    """Return a nearly round, smooth disc of radius `size`."""
    wobble = 1.0 + stream.between(0.0, 0.08) * waves(u, v, 2) + stream.between(0.0, 0.05) * waves(v, u, 3)
    return within(radius(u, v) - size * wobble, softness)


def star(stream: Stream, u: Field, v: Field, size: float, softness: float) -> Field:
    """Return a core with irregular thin rays that reach about to radius `size`."""
    spikes = stream.between(0.6, 1.0) * waves(u, v, 5 + stream.below(3))
    spikes = spikes + stream.between(0.5, 0.9) * waves(v, u, 8 + stream.below(4))
    reach = np.clip(spikes * 0.5, 0.0, 1.0)
    return within(radius(u, v) - size * (0.38 + 0.72 * reach), softness)


def ring(stream: Stream, u: Field, v: Field, size: float, softness: float) -> Field:
    """Return a closed band around radius `size`."""
    wobble = 1.0 + stream.between(0.0, 0.1) * waves(u, v, 2) + stream.between(0.0, 0.06) * waves(v, u, 3)
    width = size * stream.between(0.14, 0.26)
    return within(np.abs(radius(u, v) - size * wobble) - width, softness)


def dots(stream: Stream, pixels: int, x: float, y: float, size: float, count: int) -> Field:
    """Return `count` small spots scattered within `size` around (x, y); a spot is a 90th to a 45th of the picture."""
    field = np.zeros((pixels, pixels), np.float32)
    for _ in range(count):
        across, down = stream.direction()
        distance = size * (0.15 + 0.85 * stream.unit())
        spot_radius = stream.between(0.022, 0.045)
        half = int(spot_radius * pixels / 2.0) + 2
        axis = np.arange(-half, half + 1, dtype=np.float32) * np.float32(2.0 / pixels)
        spot = bump(radius(axis[None, :], axis[:, None]), spot_radius) * stream.between(0.7, 1.0)
        column = int((x + across * distance + 1.0) * pixels / 2.0)
        row = int((y + down * distance + 1.0) * pixels / 2.0)
        stamp(field, spot, row, column)
    return np.clip(field, 0.0, 1.0)


def haze(stream: Stream, u: Field, v: Field, size: float) -> Field:
    """Return a ragged patch without an edge that reaches to about 1.6 times `size`."""
    texture = cloud(stream, u.shape[0], 9, 2)
    shade = bump(radius(u, v), 1.9 * size)
    return np.clip(shade * (0.55 + 1.1 * texture), 0.0, 1.0)


def stripe(stream: Stream, u: Field, v: Field, size: float, softness: float) -> Field:
    """Return a thin, slightly bent band of length 2 * `size` * 1.3 along u."""
    bend = stream.between(-0.5, 0.5)
    width = stream.between(0.016, 0.034)
    across = np.abs(v - bend * (u * u)) - width
    return within(across, softness) * within(np.abs(u) - 1.3 * size, 0.2 * size)


def vessel(stream: Stream, u: Field, v: Field) -> Field:
    """Return a long, bent band along u that starts at the origin and grows thinner."""
    course = stream.between(-0.7, 0.7) * (u * u) + stream.between(-0.5, 0.5) * (u * u * u)
    width = np.maximum(stream.between(0.018, 0.032) - 0.02 * u, 0.002)
    return within(np.abs(v - course) - width, 0.03) * within(-u, 0.1)
