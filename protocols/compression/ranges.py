"""Public ranges that follow the updates: by the opened share of clamped coordinates, never by a private maximum."""

import math

FIRST_RANGE = 0.008
"""Range of tensors that are sent as they are, before anything was opened."""
FIRST_PROJECTED_RANGE = 0.005
"""Range of both groups of a projected matrix, before anything was opened."""

_LEAST, _MOST = 2.0**-40, 2.0**40
_GROW = ((20, 2.0), (8, 1.4), (4, 1.2))
"""(percent, factor): more clamped coordinates than that widen the range by the factor; the first that holds."""


def second_ranges(columns: int, rank: int) -> tuple[float, float]:
    """Return the ranges of a projected matrix after the first sum.

    Random bases saw `rank / columns` of a matrix's energy, the next see most of it: M B grows as the root of that. What
    is left for A^T M (1 - B B^T) was measured to be about twice as large (docs/results/compression.md).
    """
    return FIRST_PROJECTED_RANGE * math.sqrt(columns / rank), FIRST_PROJECTED_RANGE * 2.0


def next_range(current: float, clamped: int, coordinates: int) -> float:
    """Return the range of the next step.

    Integers are compared and one product is taken, so all parties agree on every bit. Above 4 % of clamped coordinates
    the range grows; below 1.5 % it shrinks by a fifth, below 0.1 % by half: grids of a few steps are best spent on the
    bulk, and what is clamped comes back through the feedback.

    Args:
        current: Range r.
        clamped: Sum of the clients' clamp counters.
        coordinates: Coordinates of the group, all clients together.
    """
    for percent, factor in _GROW:
        if clamped * 100 > percent * coordinates:
            return min(current * factor, _MOST)
    if clamped * 1000 < coordinates:
        return max(current * 0.5, _LEAST)
    return max(current * 0.8, _LEAST) if clamped * 1000 < 15 * coordinates else current
