"""Public bases of the subspaces: the same integers on every machine, from nothing but opened sums.

Every step is exact: products of integers below 2**53 in float64, then single IEEE operations (addition, multiplication,
division, square root) in a fixed order, never a reduction whose order a library may choose. Server and clients so hold
the same basis, bit for bit, whatever their processors and libraries.
"""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

Basis = NDArray[np.int16]
"""int16[side, rank]: columns that are orthonormal up to rounding, in units of 2**-BASIS_BITS."""

BASIS_BITS = 11
MAX_SIDE = 1 << 16
_SUM_BITS = 12
_WEIGHT = 64
"""Weight of the sums against pseudorandom signs: the signs decide only where the sums have nothing to say."""


def first_basis(side: int, rank: int, context: bytes) -> Basis:
    """Return a pseudorandom basis.

    Args:
        side: Rows, at most 65,536.
        rank: Columns, a power of two, at most `side`.
        context: Where the basis is used; other contexts, other bases.
    """
    return next_basis(np.zeros((side, rank), dtype=np.int64), 1, context)


def next_basis(sums: NDArray[np.int64], bound: int, context: bytes) -> Basis:
    """Return a basis of the columns of an opened sum, turned so that all its columns matter alike.

    One step of subspace iteration: a matrix times a basis of one side gives the basis for the other side.

    Args:
        sums: int64[side, rank], centred sums.
        bound: Largest absolute value that a sum can have.
        context: Where the basis is used.
    """
    side, rank = sums.shape
    shift = max(0, bound.bit_length() - _SUM_BITS)
    columns = ((sums >> shift) * _WEIGHT + _signs(side * rank, context).reshape(side, rank)).astype(np.float64)
    gram = columns.T @ columns  # integers below 2**53: exact in any order
    factor = _cholesky(gram)
    for j in range(rank):
        columns[:, j] /= factor[j, j]
        columns[:, j + 1 :] -= columns[:, j, None] * factor[None, j + 1 :, j]
    columns *= _signs(rank, context + b"mix")
    return np.rint(_hadamard(columns) * float(1 << BASIS_BITS)).astype(np.int16)


def _cholesky(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lower triangular factor, by outer products: one IEEE operation an entry and step."""
    work, rank = gram.copy(), len(gram)
    for j in range(rank):
        work[j:, j] /= np.sqrt(work[j, j])
        work[j + 1 :, j + 1 :] -= work[j + 1 :, j, None] * work[None, j + 1 :, j]
    return work


def _hadamard(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mix the columns by the orthonormal Walsh-Hadamard matrix; their number is a power of two."""
    side, rank = columns.shape
    half = 1
    while half < rank:
        pairs = columns.reshape(side, -1, 2, half)
        columns = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2)
        columns = columns.reshape(side, rank)
        half *= 2
    mixed: NDArray[np.float64] = columns * (1.0 / math.sqrt(rank))
    return mixed


def _signs(count: int, context: bytes) -> NDArray[np.int64]:
    stream = np.frombuffer(hashlib.shake_256(context).digest((count + 7) // 8), dtype=np.uint8)
    return 1 - 2 * np.unpackbits(stream, count=count, bitorder="little").astype(np.int64)
