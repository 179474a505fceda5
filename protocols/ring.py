"""The ring Z_2^b in which vectors are summed: how many bits it needs and which machine words carry it."""

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ParameterError, RingOverflowError

MAX_RING_BITS = 62

Lanes = NDArray[np.unsignedinteger]
"""Ring elements in the narrowest machine words that hold them: uint16, uint32 or uint64."""


def lane_dtype(ring_bits: int) -> np.dtype[np.unsignedinteger]:
    """Return the machine word that carries ring elements: uint16 up to 16 bits, uint32 up to 32, else uint64."""
    if not 1 <= ring_bits <= MAX_RING_BITS:
        raise ParameterError("ring_bits", f"must be 1 to {MAX_RING_BITS}")
    return np.dtype("<u2" if ring_bits <= 16 else "<u4" if ring_bits <= 32 else "<u8")


def required_ring_bits(clients: int, max_coordinate: int, noise_tail: int = 0) -> int:
    """Return the least number of bits in which no sum can wrap around.

    The total of `clients` coordinates in [0, max_coordinate] plus a summed noise in [-noise_tail, noise_tail] takes
    clients * max_coordinate + 2 * noise_tail + 1 values.

    Raises:
        RingOverflowError: More than 62 bits would be needed.
    """
    bits = max(1, (clients * max_coordinate + 2 * noise_tail).bit_length())
    if bits > MAX_RING_BITS:
        raise RingOverflowError(MAX_RING_BITS, bits)
    return bits


def reduce_in_place(lanes: Lanes, ring_bits: int) -> None:
    """Reduce machine words modulo 2**ring_bits. Additions modulo the word size may come before, in any number."""
    width = lanes.dtype.itemsize * 8
    if ring_bits < width:
        np.bitwise_and(lanes, lanes.dtype.type((1 << ring_bits) - 1), out=lanes)
