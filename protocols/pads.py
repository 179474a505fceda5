"""One-time pads over the ring: AES-256-CTR keystreams, applied chunk by chunk without ever being held as a whole.

The keystream of a pad (counter block starting at zero, zero plaintext) is read as little-endian machine words of the
ring's lane width; only its low ring_bits bits count, since 2**ring_bits divides the word size and the sum is reduced at
the end.
"""

from collections.abc import Sequence

import numpy as np

from protocols.errors import SpentError
from protocols.keystream import MOST_AT_ONCE, Keystream
from protocols.ring import Lanes
from protocols.secret_values import PairwiseSeed, SelfMaskPadKey


class Pad:
    """A one-time pad: a key and whether its keystream is added or subtracted. Applied once, then erased.

    Args:
        key: The AES-256 key; this pad owns and erases it.
        negative: Whether the keystream is subtracted.
    """

    __slots__ = ("_key", "negative")

    def __init__(self, key: PairwiseSeed | SelfMaskPadKey, *, negative: bool) -> None:
        self._key = key
        self.negative = negative

    def open(self, length: int) -> Keystream:
        """Return the keystream, of which `length` bytes are wanted, and erase the key.

        Raises:
            SpentError: The pad was applied before.
        """
        if self._key.is_erased:
            raise SpentError("pad")
        stream = Keystream(self._key.expose(), length)
        self._key.erase()
        return stream

    def erase(self) -> None:
        """Overwrite the key, as applying the pad does."""
        self._key.erase()

    def __repr__(self) -> str:
        return "<Pad>"


def apply_pads(lanes: Lanes, pads: Sequence[Pad]) -> None:
    """Add the pads to ring elements in place, modulo the machine word; the caller reduces modulo 2**ring_bits.

    Args:
        lanes: uint16, uint32 or uint64 [d], contiguous.
        pads: Each is spent by this call.

    Raises:
        SpentError: A pad was applied before; `lanes` are unchanged.
    """
    streams = [(pad.open(lanes.nbytes), np.subtract if pad.negative else np.add) for pad in pads]
    buffer = memoryview(bytearray(MOST_AT_ONCE))
    words = np.frombuffer(buffer, dtype=lanes.dtype)
    step = len(words)
    for start in range(0, len(lanes), step):
        chunk = lanes[start : start + step]
        wanted, keystream = buffer[: chunk.nbytes], words[: len(chunk)]
        for stream, combine in streams:
            stream.fill(wanted)
            combine(chunk, keystream, out=chunk)
