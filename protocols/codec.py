"""Real vectors to ring integers and sums of ring integers back: public ranges, stochastic rounding, no adjustment.

Coordinate x of a tensor with range [-r, r] becomes (x / r + 1) * L / 2 with L = 2**value_bits - 2, rounded up or down
at random so that its expectation is kept. L is even: zero is a grid point and encodes exactly. Sums of n encodings
decode as 2 r S / L - n r, without bias, with an error of less than n * 2 r / L in each coordinate.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.errors import OutOfRangeError, ParameterError, WeightError
from protocols.labels import Label
from protocols.vectors import Aggregate, EncodedVector, check_update

MIN_VALUE_BITS = 2
MAX_VALUE_BITS = 22

_BLOCK = 1 << 15
"""Coordinates that are encoded at a time: so many that threads which encode side by side seldom wait for the
interpreter's lock, and so few that what they are encoded in stays in a cache, and in the heap between two vectors.
"""


class Codec(Protocol):
    """What a round needs to know of any codec; stages that compress implement the same four."""

    @property
    def vector_length(self) -> int:
        """Coordinates of an encoded vector."""
        ...

    @property
    def max_coordinate(self) -> int:
        """Largest integer that any coordinate of one client can hold."""
        ...

    @property
    def digest(self) -> bytes:
        """32 bytes that are equal exactly when two codecs are."""
        ...

    def decode_sum(self, total: Aggregate, num_survivors: int) -> NDArray[np.float64]:
        """Return float64 [d], the sum of the survivors' (weighted) updates."""
        ...


class FixedPointCodec:
    """Encodes float32 updates with one public range per tensor.

    An encoded vector has sum(lengths) value coordinates, then the weight if `max_weight` is given, then the counters.
    With weights each client contributes x * w / max_weight in the same range, so that weights cost no ring bits.

    Args:
        lengths: Coordinates of each tensor, in the order in which they lie in the vector.
        ranges: r > 0 of each tensor: its coordinates are within [-r, r]. Public, agreed before the round; taken as the
            nearest float32, since updates are float32.
        value_bits: 2 to 22; integers are in [0, 2**value_bits - 2].
        max_weight: Largest integer weight of a client, or None for an unweighted sum.
        max_counters: Largest value of each summed counter, for example (d,) for a count of saturated coordinates.

    Raises:
        ParameterError: An argument is outside what is said here.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        ranges: Sequence[float],
        value_bits: int,
        *,
        max_weight: int | None = None,
        max_counters: Sequence[int] = (),
    ) -> None:
        if len(lengths) != len(ranges) or not lengths or any(length < 1 for length in lengths):
            raise ParameterError("lengths", "one positive length and one range for each tensor")
        if not all(np.isfinite(np.float32(r)) and np.float32(r) > 0 for r in ranges):
            raise ParameterError("ranges", "must be positive and finite")
        if not MIN_VALUE_BITS <= value_bits <= MAX_VALUE_BITS:
            raise ParameterError("value_bits", f"must be {MIN_VALUE_BITS} to {MAX_VALUE_BITS}")
        if max_weight is not None and not 1 <= max_weight < 1 << 32:
            raise ParameterError("max_weight", "must be 1 to 2**32 - 1")
        if any(not 1 <= counter < 1 << 32 for counter in max_counters):
            raise ParameterError("max_counters", "must be 1 to 2**32 - 1")
        self.lengths = tuple(int(length) for length in lengths)
        self.ranges = tuple(float(np.float32(r)) for r in ranges)
        self.value_bits = value_bits
        self.max_weight = max_weight
        self.max_counters = tuple(max_counters)
        self._levels = (1 << value_bits) - 2
        self._bounds = np.cumsum((0, *self.lengths))

    @property
    def num_values(self) -> int:
        """Coordinates of an update."""
        return int(self._bounds[-1])

    @property
    def vector_length(self) -> int:
        """Coordinates of an encoded vector: values, weight, counters."""
        return self.num_values + (self.max_weight is not None) + len(self.max_counters)

    @property
    def max_coordinate(self) -> int:
        """Largest integer that any coordinate of one client can hold."""
        return max(self._levels, self.max_weight or 0, *self.max_counters)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the public description (SPEC.md, "Encoding")."""
        parts = [
            Label.ENCODING.encoded,
            b"fixed-point",
            bytes([self.value_bits]),
            (self.max_weight or 0).to_bytes(4, "little"),
            np.asarray([len(self.lengths), len(self.max_counters)], dtype="<u4").tobytes(),
            np.asarray(self.lengths, dtype="<u8").tobytes(),
            np.asarray(self.ranges, dtype="<f8").tobytes(),
            np.asarray(self.max_counters, dtype="<u4").tobytes(),
        ]
        return hashlib.sha256(b"".join(parts)).digest()

    def saturate(self, update: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
        """Clamp coordinates into their ranges, for callers that choose to.

        Returns:
            The clamped copy, float32 [d], and how many coordinates changed: to be summed as a counter, never sent.

        Raises:
            ShapeError, DtypeError, NonFiniteError: The update is not a finite float32 [d].
        """
        check_update(update, self.num_values)
        clamped, changed = np.empty_like(update), 0
        for start, stop, limit in self._blocks():
            given, block = update[start:stop], clamped[start:stop]
            np.clip(given, -limit, limit, out=block)
            changed += int(np.count_nonzero(block != given))
        return clamped, changed

    def encode(
        self,
        update: NDArray[np.float32],
        rounding: np.random.Generator,
        *,
        weight: int | None = None,
        counters: Sequence[int] = (),
        constant: bool = False,
    ) -> EncodedVector:
        """Encode one update.

        Args:
            update: float32 [d], each coordinate within its tensor's range.
            rounding: Decides which way fractions go; it hides nothing and needs no cryptographic source.
            weight: 1 to max_weight; given exactly when the codec is weighted.
            counters: One value for each of `max_counters`, 0 to its maximum.
            constant: As for `EncodedVector`.

        Raises:
            ShapeError, DtypeError, NonFiniteError, OutOfRangeError, WeightError: The input is refused.
        """
        check_update(update, self.num_values)
        extra = self._extra_coordinates(weight, counters)
        share = 1.0 if self.max_weight is None or weight is None else weight / self.max_weight
        self._check_ranges(update)
        encoded = np.empty(self.vector_length, dtype=np.uint32)
        points = np.empty(_BLOCK, dtype=np.float64)
        for start, stop, limit in self._blocks():
            grid = points[: stop - start]
            np.divide(update[start:stop], limit, out=grid, dtype=np.float64)
            if share != 1.0:
                grid *= share
            grid += 1.0
            grid *= self._levels / 2
            # Multiples of 2**-24: added to a grid point of at most 22 bits they never round up to the next one.
            grid += rounding.random(stop - start, dtype=np.float32)
            np.copyto(encoded[start:stop].view(np.int32), grid, casting="unsafe")  # faster than to uint32
        encoded[self.num_values :] = extra
        return EncodedVector(encoded, self.max_coordinate, constant=constant)

    def decode_sum(self, total: Aggregate, num_survivors: int) -> NDArray[np.float64]:
        """Return float64 [d], the sum of the survivors' updates, each times its weight if the codec is weighted.

        Args:
            total: The opened sum.
            num_survivors: How many clients are in it.

        Raises:
            ShapeError: The total belongs to another codec.
        """
        integers = total.integers_of(self.vector_length)
        decoded = np.empty(self.num_values, dtype=np.float64)
        scale = self.max_weight or 1
        for start, stop, limit in self._blocks():
            block = decoded[start:stop]
            np.multiply(integers[start:stop], 2.0 * limit / self._levels, out=block)
            block -= num_survivors * limit
            block *= scale
        return decoded

    def decode_mean(self, total: Aggregate, num_survivors: int) -> NDArray[np.float64]:
        """Return float64 [d], the (weighted) mean update of the survivors."""
        divisor = num_survivors if self.max_weight is None else self.decode_weight(total)
        decoded = self.decode_sum(total, num_survivors)
        decoded /= divisor
        return decoded

    def decode_weight(self, total: Aggregate) -> int:
        """Return the sum of the survivors' weights.

        Raises:
            ParameterError: The codec is unweighted.
        """
        if self.max_weight is None:
            raise ParameterError("max_weight", "this codec is unweighted")
        return int(total.integers_of(self.vector_length)[self.num_values])

    def decode_counters(self, total: Aggregate) -> tuple[int, ...]:
        """Return the sums of the survivors' counters."""
        start = self.vector_length - len(self.max_counters)
        return tuple(int(value) for value in total.integers_of(self.vector_length)[start:])

    def _tensors(self) -> list[tuple[int, int, float]]:
        starts = self._bounds.tolist()
        return list(zip(starts, starts[1:], self.ranges, strict=False))

    def _blocks(self) -> Iterator[tuple[int, int, float]]:
        """Yield pieces of tensors, in order."""
        for first, last, limit in self._tensors():
            for start in range(first, last, _BLOCK):
                yield start, min(start + _BLOCK, last), limit

    def _check_ranges(self, update: NDArray[np.float32]) -> None:
        beyond = [
            start + np.flatnonzero(np.abs(tensor) > limit)
            for start, stop, limit in self._tensors()
            if not (-limit <= (tensor := update[start:stop]).min() and tensor.max() <= limit)
        ]
        if beyond:
            raise OutOfRangeError(sum(map(len, beyond)), int(beyond[0][0]))

    def _extra_coordinates(self, weight: int | None, counters: Sequence[int]) -> list[int]:
        if (weight is None) != (self.max_weight is None):
            raise WeightError("weight", self.max_weight or 0)
        if len(counters) != len(self.max_counters):
            raise WeightError("counters", len(self.max_counters))
        extra: list[int] = []
        if weight is not None and self.max_weight is not None:
            if type(weight) is not int or not 1 <= weight <= self.max_weight:
                raise WeightError("weight", self.max_weight)
            extra.append(weight)
        for counter, maximum in zip(counters, self.max_counters, strict=True):
            if type(counter) is not int or not 0 <= counter <= maximum:
                raise WeightError("counter", maximum)
            extra.append(counter)
        return extra
