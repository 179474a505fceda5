"""A public random rotation that spreads every vector evenly: random signs and Walsh-Hadamard blocks, without padding.

With p the largest power of two not above d, the first p coordinates are rotated, then the last p: 2**19 + 2**11
coordinates take two blocks of 2**19 that overlap, and no coordinate is added. Every output coordinate is then a sum of
at least p > d / 2 inputs with independent signs, so that it exceeds k |x| / sqrt(p) with a probability of at most
2 exp(-k**2 / 2), whatever x is (Hoeffding). Disjoint blocks would leave a last block of few coordinates unspread.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ParameterError, ShapeError
from protocols.noise.keystream import Use, expand_public, signs

Reals = NDArray[np.float64]

_FACTOR_BITS = 6
"""Blocks are transformed by matrices of at most 2**6 rows: few passes over memory, each at the speed of BLAS."""


class Rotation:
    """An orthonormal map of d coordinates, fixed by a public seed.

    Args:
        dimension: d, at least 1.
        seed: 32 public bytes; drawn after the data is fixed, or not chosen by anybody who knows it, since only the
            flatness of the result depends on it (privacy does not).

    Raises:
        ParameterError: The dimension is not positive or the seed not 32 bytes.
    """

    def __init__(self, dimension: int, seed: bytes) -> None:
        if dimension < 1:
            raise ParameterError("dimension", "must be at least 1")
        if len(seed) != 32:
            raise ParameterError("rotation seed", "must be 32 bytes")
        self.dimension = dimension
        self.block = 1 << (dimension.bit_length() - 1)
        self._starts = (0,) if self.block == dimension else (0, dimension - self.block)
        count = self.block * len(self._starts)
        drawn = signs(expand_public(seed, Use.SIGNS_OF_ROTATION, (count + 7) // 8), count)
        self._signs = drawn.reshape(len(self._starts), self.block) / np.sqrt(self.block)

    def apply(self, vector: NDArray[np.floating]) -> Reals:
        """Return float64 [d], the rotated vector; its L2 norm is that of `vector`, up to float64 rounding."""
        rotated = self._copy(vector)
        for start, weights in zip(self._starts, self._signs, strict=True):
            block = rotated[start : start + self.block]
            block[:] = walsh_hadamard(block * weights)
        return rotated

    def invert(self, rotated: NDArray[np.floating]) -> Reals:
        """Return float64 [d], the vector that `apply` maps to `rotated`."""
        vector = self._copy(rotated)
        for start, weights in reversed(list(zip(self._starts, self._signs, strict=True))):
            block = vector[start : start + self.block]
            block[:] = walsh_hadamard(block) * weights
        return vector

    def _copy(self, vector: NDArray[np.floating]) -> Reals:
        if vector.shape != (self.dimension,):
            raise ShapeError((self.dimension,), vector.shape)
        return vector.astype(np.float64)


def walsh_hadamard(block: Reals) -> Reals:
    """Return the unnormalised Walsh-Hadamard transform of float64 [2**k]: applied twice it multiplies by 2**k.

    Entry (i, j) of the matrix is -1 to the number of bits that i and j have in common.
    """
    size = len(block)
    remaining = size.bit_length() - 1
    result = block
    while remaining:
        bits = min(_FACTOR_BITS, remaining)
        # Each pass transforms the highest bits of the index and moves them to the lowest place.
        result = (result.reshape(1 << bits, -1).T @ _matrix(bits)).reshape(size)
        remaining -= bits
    return result.copy() if result is block else result


@lru_cache(maxsize=_FACTOR_BITS + 1)
def _matrix(bits: int) -> Reals:
    matrix = np.ones((1, 1))
    for _ in range(bits):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix
