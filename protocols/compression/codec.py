"""One round's encoding of an update: matrices seen from both sides, a narrow grid with public ranges, limbs.

A matrix M (rows x columns) is sent as M B and A^T M (1 - B B^T), where A and B are public bases (basis.py) of its
columns and rows; a tensor without bases is sent as it is. The coordinate p of a group with range r becomes
floor((p / r + 1) * L / 2 + u), u uniform in [0, 1) or 1/2: L is even, so zero is a grid point, and p beyond the range
is clamped and counted. Every stage is linear, but for rounding, which is without bias or to the nearest: with K = 2 S -
m L, S a sum over m clients, a decoded coordinate is K * r / L, off by less than m * 2 r / L. The matrix is then (M B)
B^T + R (A^T M (1 - B B^T)), where the lift R follows from the opened sum: the same linear map for the sum and for what
each client gave to it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.compression.basis import BASIS_BITS, LIFT_BITS, lifts_of
from protocols.compression.limbs import from_limbs, limb_count, to_limbs
from protocols.compression.parts import Lifts, Part, Term, write_products
from protocols.errors import ParameterError, ShapeError, WeightError
from protocols.labels import Label
from protocols.vectors import Aggregate, EncodedVector, check_update

_FLOAT32_LEVELS = 1 << 10
"""Below it float32 keeps 13 bits of a coordinate's fraction, far finer than rounding needs."""


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """One client's update on the grid, before its counters are known: private.

    Attributes:
        levels: uint32[num_values], each 0 to L.
        clamped: Clamped coordinates of each group.
    """

    levels: NDArray[np.uint32]
    clamped: tuple[int, ...]


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
        if not parts or any(not 0 <= part.group <= len(ranges) - len(part.sizes) for part in parts):
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
        self._dense = np.cumsum([0, *(part.size for part in parts)]).tolist()
        sent = [(part.group + place, size) for part in parts for place, size in enumerate(part.sizes)]
        self._sent = np.cumsum([0, *(size for _, size in sent)]).tolist()
        self.group_sizes = tuple(sum(size for of, size in sent if of == group) for group in range(len(ranges)))
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
        hashed = hashlib.sha256(Label.ENCODING.encoded + b"compressed 3" + head.tobytes())
        hashed.update(np.asarray(self.ranges, dtype="<f8").tobytes())
        hashed.update(np.asarray(self.max_counters, dtype="<u4").tobytes())
        for part in self.parts:
            rank = 0 if part.bases is None else part.bases.right.shape[1]
            hashed.update(np.asarray([*part.shape, part.group, rank], dtype="<u4").tobytes())
            if part.bases is not None:
                hashed.update(part.bases.left.astype("<i2").tobytes())
                hashed.update(part.bases.right.astype("<i2").tobytes())
        return hashed.digest()

    def quantise(self, update: NDArray[np.float32], rounding: np.random.Generator | None) -> Quantised:
        """Project and round one update.

        Args:
            update: float32[dimension], finite.
            rounding: Decides which way fractions go, without bias; it hides nothing and needs no cryptographic source.
                None rounds to the nearest: half the squared error, and the bias stays in the error feedback.

        Raises:
            ShapeError, DtypeError, NonFiniteError: The input is refused.
        """
        check_update(update, self.dimension)
        levels = np.empty(self.num_values, dtype=np.uint32)
        clamped = [0] * len(self.ranges)
        kind: type[np.floating] = np.float32 if self.levels < _FLOAT32_LEVELS else np.float64
        half = self.levels / 2
        for group, start, stop, projected in self._sent_of(update):
            with np.errstate(over="ignore"):  # what is beyond float32 is clamped like all beyond the range
                grid = projected.astype(kind) * kind(half / self.ranges[group])
            clamped[group] += int(np.count_nonzero(np.abs(grid) > half))
            np.clip(grid, -half, half, out=grid)
            grid += kind(0.5) if rounding is None else rounding.random(len(grid), dtype=kind)
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

    def lifts(self, public: NDArray[np.int64], num_survivors: int) -> Lifts:
        """Return the lift of each tensor with bases from int64[>= num_values], the first part of an opened sum."""
        return self._lifts(self.centred(public, num_survivors), num_survivors)

    def contribution(self, quantised: Quantised) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return what a contribution adds to the decoded sum, as far as it is known before the sum is.

        Returns:
            float32[dimension], to which `lifted` of the second will be added, and the float32[...] that it is made of.
        """
        centred = self.centred(quantised.levels.astype(np.int64), 1)
        units = [r / self.levels for r in self.ranges]
        rest = [
            (sums[1].reshape(-1) * units[part.group + 1]).astype(np.float32)
            for part, sums in zip(self.parts, centred, strict=True)
            if part.bases is not None
        ]
        direct = np.empty(self.dimension, np.float32)
        self._decode(centred, (None,) * len(self.parts), 1, direct)
        return direct, np.concatenate([*rest, np.zeros(0, np.float32)])

    def lifted(self, rest: NDArray[np.float32], lifts: Lifts) -> NDArray[np.float32]:
        """Return float32[dimension], what the second part of a contribution adds to the decoded sum.

        Args:
            rest: The second part of `contribution`, of any step of this federation.
            lifts: `lifts` of the sum that it was opened in.
        """
        added, start = np.zeros(self.dimension, np.float32), 0
        for part, lifted, first in zip(self.parts, lifts, self._dense, strict=False):
            if part.bases is None or lifted is None:
                continue
            stop = start + part.sizes[1]
            matrix = lifted.astype(np.float32) @ rest[start:stop].reshape(-1, part.shape[1])
            added[first : first + part.size] = (matrix * np.float32(2.0**-LIFT_BITS)).reshape(-1)
            start = stop
        return added

    def decode_sum(self, total: Aggregate, num_survivors: int) -> NDArray[np.float64]:
        """Return float64[dimension], the sum of the survivors' updates in the subspace.

        Args:
            total: The opened sum.
            num_survivors: How many clients are in it.

        Raises:
            ShapeError: The total belongs to another codec.
        """
        centred = self.centred(total.integers_of(self.vector_length)[: self.num_values], num_survivors)
        decoded = np.empty(self.dimension, np.float64)
        self._decode(centred, self._lifts(centred, num_survivors), 1, decoded)
        return decoded

    def decode_mean(self, total: Aggregate, num_survivors: int) -> NDArray[np.float32]:
        """Return float32[dimension], the mean update of the survivors in the subspace."""
        return self.mean_of(total.integers_of(self.vector_length)[: self.public_length], num_survivors)

    def mean_of(self, public: NDArray[np.int64], num_survivors: int) -> NDArray[np.float32]:
        """Return the mean update from int64[public_length], the public part of an opened sum."""
        return self.mean_and_lifts(public, num_survivors)[0]

    def mean_and_lifts(self, public: NDArray[np.int64], num_survivors: int) -> tuple[NDArray[np.float32], Lifts]:
        """Return the mean update, and the lifts that it was decoded with."""
        if public.shape != (self.public_length,):
            raise ShapeError((self.public_length,), public.shape)
        centred = self.centred(public, num_survivors)
        lifts = self._lifts(centred, num_survivors)
        decoded = np.empty(self.dimension, np.float32)
        self._decode(centred, lifts, num_survivors, decoded)
        return decoded, lifts

    def clamped_of(self, public: NDArray[np.int64]) -> tuple[int, ...]:
        """Return the sums of the clamp counters, one a group, from the public part of an opened sum."""
        return self._counters(public, 0, len(self.ranges))

    def decode_counters(self, total: Aggregate) -> tuple[int, ...]:
        """Return the sums of the survivors' counters, the clamp counters not among them."""
        return self._counters(total.integers_of(self.vector_length), len(self.ranges), len(self._limbs))

    def centred(self, public: NDArray[np.int64], num_survivors: int) -> list[tuple[NDArray[np.int64], ...]]:
        """Return the centred sums 2 S - m L of each tensor by group: int64[rows, k] and int64[k, columns], or flat."""
        found, place = [], iter(zip(self._sent, self._sent[1:], strict=False))
        for part in self.parts:
            flat = [2 * public[start:stop] - num_survivors * self.levels for start, stop in _take(place, part)]
            if part.bases is not None:
                flat = [flat[0].reshape(part.shape[0], -1), flat[1].reshape(-1, part.shape[1])]
            found.append(tuple(flat))
        return found

    def _counters(self, integers: NDArray[np.int64], first: int, last: int) -> tuple[int, ...]:
        starts = np.cumsum([self.num_values, *self._limbs]).tolist()
        digits = (integers[starts[i] : starts[i + 1]].tolist() for i in range(first, last))
        return tuple(from_limbs(number, self.levels + 1) for number in digits)

    def _lifts(self, centred: Sequence[tuple[NDArray[np.int64], ...]], num_survivors: int) -> Lifts:
        places = [place for place, part in enumerate(self.parts) if part.bases is not None]
        lefts = [part.bases.left for part in self.parts if part.bases is not None]
        found = lifts_of([centred[place][0] for place in places], num_survivors * self.levels, lefts)
        lifts = dict(zip(places, found, strict=True))
        return tuple(lifts.get(place) for place in range(len(self.parts)))

    def _decode(
        self, centred: Sequence[tuple[NDArray[np.int64], ...]], lifts: Lifts, divisor: int, out: NDArray[Any]
    ) -> None:
        """Write (M B) B^T, or the tensor itself, and what the second group says where there is a lift for it."""
        units = [r / self.levels / divisor for r in self.ranges]
        for part, sums, lifted, start in zip(self.parts, centred, lifts, self._dense, strict=False):
            place = out[start : start + part.size].reshape(part.shape)
            if part.bases is None:
                place[:] = sums[0].reshape(part.shape)
                place *= out.dtype.type(units[part.group])
                continue
            terms = [Term(sums[0], part.bases.right.T, units[part.group] * 2.0**-BASIS_BITS)]
            if lifted is not None:
                terms.append(Term(lifted, sums[1], units[part.group + 1] * 2.0**-LIFT_BITS))
            write_products(place, terms)

    def _sent_of(self, update: NDArray[np.float32]) -> Iterator[tuple[int, int, int, NDArray[np.float32]]]:
        """What is sent, by group, with its place in the vector."""
        place = iter(zip(self._sent, self._sent[1:], strict=False))
        for part, first in zip(self.parts, self._dense, strict=False):
            projected = part.project(update[first : first + part.size])
            for offset, ((start, stop), tensor) in enumerate(zip(_take(place, part), projected, strict=True)):
                yield part.group + offset, start, stop, tensor


def _take(places: Iterator[tuple[int, int]], part: Part) -> list[tuple[int, int]]:
    return [next(places) for _ in part.sizes]
