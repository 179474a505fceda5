"""Public bases of the subspaces: the same integers on every machine, from nothing but opened sums.

Every step is exact: products of integers below 2**53 in float64, or single IEEE operations (addition, multiplication,
division, square root) in a fixed order on small square matrices (solving.py), never a reduction whose order a library
may choose. Server and clients so hold the same basis, bit for bit, whatever their processors and libraries.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protocols.compression.solving import inverse_factors, inverses, product

Basis = NDArray[np.int16]
"""int16[side, rank]: columns that are orthonormal up to rounding, in units of 2**-BASIS_BITS."""

BASIS_BITS = 11
MAX_SIDE = 1 << 16
LIFT_BITS = 10
_SUM_BITS = 10
_CORRELATION_BITS = 19
_LARGEST = float(1 << 17)
"""What the largest entry becomes before pseudorandom signs are added: they decide where nothing else is said."""


def first_basis(side: int, rank: int, context: bytes) -> Basis:
    """Return a pseudorandom basis.

    Args:
        side: Rows, at most 65,536.
        rank: Columns, a power of two, at most `side`.
        context: Where the basis is used; other contexts, other bases.
    """
    return bases_of([np.zeros((side, rank))], [context])[0]


def is_orthonormal(basis: Basis) -> bool:
    """Return whether a basis is as orthonormal as rounding leaves one: its Gram matrix is off 1 by no more than that.

    The bound is one of the spectral norm, 2**-BASIS_BITS (sqrt(side) + sqrt(rank)): rounding stays below 0.7 of it.
    """
    scaled = basis.astype(np.float64) * 2.0**-BASIS_BITS
    off = np.linalg.eigvalsh(scaled.T @ scaled) - 1
    return float(np.abs(off).max()) <= 2.0**-BASIS_BITS * sum(math.sqrt(side) for side in basis.shape)


def seen_from_both_sides(
    right_sums: NDArray[np.int64], left_sums: NDArray[np.int64], ratio: float, bound: int, right: Basis, left: Basis
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return float64[columns, k] and float64[rows, k]: M^T A and M B of the matrix M that the sums decode to.

    One step of subspace iteration on both sides at once. With M = Y B^T + R W and R^T A = 1 (`lifts_of`), M^T A is
    B Y^T A + W^T; M B is Y, since what is sent as W has no part in B.

    Args:
        right_sums: int64[rows, k], centred sums of M B: Y.
        left_sums: int64[k, columns], centred sums of A^T M (1 - B B^T): W.
        ratio: Unit of the first over the unit of the second.
        bound: Largest absolute value that a sum can have.
        right: B.
        left: A.
    """
    shift = _shift(bound)
    sums = (right_sums >> shift).astype(np.float64)
    gram, exponent = _correlation(sums, left)
    seen = (right.astype(np.float64) @ gram) * (ratio * 2.0 ** (exponent - 2 * BASIS_BITS))
    return seen + (left_sums >> shift).T, sums


def bases_of(columns: Sequence[NDArray[np.float64]], contexts: Sequence[bytes]) -> list[Basis]:
    """Return a basis of what the columns of each array span, turned so that all its columns matter alike.

    Args:
        columns: float64[side, k] each, k a power of two.
        contexts: Where each basis is used; it decides only where the columns say nothing.
    """
    integers: list[NDArray[np.float64]] = []
    for array, context in zip(columns, contexts, strict=True):
        largest = float(np.abs(array).max()) or 1.0
        signs = _signs(array.size, context).reshape(array.shape)
        integers.append(np.rint(array * (_LARGEST / largest)) + signs)
    factors = inverse_factors([rows.T @ rows for rows in integers])  # integers below 2**53: exact in any order
    bases = []
    for rows, factor, context in zip(integers, factors, contexts, strict=True):
        turned = _hadamard(factor * _signs(len(factor), context + b"mix")[:, None])
        bases.append(np.rint(product(rows, turned.T) * float(1 << BASIS_BITS)).astype(np.int16))
    return bases


def lifts_of(right_sums: Sequence[NDArray[np.int64]], bound: int, lefts: Sequence[Basis]) -> list[NDArray[np.int32]]:
    """Return R int32[rows, k] in units of 2**-LIFT_BITS: what of a matrix's columns A^T times the matrix speaks for.

    R = (Y Y^T + s) A (A^T (Y Y^T + s) A)^-1 with s a quarter of the mean energy of a row of Y: the linear estimate of
    least error where the columns of the matrix vary as those of Y do, beside white noise. A^T R = 1.

    Args:
        right_sums: int64[rows, k], centred sums of M B: Y, of each matrix.
        bound: Largest absolute value that a sum can have.
        lefts: A of each matrix.
    """
    shift, numerators, exponents, squares = _shift(bound), [], [], []
    for whole, left in zip(right_sums, lefts, strict=True):
        sums = (whole >> shift).astype(np.float64)
        gram, exponent = _correlation(sums, left)
        noise = (float(np.vdot(sums, sums)) + len(sums)) / (4 * len(sums))  # integers below 2**53: exact in any order
        numerator = np.rint(sums @ gram + (noise * 2.0**-exponent) * left)
        square = gram.T @ gram
        square[np.diag_indices(len(square))] += noise * 2.0 ** (2 * (BASIS_BITS - exponent))
        numerators.append(numerator)
        exponents.append(exponent)
        squares.append(square)
    return [
        np.rint(product(numerator, inverse) * 2.0 ** (LIFT_BITS + BASIS_BITS - exponent)).astype(np.int32)
        for numerator, inverse, exponent in zip(numerators, inverses(squares), exponents, strict=True)
    ]


def _shift(bound: int) -> int:
    return max(0, bound.bit_length() - _SUM_BITS)


def _correlation(sums: NDArray[np.float64], left: Basis) -> tuple[NDArray[np.float64], int]:
    """Y^T A as float64[k, k] of integers below 2**_CORRELATION_BITS, and the exponent of their unit."""
    exact = (sums.T @ left.astype(np.float64)).astype(np.int64)
    exponent = max(0, int(np.abs(exact).max()).bit_length() - _CORRELATION_BITS)
    return (exact >> exponent).astype(np.float64), exponent


def _hadamard(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mix the rows by the orthonormal Walsh-Hadamard matrix; their number is a power of two."""
    rank, side = rows.shape
    half = 1
    while half < rank:
        pairs = rows.reshape(-1, 2, half, side)
        rows = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(rank, side)
        half *= 2
    mixed: NDArray[np.float64] = rows * (1.0 / math.sqrt(rank))
    return mixed


def _signs(count: int, context: bytes) -> NDArray[np.int64]:
    stream = np.frombuffer(hashlib.shake_256(context).digest((count + 7) // 8), dtype=np.uint8)
    return 1 - 2 * np.unpackbits(stream, count=count, bitorder="little").astype(np.int64)
