"""Small linear systems with the same result on every machine, bit for bit, and their fast use on many rows.

Factors and inverses are made by single IEEE operations in a fixed order; several matrices of one size at once, since
what costs is the number of calls. Products with many rows are sums of exact products of integers.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_EXACT_BITS = 53
_ROW_BITS = 34
"""What the rows of a product keep."""
_FACTOR_BITS = 42
"""What the square matrix of a product keeps of its largest entry, at least."""


def inverse_factors(grams: Sequence[Matrix]) -> list[Matrix]:
    """Return C^-1 float64[k, k] of each positive definite matrix C C^T float64[k, k], C lower triangular.

    Elimination in [C C^T | 1].
    """
    return _by_size(grams, _inverse_factors)


def inverses(matrices: Sequence[Matrix]) -> list[Matrix]:
    """Return the inverse of each positive definite matrix float64[k, k], by Gauss-Jordan elimination in place."""
    return _by_size(matrices, _inverses)


def product(rows: Matrix, square: Matrix) -> Matrix:
    """Return rows times a square matrix, float64[n, k].

    The rows are rounded to 34 bits of the largest, the matrix is written with digits of as many bits as leave
    products exact, at least 42 in all; the products are added up from the largest digit on.

    Args:
        rows: float64[n, k], integers.
        square: float64[k, k].
    """
    shift = max(0, _bits(rows) - _ROW_BITS)
    integers = np.rint(rows * 2.0**-shift) if shift else rows
    digit = _EXACT_BITS - min(_bits(rows), _ROW_BITS + 1) - len(square).bit_length()
    exponent = int(np.frexp(np.abs(square).max())[1])
    left, total = square * 2.0 ** (digit - exponent), np.zeros(rows.shape)
    for place in range(1, -(-_FACTOR_BITS // digit) + 1):
        whole = np.rint(left)
        total += (integers @ whole) * 2.0 ** (exponent + shift - digit * place)
        left = (left - whole) * 2.0**digit
    return total


def _by_size(matrices: Sequence[Matrix], solve: Callable[[Matrix], Matrix]) -> list[Matrix]:
    found: dict[int, Matrix] = {}
    for size in {len(matrix) for matrix in matrices}:
        places = [place for place, matrix in enumerate(matrices) if len(matrix) == size]
        found |= zip(places, solve(np.stack([matrices[place] for place in places])), strict=True)
    return [found[place] for place in range(len(matrices))]


def _inverse_factors(grams: Matrix) -> Matrix:
    count, size, _ = grams.shape
    work = np.concatenate([grams, np.broadcast_to(np.eye(size), (count, size, size))], axis=2)
    for j in range(size):
        pivot, filled = np.sqrt(work[:, j, j])[:, None], slice(j, size + j + 1)
        work[:, j, filled] /= pivot
        work[:, j + 1 :, filled] -= (work[:, j + 1 :, j] / pivot)[:, :, None] * work[:, j, None, filled]
    return work[:, :, size:]


def _inverses(matrices: Matrix) -> Matrix:
    work, size = matrices.copy(), matrices.shape[1]
    for j in range(size):
        pivot = work[:, j, j, None].copy()
        column = work[:, :, j].copy()
        column[:, j] = 0
        work[:, j] /= pivot
        work[:, :, j] = 0
        work[:, j, j] = 1 / pivot[:, 0]
        work -= column[:, :, None] * work[:, j, None]
    return work


def _bits(integers: Matrix) -> int:
    return int(np.abs(integers).max()).bit_length()
