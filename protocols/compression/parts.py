"""How one tensor is sent: as it is, or seen from both sides through public bases."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.compression.basis import BASIS_BITS, Basis

_EXACT_IN_FLOAT32 = 1 << 24

_LARGE = np.float32(2.0**96)
"""Below it no partial sum of a projection leaves float32, while rows * columns * k is at most 2**31."""

_SCALED = np.float32(2.0**-64)
"""What larger matrices are projected with: a power of two changes no bit."""

_ROWS_AT_ONCE = 128
"""Of a product: fresh memory costs more than arithmetic, so that temporary arrays are kept small."""

Lifts = tuple[NDArray[np.int32] | None, ...]
"""For each tensor with bases its lift R int32[rows, k] (basis.py), None for the others."""


@dataclass(frozen=True, slots=True)
class Bases:
    """Public bases of a matrix: its columns are seen through `left` (rows x k), its rows through `right` (columns x k).

    Attributes:
        left: A.
        right: B.
    """

    left: Basis
    right: Basis


@dataclass(frozen=True, slots=True)
class Part:
    """How one tensor is sent.

    Attributes:
        shape: (rows, columns) of a matrix; (length, 1) of a vector.
        group: Number of its group, with bases of the first of its two groups (M B, then A^T M); the coordinates of a
            group have one range.
        bases: Public bases, None to send the tensor as it is.
    """

    shape: tuple[int, int]
    group: int
    bases: Bases | None

    @property
    def size(self) -> int:
        """Coordinates of the tensor."""
        return self.shape[0] * self.shape[1]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sent coordinates by group: of M B and of A^T M, or of the tensor itself."""
        if self.bases is None:
            return (self.size,)
        return (self.shape[0] * self.bases.right.shape[1], self.bases.left.shape[1] * self.shape[1])

    def project(self, tensor: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Return what is sent of float32[rows * columns], finite, by group, unrounded; infinity beyond float32."""
        if self.bases is None:
            return (tensor,)
        if max(tensor.max(), -tensor.min()) >= _LARGE:  # partial sums could be infinite, and their difference NaN
            with np.errstate(over="ignore"):
                return tuple(part / _SCALED for part in self.project(tensor * _SCALED))
        matrix, scale = tensor.reshape(self.shape), np.float32(2.0**-BASIS_BITS)
        left: NDArray[Any] = self.bases.left.astype(np.float32) * scale
        right: NDArray[Any] = self.bases.right.astype(np.float32) * scale
        seen: NDArray[Any] = matrix @ right
        rest: NDArray[Any] = left.T @ matrix - (left.T @ seen) @ right.T
        return (seen.reshape(-1), rest.reshape(-1))


@dataclass(frozen=True, slots=True)
class Term:
    """A product of two matrices of integers, times a unit: left (rows x k), right (k x columns)."""

    left: NDArray[np.integer[Any]]
    right: NDArray[np.integer[Any]]
    unit: float

    def factors(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Both matrices in the narrowest floating-point type that holds every partial sum exactly."""
        widest, inner = int(np.abs(self.left).max()) * int(np.abs(self.right).max()), self.right.shape[0]
        kind = np.float32 if widest * inner < _EXACT_IN_FLOAT32 else np.float64
        return self.left.astype(kind), self.right.astype(kind)


def write_products(out: NDArray[np.floating[Any]], terms: Sequence[Term]) -> None:
    """Write the sum of exact products of integers, each times its unit, to float[rows, columns].

    Each product is rounded to the type of `out`, multiplied by its unit and added, in order, one operation of that type
    a coordinate each: the type in which the product was made changes no bit.
    """
    factors = [term.factors() for term in terms]
    added = np.empty((_ROWS_AT_ONCE, out.shape[1]), out.dtype)
    for start in range(0, len(out), _ROWS_AT_ONCE):
        written = out[start : start + _ROWS_AT_ONCE]
        for place, (term, (left, right)) in enumerate(zip(terms, factors, strict=True)):
            target = added[: len(written)] if place else written
            product = (left[start : start + _ROWS_AT_ONCE] @ right).astype(out.dtype, copy=False)
            np.multiply(product, out.dtype.type(term.unit), out=target)
            if place:
                written += target
