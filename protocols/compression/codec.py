"""One round's encoding of an update: matrices in a public subspace, a narrow grid with public ranges, limbs.

A matrix M (rows x columns) is sent as M B, or as M^T B in every other step, where B is a public basis (basis.py); a
tensor without basis is sent as it is. The coordinate p of a group with range r becomes floor((p / r + 1) * L / 2 + u),
u uniform in [0, 1): L is even, so zero is a grid point, and p beyond the range is clamped and counted. Every stage is
linear or unbiased: with K = 2 S - m L, S a sum over m clients, the decoded sum is K * r / L, and for a matrix (K * r /
L) B^T. It is the projection B B^T of what went in, off by less than m * 2 r / L in each coordinate before the
projection.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.compression.basis import BASIS_BITS, Basis
from protocols.compression.limbs import from_limbs, limb_count, to_limbs
from protocols.errors import DtypeError, NonFiniteError, ParameterError, ShapeError, WeightError
from protocols.labels import Label
from protocols.vectors import Aggregate, EncodedVector

_EXACT_IN_FLOAT32 = 1 << 24
_FLOAT32_LEVELS = 1 << 10
"""Below it float32 keeps 13 bits of a coordinate's fraction, far finer than rounding needs."""


@dataclass(frozen=True, slots=True)
class Part:
    """How one tensor is sent.

    Attributes:
        shape: (rows, columns) of a matrix; (length, 1) of a vector.
        group: Number of its group; the coordinates of a group have one range.
        right: With a basis: whether M B is sent (else M^T B).
        basis: Public basis of the columns (`right`) or of the rows, None to send the tensor as it is.
    """

    shape: tuple[int, int]
    group: int
    right: bool
    basis: Basis | None

    @property
    def size(self) -> int:
        """Coordinates of the tensor."""
        return self.shape[0] * self.shape[1]

    @property
    def sent_shape(self) -> tuple[int, int]:
        """Shape of what is sent of it."""
        if self.basis is None:
            return self.shape
        return (self.shape[0] if self.right else self.shape[1], self.basis.shape[1])

    def project(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what is sent of float32[rows * columns], before rounding."""
        if self.basis is None:
            return tensor
        matrix = tensor.reshape(self.shape)
        columns = self.basis.astype(np.float32) * np.float32(2.0**-BASIS_BITS)
        return ((matrix if self.right else matrix.T) @ columns).reshape(-1)

    def expand(self, centred: NDArray[np.int64], bound: int) -> NDArray[np.float64]:
        """Return float64[rows * columns], centred integers back in the tensor's coordinates, times 2**BASIS_BITS.

        Exact: products of integers whose sums stay below what the floating-point type holds.

        Args:
            centred: int64, sums minus their centre, doubled.
            bound: Largest absolute value among them.
        """
        if self.basis is None:
            return centred.astype(np.float64)
        narrow = bound * int(np.abs(self.basis.astype(np.int64)).sum(axis=1).max()) < _EXACT_IN_FLOAT32
        kind = np.float32 if narrow else np.float64
        coefficients: NDArray[Any] = centred.reshape(self.sent_shape).astype(kind)
        basis: NDArray[Any] = self.basis.astype(kind)
        product = coefficients @ basis.T if self.right else basis @ coefficients.T
        expanded: NDArray[np.float64] = product.astype(np.float64, copy=False).reshape(-1)
        return expanded


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """One client's update on the grid, before its counters are known: private.

    Attributes:
        levels: uint32[num_values], each 0 to L.
        clamped: Clamped coordinates of each group.
    """

    levels: NDArray[np.uint32]
    clamped: tuple[int, ...]

    @property
    def clamped_share(self) -> float:
        """Clamped share of all coordinates."""
        return sum(self.clamped) / len(self.levels)


class CompressedCodec:
    """Encodes float32 updates for one round; server and clients derive equal codecs from public facts.

    A vector has the coordinates of the tensors in their order, then the limbs of one clamp counter a group, then the
    limbs of the counters of the caller.

    Args:
        parts: How each tensor is sent, in the order of the update.
        ranges: r > 0 of each group: what is sent is clamped to [-r, r].
        levels: L, even, at least 2: coordinates are integers in [0, L].
        max_counters: Largest value of each counter of the caller.

    Raises:
        ParameterError: An argument is outside what is said here.
    """

    def __init__(
        self, parts: Sequence[Part], ranges: Sequence[float], levels: int, *, max_counters: Sequence[int] = ()
    ) -> None:
        if not parts or any(not 0 <= part.group < len(ranges) for part in parts):
            raise ParameterError("parts", "one group with a range for each tensor")
        if not all(np.isfinite(r) and r > 0 for r in ranges):
            raise ParameterError("ranges", "must be positive and finite")
        if levels < 2 or levels % 2 or levels >= 1 << 31:
            raise ParameterError("levels", "must be even, 2 to 2**31 - 2")
        if any(not 1 <= counter < 1 << 32 for counter in max_counters):
            raise ParameterError("max_counters", "must be 1 to 2**32 - 1")
        self.parts = tuple(parts)
        self.ranges = tuple(float(r) for r in ranges)
        self.levels = levels
        self.max_counters = tuple(max_counters)
        sent = [shape[0] * shape[1] for shape in (part.sent_shape for part in parts)]
        self._sent = np.cumsum([0, *sent]).tolist()
        self._dense = np.cumsum([0, *(part.size for part in parts)]).tolist()
        self.group_sizes = tuple(
            sum(size for part, size in zip(parts, sent, strict=True) if part.group == group)
            for group in range(len(ranges))
        )
        self._limbs = [limb_count(maximum, levels + 1) for maximum in (*self.group_sizes, *self.max_counters)]

    @property
    def dimension(self) -> int:
        """Coordinates of an update."""
        return int(self._dense[-1])

    @property
    def num_values(self) -> int:
        """Coordinates that carry the update."""
        return int(self._sent[-1])

    @property
    def public_length(self) -> int:
        """Coordinates that everybody needs to follow the model: values and clamp counters."""
        return self.num_values + sum(self._limbs[: len(self.ranges)])

    @property
    def vector_length(self) -> int:
        """Coordinates of an encoded vector."""
        return self.num_values + sum(self._limbs)

    @property
    def max_coordinate(self) -> int:
        """Largest integer that any coordinate of one client can hold: L."""
        return self.levels

    @property
    def digest(self) -> bytes:
        """SHA-256 of the public description (SPEC.md, "Digest")."""
        head = np.asarray([self.levels, len(self.parts), len(self.ranges), len(self.max_counters)], dtype="<u4")
        hashed = hashlib.sha256(Label.ENCODING.encoded + b"compressed" + head.tobytes())
        hashed.update(np.asarray(self.ranges, dtype="<f8").tobytes())
        hashed.update(np.asarray(self.max_counters, dtype="<u4").tobytes())
        for part in self.parts:
            rank = 0 if part.basis is None else part.basis.shape[1]
            hashed.update(np.asarray([*part.shape, part.group, part.right, rank], dtype="<u4").tobytes())
            if part.basis is not None:
                hashed.update(part.basis.astype("<i2").tobytes())
        return hashed.digest()

    def quantise(self, update: NDArray[np.float32], rounding: np.random.Generator) -> Quantised:
        """Project and round one update.

        Args:
            update: float32[dimension], finite.
            rounding: Decides which way fractions go; it hides nothing and needs no cryptographic source.

        Raises:
            ShapeError, DtypeError, NonFiniteError: The input is refused.
        """
        self._check(update)
        levels = np.empty(self.num_values, dtype=np.uint32)
        clamped = [0] * len(self.ranges)
        kind: type[np.floating] = np.float32 if self.levels < _FLOAT32_LEVELS else np.float64
        half = self.levels / 2
        for part, start, stop, tensor in self._tensors(update):
            grid = part.project(tensor).astype(kind) * kind(half / self.ranges[part.group])
            clamped[part.group] += int(np.count_nonzero(np.abs(grid) > half))
            np.clip(grid, -half, half, out=grid)
            grid += rounding.random(len(grid), dtype=kind)
            np.floor(grid, out=grid)
            np.minimum(grid, half, out=grid)
            levels[start:stop] = grid + half
        return Quantised(levels, tuple(clamped))

    def encode(self, quantised: Quantised, counters: Sequence[int] = ()) -> EncodedVector:
        """Return the contribution to the sum.

        Args:
            quantised: What `quantise` of this codec returned.
            counters: One value for each of `max_counters`, 0 to its maximum.

        Raises:
            ShapeError: It is of another codec.
            WeightError: A counter is not an integer in its range.
        """
        if quantised.levels.shape != (self.num_values,):
            raise ShapeError((self.num_values,), quantised.levels.shape)
        if len(counters) != len(self.max_counters):
            raise WeightError("counters", len(self.max_counters))
        for counter, maximum in zip(counters, self.max_counters, strict=True):
            if type(counter) is not int or not 0 <= counter <= maximum:
                raise WeightError("counter", maximum)
        encoded = np.empty(self.vector_length, dtype=np.uint32)
        encoded[: self.num_values] = quantised.levels
        digits: list[int] = []
        for number, count in zip((*quantised.clamped, *counters), self._limbs, strict=True):
            digits += to_limbs(number, self.levels + 1, count)
        encoded[self.num_values :] = digits
        return EncodedVector(encoded, self.max_coordinate)

    def delivered(self, quantised: Quantised) -> NDArray[np.float64]:
        """Return float64[dimension], what this client's contribution adds to the decoded sum."""
        return self._decode(quantised.levels.astype(np.int64), 1, 1)

    def decode_sum(self, total: Aggregate, num_survivors: int) -> NDArray[np.float64]:
        """Return float64[dimension], the sum of the survivors' updates in the subspace.

        Args:
            total: The opened sum.
            num_survivors: How many clients are in it.

        Raises:
            ShapeError: The total belongs to another codec.
        """
        return self._decode(self._integers(total)[: self.num_values], num_survivors, 1)

    def decode_mean(self, total: Aggregate, num_survivors: int) -> NDArray[np.float64]:
        """Return float64[dimension], the mean update of the survivors in the subspace."""
        return self.mean_of(self._integers(total)[: self.public_length], num_survivors)

    def mean_of(self, public: NDArray[np.int64], num_survivors: int) -> NDArray[np.float64]:
        """Return the mean update from int64[public_length], the public part of an opened sum."""
        if public.shape != (self.public_length,):
            raise ShapeError((self.public_length,), public.shape)
        return self._decode(public[: self.num_values], num_survivors, num_survivors)

    def clamped_of(self, public: NDArray[np.int64]) -> tuple[int, ...]:
        """Return the sums of the clamp counters, one a group, from the public part of an opened sum."""
        return self._counters(public, 0, len(self.ranges))

    def decode_counters(self, total: Aggregate) -> tuple[int, ...]:
        """Return the sums of the survivors' counters, the clamp counters not among them."""
        return self._counters(self._integers(total), len(self.ranges), len(self._limbs))

    def centred(self, public: NDArray[np.int64], num_survivors: int) -> list[NDArray[np.int64]]:
        """Return the centred sums 2 S - m L of each tensor, int64 of its `sent_shape`."""
        return [
            (2 * public[start:stop] - num_survivors * self.levels).reshape(part.sent_shape)
            for part, start, stop in zip(self.parts, self._sent, self._sent[1:], strict=False)
        ]

    def _counters(self, integers: NDArray[np.int64], first: int, last: int) -> tuple[int, ...]:
        starts = np.cumsum([self.num_values, *self._limbs]).tolist()
        digits = (integers[starts[i] : starts[i + 1]].tolist() for i in range(first, last))
        return tuple(from_limbs(number, self.levels + 1) for number in digits)

    def _decode(self, values: NDArray[np.int64], survivors: int, divisor: int) -> NDArray[np.float64]:
        decoded = np.empty(self.dimension, dtype=np.float64)
        centred = self.centred(values, survivors)
        for part, sums, start, stop in zip(self.parts, centred, self._dense, self._dense[1:], strict=False):
            expanded = part.expand(sums.reshape(-1), max(int(sums.max()), -int(sums.min())))
            unit = 1.0 if part.basis is None else 2.0**-BASIS_BITS
            np.multiply(expanded, self.ranges[part.group] / self.levels / divisor * unit, out=decoded[start:stop])
        return decoded

    def _tensors(self, update: NDArray[np.float32]) -> Iterator[tuple[Part, int, int, NDArray[np.float32]]]:
        for i, part in enumerate(self.parts):
            yield part, self._sent[i], self._sent[i + 1], update[self._dense[i] : self._dense[i + 1]]

    def _integers(self, total: Aggregate) -> NDArray[np.int64]:
        integers = total.integers()
        if integers.shape != (self.vector_length,):
            raise ShapeError((self.vector_length,), integers.shape)
        return integers

    def _check(self, update: NDArray[np.float32]) -> None:
        if update.shape != (self.dimension,):
            raise ShapeError((self.dimension,), update.shape)
        if update.dtype != np.float32:
            raise DtypeError("float32", str(update.dtype))
        if not np.isfinite(update).all():
            bad = np.flatnonzero(~np.isfinite(update))
            raise NonFiniteError(len(bad), int(bad[0]))
