"""The bytes of frames: fixed-width little-endian integers, strictly read (SPEC.md, "Frames").

A reader never allocates more than the bytes it was given, refuses anything that is left over, and raises `DecodeError`
and nothing else.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from protocols.errors import DecodeError
from protocols.labels import VERSION

MAGIC = b"SF"
HEADER_BYTES = 44
MAX_CLIENTS = 16_384
"""Largest cohort that the format carries."""
MAX_PAYLOAD_BYTES = 1 << 30
"""Largest download (the global model's bytes)."""
MAX_COORDINATES = 1 << 28
"""Longest vector."""

_HEADER = struct.Struct("<2sBBI32sI")


class FrameType(IntEnum):
    """The type byte of a frame: requests are odd, replies even. From 17 on: rounds that remove excess noise."""

    ADVERTISE_KEYS_REQUEST = 1
    ADVERTISE_KEYS_REPLY = 2
    REVEAL_NONCES_REQUEST = 3
    REVEAL_NONCES_REPLY = 4
    SHARE_KEYS_REQUEST = 5
    SHARE_KEYS_REPLY = 6
    MASKED_INPUT_REQUEST = 7
    MASKED_INPUT_REPLY = 8
    CONSISTENCY_CHECK_REQUEST = 9
    CONSISTENCY_CHECK_REPLY = 10
    UNMASKING_REQUEST = 11
    UNMASKING_REPLY = 12
    PLAIN_INPUT_REQUEST = 13
    PLAIN_INPUT_REPLY = 14
    REFUSAL = 16
    NOISY_MASKED_INPUT_REQUEST = 17
    NOISY_SHARE_KEYS_REPLY = 18
    NOISY_UNMASKING_REPLY = 20


@dataclass(frozen=True, slots=True)
class Header:
    """What every frame begins with.

    Attributes:
        type: What the body is.
        round: The round number, 0 to 2**32 - 1.
        session_id: 32 bytes; of the session as the sender knows it.
    """

    type: FrameType
    round: int
    session_id: bytes


def encode_frame(header: Header, *body: bytes | memoryview) -> bytes:
    """Return one frame: the header, then the parts of the body."""
    length = sum(len(part) for part in body)
    head = _HEADER.pack(MAGIC, VERSION, header.type, header.round, header.session_id, length)
    return b"".join((head, *body))


def decode_frame(data: bytes, limit: int) -> tuple[Header, "Reader"]:
    """Split a frame into its header and a reader of its body.

    Args:
        data: The whole frame.
        limit: Largest size of a frame that the caller expects here, in bytes.

    Raises:
        DecodeError: The bytes are not exactly one frame of this version within the limit.
    """
    if len(data) > limit:
        raise DecodeError("the frame is larger than this stage allows")
    if len(data) < HEADER_BYTES:
        raise DecodeError("the frame is shorter than a header")
    magic, version, kind, number, session_id, length = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise DecodeError("not a frame")
    if version != VERSION:
        raise DecodeError("another version of the format")
    if length != len(data) - HEADER_BYTES:
        raise DecodeError("the body length is wrong")
    try:
        frame_type = FrameType(kind)
    except ValueError:
        raise DecodeError("unknown frame type") from None
    return Header(frame_type, number, session_id), Reader(memoryview(data)[HEADER_BYTES:])


class Reader:
    """Reads a body from front to back; every method raises `DecodeError` when bytes are missing."""

    __slots__ = ("_data", "_offset")

    def __init__(self, data: memoryview | bytes) -> None:
        self._data = memoryview(data)
        self._offset = 0

    def view(self, length: int) -> memoryview:
        """Return the next bytes without a copy."""
        end = self._offset + length
        if length < 0 or end > len(self._data):
            raise DecodeError("the body is truncated")
        view = self._data[self._offset : end]
        self._offset = end
        return view

    def take(self, length: int) -> bytes:
        """Return the next bytes."""
        return bytes(self.view(length))

    def u8(self) -> int:
        """Return the next unsigned byte."""
        return self.view(1)[0]

    def u16(self) -> int:
        """Return the next unsigned 16-bit integer."""
        return int.from_bytes(self.view(2), "little")

    def u32(self) -> int:
        """Return the next unsigned 32-bit integer."""
        return int.from_bytes(self.view(4), "little")

    def u64(self) -> int:
        """Return the next unsigned 64-bit integer."""
        return int.from_bytes(self.view(8), "little")

    def count(self, item_bytes: int) -> int:
        """Return a 16-bit number of items whose bytes must still be there."""
        count = self.u16()
        if count > MAX_CLIENTS or count * item_bytes > len(self._data) - self._offset:
            raise DecodeError("more items are announced than there are bytes")
        return count

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self._data) - self._offset

    def done(self) -> None:
        """Refuse bytes that are left over."""
        if self._offset != len(self._data):
            raise DecodeError("bytes are left over")


def u8(value: int) -> bytes:
    """Return one byte."""
    return value.to_bytes(1, "little")


def u16(value: int) -> bytes:
    """Return two little-endian bytes."""
    return value.to_bytes(2, "little")


def u32(value: int) -> bytes:
    """Return four little-endian bytes."""
    return value.to_bytes(4, "little")


def u64(value: int) -> bytes:
    """Return eight little-endian bytes."""
    return value.to_bytes(8, "little")
