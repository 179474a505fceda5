"""Adding and removing pads: a client masks its vector, the server sums masked vectors and opens the total."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protocols.errors import AggregateError, OutOfRangeError, ShapeError
from protocols.pads import Pad, apply_pads
from protocols.ring import lane_dtype, reduce_in_place
from protocols.vectors import Aggregate, EncodedVector, MaskedVector


def mask(encoded: EncodedVector, pads: Sequence[Pad], ring_bits: int) -> MaskedVector:
    """Return the vector under its pads; the pads are spent.

    Raises:
        OutOfRangeError: The vector's bound does not fit the ring.
        SpentError: A pad was used before.
    """
    if encoded.max_coordinate >> ring_bits:
        raise OutOfRangeError(len(encoded), 0)
    lanes = encoded.lanes(ring_bits)
    apply_pads(lanes, pads)
    reduce_in_place(lanes, ring_bits)
    return MaskedVector(lanes, ring_bits)


class RunningSum:
    """The server's sum of masked vectors: one vector of memory, whatever the number of clients.

    Args:
        length: Coordinates.
        ring_bits: Width of the ring.
    """

    def __init__(self, length: int, ring_bits: int) -> None:
        self._lanes = np.zeros(length, dtype=lane_dtype(ring_bits))
        self._ring_bits = ring_bits

    def add(self, vector: MaskedVector) -> None:
        """Add one client's masked vector.

        Raises:
            ShapeError: The vector belongs to another round.
        """
        if vector.lanes.shape != self._lanes.shape or vector.ring_bits != self._ring_bits:
            raise ShapeError(self._lanes.shape, vector.lanes.shape)
        np.add(self._lanes, vector.lanes, out=self._lanes)

    def remove(self, pads: Sequence[Pad]) -> None:
        """Apply pads that cancel those in the sum."""
        apply_pads(self._lanes, pads)

    def subtract(self, noise: NDArray[np.int64]) -> None:
        """Take integers int64 [d] out of the sum, modulo the machine word."""
        np.subtract(self._lanes, noise.astype(self._lanes.dtype), out=self._lanes)

    def open(self, survivors: int, max_coordinate: int, noise_tail: int) -> Aggregate:
        """Return the total.

        Args:
            survivors: How many vectors are in the sum.
            max_coordinate: Largest value of one client's coordinate.
            noise_tail: Bound of the summed noise.

        Raises:
            AggregateError: A coordinate is outside what survivors can sum to: some pads did not cancel.
        """
        reduce_in_place(self._lanes, self._ring_bits)
        total = Aggregate(self._lanes, self._ring_bits, survivors, noise_tail)
        integers = total.integers()
        impossible = int(np.count_nonzero(integers > survivors * max_coordinate + noise_tail))
        if impossible:
            raise AggregateError(impossible)
        return total
