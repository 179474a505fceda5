"""Tables of integer noise distributions: cumulative probabilities of the magnitude, exact to 2**-128.

Row j holds floor(2**128 * P(|X| <= j)), until the rest is below 2**-128. Both distributions are symmetric: a draw is a
magnitude and a sign. Probabilities are computed with 60 decimal digits; nothing is left to floating point.
"""

import math
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ParameterError

RESOLUTION_BITS = 128
MAX_SIGMA = 1 << 16
"""Widest distribution of one share, in grid steps: its table has about 900,000 rows."""

_ARITHMETIC = Context(prec=60, Emin=-999_999, Emax=999_999)
_LOW = (1 << 64) - 1


class NoiseKind(StrEnum):
    """The distributions of noise."""

    SKELLAM = "skellam"
    DISCRETE_GAUSSIAN = "discrete-gaussian"


@dataclass(frozen=True, slots=True, eq=False)
class NoiseTable:
    """Cumulative probabilities of a magnitude.

    Attributes:
        high: uint64 [rows], the upper 64 bits of each row, ascending.
        low: uint64 [rows], the lower 64 bits.
    """

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]

    def row(self, magnitude: int) -> int:
        """Return floor(2**128 * P(|X| <= magnitude)); 2**128 beyond the table."""
        if magnitude >= len(self.high):
            return 1 << RESOLUTION_BITS
        return int(self.high[magnitude]) << 64 | int(self.low[magnitude])


@lru_cache(maxsize=32)
def noise_table(kind: NoiseKind, variance: float) -> NoiseTable:
    """Return the table of a distribution around zero.

    Args:
        kind: Skellam (the difference of two Poisson variables of mean variance / 2), or the discrete Gaussian with
            P(x) proportional to exp(-x**2 / (2 variance)); `variance` is then its parameter sigma**2.
        variance: In squared grid steps, above 0, at most 2**32; taken exactly as the float64 that it is.

    Raises:
        ParameterError: The variance is out of range.
    """
    if not (math.isfinite(variance) and 0 < variance <= MAX_SIGMA**2):
        raise ParameterError("noise variance", f"must be above 0 and at most {MAX_SIGMA**2} grid steps squared")
    with localcontext(_ARITHMETIC):
        weights = (_skellam_weights if kind is NoiseKind.SKELLAM else _gaussian_weights)(Decimal(variance))
        rows = _cumulate(weights)
    high = np.fromiter((row >> 64 for row in rows), dtype=np.uint64, count=len(rows))
    low = np.fromiter((row & _LOW for row in rows), dtype=np.uint64, count=len(rows))
    return NoiseTable(high, low)


def _cumulate(weights: list[Decimal]) -> list[int]:
    """The rows, from weights of the magnitudes 0, 1, ... of one sign."""
    unit = (1 << RESOLUTION_BITS) / (2 * sum(reversed(weights), Decimal(0)) - weights[0])  # smallest first
    rows: list[int] = []
    cumulated = Decimal(0)
    for magnitude, weight in enumerate(weights):
        cumulated += weight if magnitude == 0 else 2 * weight
        row = int(cumulated * unit)
        if row >= (1 << RESOLUTION_BITS) - 1:
            break
        rows.append(row)
    return rows


def _reach(variance: Decimal) -> int:
    """A magnitude beyond which both distributions hold less than 2**-140.

    Skellam: P(X >= x) <= exp(-x asinh(x / v) + sqrt(x**2 + v**2) - v) (Chernoff); at 16 sigma + 60 the exponent is
    below -128 for every v > 0. The Gaussian's tail is lighter.
    """
    return math.ceil(16 * math.sqrt(variance)) + 60


def _gaussian_weights(variance: Decimal) -> list[Decimal]:
    """exp(-k**2 / 2v) for k = 0, 1, ...: neighbours differ by a factor that falls geometrically."""
    ratio = (-1 / (2 * variance)).exp()
    step = ratio * ratio
    weights = [Decimal(1)]
    for _ in range(_reach(variance)):
        weights.append(weights[-1] * ratio)
        ratio *= step
    return weights


def _skellam_weights(variance: Decimal) -> list[Decimal]:
    """Bessel functions I_k(v), up to a common factor, by Miller's backward recurrence I_(k-1) = I_(k+1) + (2k/v) I_k.

    The recurrence is stable downwards; it begins at 1.5 times the last magnitude that counts.
    """
    reach = _reach(variance)
    factor = 2 / variance
    above, here = Decimal(0), Decimal(1)
    weights = [here]
    for k in range(reach * 3 // 2, 0, -1):
        above, here = here, above + factor * k * here
        weights.append(here)
    weights.reverse()
    return weights[: reach + 1]
