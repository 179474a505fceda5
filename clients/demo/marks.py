"""What scanners and people leave on a picture besides the patient: rulers, letters, crosses, dust, glare."""

from collections.abc import Callable

import numpy as np

from clients.demo.fields import Field, bump, placed, radius
from clients.demo.randomness import Stream


def ruler(value: Field, stream: Stream) -> Field:
    """Draw a scale with ticks along the right edge, a little higher or lower."""
    size = value.shape[0]
    drawn = value.copy()
    first = size // 6 + stream.below(size // 24)
    step = max(size // 24, 2)
    for index, row in enumerate(range(first, size - size // 6, step)):
        length = size // 24 if index % 5 == 0 else size // 48
        drawn[row, size - 3 - length : size - 3] = 0.9
    return drawn


def letters(value: Field, stream: Stream) -> Field:
    """Write two short lines of invented letters into the upper left corner."""
    size = value.shape[0]
    drawn = value.copy()
    dot = max(size // 192, 1)
    ink = 0.92 if float(value[size // 40, size // 40]) < 0.5 else 0.08
    for line in range(2):
        for place in range(3 + stream.below(3)):
            top, left = size // 40 + line * 7 * dot, size // 40 + place * 4 * dot
            for row in range(5):
                for column in range(3):
                    if stream.chance(0.6):
                        y, x = top + row * dot, left + column * dot
                        drawn[y : y + dot, x : x + dot] = ink
    return drawn


def cross(value: Field, stream: Stream) -> Field:
    """Draw a registration cross near a lower corner."""
    size = value.shape[0]
    drawn = value.copy()
    row, arm = size - size // 8, size // 32
    column = size // 8 if stream.chance(0.5) else size - size // 8
    drawn[row, column - arm : column + arm + 1] = 0.05
    drawn[row - arm : row + arm + 1, column] = 0.05
    return drawn


def dust(value: Field, stream: Stream) -> Field:
    """Scatter specks and one or two scratches, as on a film."""
    size = value.shape[0]
    drawn = value.copy()
    for _ in range(10 + stream.below(15)):
        row, column = stream.below(size - 1), stream.below(size - 1)
        drawn[row : row + 1 + stream.below(2), column : column + 1 + stream.below(2)] = 0.97
    for _ in range(1 + stream.below(2)):
        column, lean = stream.between(0.1, 0.9) * size, stream.between(-0.15, 0.15)
        top = stream.below(size // 2)
        rows = np.arange(top, min(top + size // 3 + stream.below(size // 3), size))
        columns = np.clip((column + lean * (rows - top)).astype(np.intp), 0, size - 1)
        drawn[rows, columns] = np.minimum(drawn[rows, columns] + np.float32(0.18), np.float32(1.0))
    return drawn


def glare(value: Field, stream: Stream) -> Field:
    """Add the reflections of a lamp on a wet surface."""
    size = value.shape[0]
    drawn = value
    for _ in range(2 + stream.below(3)):
        u, v = placed(size, stream.between(-0.8, 0.8), stream.between(-0.8, 0.8), stream.direction())
        spot = bump(radius(u, v * stream.between(1.2, 2.5)), stream.between(0.05, 0.12))
        drawn = np.clip(drawn + 0.8 * spot, 0.0, 1.0)
    return drawn


MARKS: dict[str, Callable[[Field, Stream], Field]] = {
    "cross": cross,
    "dust": dust,
    "glare": glare,
    "letters": letters,
    "ruler": ruler,
}
"""Each returns a new field; values in [0, 1] stay in [0, 1]."""
