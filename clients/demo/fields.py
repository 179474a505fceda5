"""Grey fields, and how to draw on them with arithmetic that every machine rounds alike.

A field is float32[size, size]. Only additions, products, quotients, square roots, comparisons and rounding are used,
each on whole fields in a fixed order: IEEE 754 fixes the result of each of them to the bit, which it does not do for
sines, exponentials or sums of many numbers. That is why a picture drawn here is the same on every machine.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from clients.demo.randomness import Stream

Field = NDArray[np.floating[Any]]
"""float32[size, size]; what its values stand for is said where one is returned."""


@lru_cache(maxsize=8)
def coordinates(size: int) -> tuple[Field, Field]:
    """Return x (to the right) and y (downwards) of each pixel, in (-1, 1); shared, so not writable."""
    axis = (2.0 * np.arange(size, dtype=np.float64) + 1.0 - size) / size
    x, y = np.meshgrid(axis.astype(np.float32), axis.astype(np.float32))
    x.flags.writeable = y.flags.writeable = False
    return x, y


def placed(size: int, x: float, y: float, direction: tuple[float, float] = (1.0, 0.0)) -> tuple[Field, Field]:
    """Return coordinates with their origin at (x, y) and their first axis along `direction` (a unit vector)."""
    across, down = coordinates(size)
    across, down = across - x, down - y
    cosine, sine = direction
    return across * cosine + down * sine, down * cosine - across * sine


def radius(u: Field, v: Field) -> Field:
    """Return the distance of each pixel from the origin of the coordinates."""
    squares = u * u
    squares = squares + v * v
    distance: Field = np.sqrt(squares, out=squares)
    return distance


def within(distance: Field, softness: float) -> Field:
    """Return 1 where a signed distance is below 0 and 0 where it is above, with a smooth edge this wide."""
    t = distance * (-1.0 / softness)
    t += 0.5
    t = np.minimum(np.maximum(t, 0.0, out=t), 1.0, out=t)
    smooth: Field = 3.0 - 2.0 * t
    smooth *= t
    smooth *= t
    return smooth


def bump(distance: Field, width: float) -> Field:
    """Return 1 at distance 0, falling smoothly to 0 at `width`."""
    t: Field = np.clip(1.0 - (distance * distance) / (width * width), 0.0, 1.0)
    return t * t


def waves(u: Field, v: Field, count: int) -> Field:
    """Return cos(count * angle) of each pixel around the origin, by Chebyshev's recursion."""
    cosine = u / np.maximum(radius(u, v), 1e-6)
    before, current = np.ones_like(cosine), cosine
    for _ in range(count - 1):
        before, current = current, 2.0 * cosine * current - before
    return current


def stretch(lattice: Field, size: int) -> Field:
    """Interpolate float32[n, n], n at least 2, smoothly to float32[size, size]."""
    low, share = _positions(lattice.shape[0], size)
    rows = lattice[low] * (1.0 - share)[:, None] + lattice[low + 1] * share[:, None]
    return rows[:, low] * (1.0 - share) + rows[:, low + 1] * share


def cloud(stream: "Stream", size: int, cells: int, octaves: int = 1) -> Field:
    """Return a smooth random field with about `cells` features a side, in [-1, 1]; each octave has twice as many."""
    total: Field = np.zeros((size, size), np.float32)
    strength, weight = 1.0, 0.0
    for octave in range(octaves):
        lattice = stream.units((cells << octave) + 1, (cells << octave) + 1)
        total = total + stretch(2.0 * lattice - 1.0, size) * strength
        weight += strength
        strength *= 0.5
    return total / weight


def blurred(field: Field, passes: int) -> Field:
    """Smooth with the kernel (1, 2, 1)/4 along both axes, `passes` times; edges are continued."""
    for _ in range(passes):
        padded = np.concatenate((field[:1], field, field[-1:]))
        field = (padded[:-2] + padded[2:] + 2.0 * field) * 0.25
        padded = np.concatenate((field[:, :1], field, field[:, -1:]), axis=1)
        field = (padded[:, :-2] + padded[:, 2:] + 2.0 * field) * 0.25
    return field


def curve(field: Field, bend: float) -> Field:
    """Brighten (bend above 0) or darken the middle tones of values in [0, 1]; 0 and 1 stay; bend in (-1, 1)."""
    slope = (1.0 - bend) / (1.0 + bend)
    return field / (field + slope * (1.0 - field))


def stamp(field: Field, spot: Field, row: int, column: int) -> None:
    """Add a small field to a large one in place, with its middle at (row, column); what lies outside is cut off."""
    half = spot.shape[0] // 2
    top, left = row - half, column - half
    bottom, right = min(top + spot.shape[0], field.shape[0]), min(left + spot.shape[1], field.shape[1])
    above, before = max(-top, 0), max(-left, 0)
    if bottom > top + above and right > left + before:
        field[top + above : bottom, left + before : right] += spot[above : bottom - top, before : right - left]


@lru_cache(maxsize=64)
def _positions(points: int, size: int) -> tuple[NDArray[np.intp], Field]:
    where = np.arange(size, dtype=np.float64) * (points - 1) / size
    low = np.floor(where).astype(np.intp)
    share = (where - low).astype(np.float32)
    return low, share * share * (3.0 - 2.0 * share)
