"""How one tensor is sent: as it is, or seen from both sides through public bases."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.compression.basis import BASIS_BITS, Basis

_EXACT_IN_FLOAT32 = 1 << 24

_ROWS_AT_ONCE = 64
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
        """Return what is sent of float32[rows * columns] by group, before rounding."""
        if self.bases is None:
            return (tensor,)
        matrix, scale = tensor.reshape(self.shape), np.float32(2.0**-BASIS_BITS)
        left: NDArray[Any] = self.bases.left.astype(np.float32) * scale
        right: NDArray[Any] = self.bases.right.astype(np.float32) * scale
        seen: NDArray[Any] = matrix @ right
        rest: NDArray[Any] = left.T @ matrix - (left.T @ seen) @ right.T
        return (seen.reshape(-1), rest.reshape(-1))


def write_product(
    out: NDArray[Any], left: NDArray[np.integer[Any]], right: NDArray[np.integer[Any]], unit: float, *, add: bool
) -> None:
    """Write an exact product of integers times a unit to float[rows, columns], or add it, some rows at a time.

    In the narrowest floating-point type that holds every partial sum: which one it is changes no bit.
    """
    bound = int(np.abs(left).sum(axis=1, dtype=np.int64).max()) * int(np.abs(right).max())
    kind = np.float32 if bound < _EXACT_IN_FLOAT32 else np.float64
    factors: tuple[NDArray[Any], NDArray[Any]] = left.astype(kind), right.astype(kind)
    for start in range(0, len(left), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        product = factors[0][rows] @ factors[1]
        if add:
            out[rows] += np.multiply(product, unit, dtype=np.float64)
        else:
            np.multiply(product, unit, out=out[rows], dtype=np.float64, casting="same_kind")
