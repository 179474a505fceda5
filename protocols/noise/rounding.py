"""Stochastic rounding to integers, and the bounds on the norms of what comes out of it.

Each coordinate x becomes floor(x + u) with u uniform in [0, 1). Two inputs rounded with the same u differ by a vector
that is distributed as the rounding of their difference: so the bounds below hold for the contribution of one record to
a sum that is rounded as a whole, as they hold for a vector that is rounded on its own.
"""

import math

import numpy as np
from numpy.typing import NDArray

from protocols.entropy import Entropy
from protocols.errors import OutOfRangeError
from protocols.noise.keystream import Use, expand_public
from protocols.noise.rotation import Reals

Integers = NDArray[np.int64]

MAX_TRIES = 256
"""Conditional rounding fails a try with probability beta at most: with beta = exp(-1/2), 256 tries fail below 1e-55."""


def rounded_l2(scaled_clip: float, dimension: int, beta: float) -> float:
    """Return the L2 norm that the rounding of a vector of norm `scaled_clip` exceeds with probability at most beta.

    With beta = 0 the norm that is never exceeded.

    Paper: Kairouz, Liu, Steinke 2021 (arXiv 2102.06387), proposition 26.
    """
    plain = scaled_clip + math.sqrt(dimension)
    if beta == 0:
        return plain
    spread = math.sqrt(2 * math.log(1 / beta)) * (scaled_clip + math.sqrt(dimension) / 2)
    return min(plain, math.sqrt(scaled_clip**2 + dimension / 4 + spread))


def rounded_l1(l2: float, dimension: int) -> float:
    """Return the L1 norm that an integer vector of that L2 norm cannot exceed: min(l2 sqrt(d), l2**2)."""
    return l2 * min(math.sqrt(dimension), l2)


def round_once(grid: Reals, seed: bytes) -> Integers:
    """Return int64 [d]: each coordinate rounded down or up at random, its expectation kept.

    Args:
        grid: float64 [d].
        seed: 32 bytes from a cryptographic source, for this rounding alone.
    """
    uniforms = np.frombuffer(expand_public(seed, Use.ROUNDING, 4 * len(grid)), dtype="<u4")
    return np.floor(grid + uniforms * 2.0**-32).astype(np.int64)


def round_within(grid: Reals, limit: float, entropy: Entropy) -> Integers:
    """Return int64 [d], rounded again until the L2 norm is within the limit.

    Args:
        grid: float64 [d].
        limit: `rounded_l2` of the norm of `grid`.
        entropy: Cryptographic source.

    Raises:
        OutOfRangeError: No try was within the limit: the vector was not clipped as agreed.
    """
    for _ in range(MAX_TRIES):
        rounded = round_once(grid, entropy(32))
        if math.sqrt(float(np.dot(rounded, rounded))) <= limit:
            return rounded
    raise OutOfRangeError(len(grid), 0)
