"""Vectors carry their secrecy in their type: encoded, noisy (private), masked (public), aggregate (public, a sum).

Only a masked vector has a wire format inside a secure round; pads exist only while they are applied (pads.py).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.errors import DecodeError, DtypeError, NonFiniteError, OutOfRangeError, ShapeError
from protocols.packing import pack, packed_bytes, unpack
from protocols.ring import Lanes, lane_dtype


def check_update(update: NDArray[np.floating[Any]], length: int, *, double: bool = False) -> None:
    """Refuse what is no update.

    Args:
        update: float32[length].
        length: Its coordinates.
        double: Whether float64 will do as well.

    Raises:
        ShapeError, DtypeError, NonFiniteError: It is not float32[length] of finite numbers.
    """
    if update.shape != (length,):
        raise ShapeError((length,), update.shape)
    if update.dtype != np.float32 and not (double and update.dtype == np.float64):
        raise DtypeError("float32", str(update.dtype))
    finite = np.isfinite(update)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise NonFiniteError(len(bad), int(bad[0]))


class EncodedVector:
    """One client's contribution as ring integers: private, without a wire format, never printed or pickled.

    Args:
        values: Unsigned integers [d], each at most `max_coordinate`; not copied, must not change afterwards.
        max_coordinate: The public bound of every coordinate.
        constant: Whether the caller vouches that the values hang on nothing that is the client's own, as those of an
            update of zeros do. Sums that hold them are compared with no others (SPEC.md, M-24).

    Raises:
        ShapeError, DtypeError, OutOfRangeError: The values are not that.
    """

    __slots__ = ("_values", "constant", "max_coordinate")

    def __init__(self, values: Lanes, max_coordinate: int, *, constant: bool = False) -> None:
        if values.ndim != 1:
            raise ShapeError((values.size,), values.shape)
        if values.dtype.kind != "u":
            raise DtypeError("unsigned integers", str(values.dtype))
        if values.size and int(values.max()) > max_coordinate:
            beyond = np.flatnonzero(values > max_coordinate)
            raise OutOfRangeError(len(beyond), int(beyond[0]))
        self._values = values
        self.max_coordinate = max_coordinate
        self.constant = constant

    def __len__(self) -> int:
        return len(self._values)

    def lanes(self, ring_bits: int) -> Lanes:
        """Return a copy in the machine words of a ring."""
        return self._values.astype(lane_dtype(ring_bits))

    def __repr__(self) -> str:
        return f"<EncodedVector of {len(self)}>"

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError("an encoded vector is private: it is never pickled or copied")


class NoisyVector(EncodedVector):
    """An encoded vector with its client's noise: as ring elements only the sum of the two exists.

    Args:
        values: As for an encoded vector.
        max_coordinate: The public bound of every coordinate without noise.
        noise: int64 [d], this client's noise, for this vector alone; not copied, must not change afterwards.

    Raises:
        ShapeError, DtypeError, OutOfRangeError: The values or the noise are not that.
    """

    __slots__ = ("_noise",)

    def __init__(self, values: Lanes, max_coordinate: int, noise: NDArray[np.int64]) -> None:
        super().__init__(values, max_coordinate)
        if noise.shape != values.shape:
            raise ShapeError(values.shape, noise.shape)
        if noise.dtype != np.int64:
            raise DtypeError("int64", str(noise.dtype))
        self._noise = noise

    def lanes(self, ring_bits: int) -> Lanes:
        """Return values plus noise modulo 2**ring_bits, in the machine words of the ring."""
        total = self._values.astype(np.int64) + self._noise
        total &= (1 << ring_bits) - 1
        return total.astype(lane_dtype(ring_bits))

    def __repr__(self) -> str:
        return f"<NoisyVector of {len(self)}>"


@dataclass(frozen=True, slots=True, eq=False)
class MaskedVector:
    """A contribution under its pads: uniform over the ring to everybody who misses one of them.

    Attributes:
        lanes: Ring elements [d].
        ring_bits: Their width.
    """

    lanes: Lanes
    ring_bits: int

    def encode(self) -> bytes:
        """Return the packed bytes: ceil(d * ring_bits / 8)."""
        return pack(self.lanes, self.ring_bits)

    @classmethod
    def decode(cls, data: bytes | memoryview, length: int, ring_bits: int) -> "MaskedVector":
        """Read packed bytes.

        Raises:
            DecodeError: The size is wrong or padding bits are not zero.
        """
        if len(data) != packed_bytes(length, ring_bits):
            raise DecodeError("the masked vector has the wrong size")
        return cls(unpack(data, length, ring_bits), ring_bits)


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """The opened sum of the survivors' encoded vectors.

    Attributes:
        lanes: Ring elements [d].
        ring_bits: Their width.
        survivors: How many clients are in the sum.
        noise_tail: Bound of the summed noise; 0 without noise. With noise, sums may be negative.
    """

    lanes: Lanes
    ring_bits: int
    survivors: int
    noise_tail: int = 0
    _integers: list[NDArray[np.int64]] = field(default_factory=list, init=False, repr=False)

    def integers(self) -> NDArray[np.int64]:
        """Return int64 [d], read-only, the sums as integers: noise may take them below zero, down to -noise_tail."""
        if not self._integers:
            values = self.lanes.astype(np.int64)
            if self.noise_tail:
                size = 1 << self.ring_bits
                values = (values + self.noise_tail) % size - self.noise_tail
            values.flags.writeable = False
            self._integers.append(values)
        return self._integers[0]

    def integers_of(self, length: int) -> NDArray[np.int64]:
        """Return `integers` where there are as many as a codec says.

        Raises:
            ShapeError: The sum is of another codec.
        """
        integers = self.integers()
        if integers.shape != (length,):
            raise ShapeError((length,), integers.shape)
        return integers
