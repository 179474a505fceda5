"""What all messages have in common: a type, a body, and an account of what their bytes are for."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import ClassVar, Protocol, Self, TypeVar

from protocols.errors import DecodeError
from protocols.wire import FrameType, Header, Reader, decode_frame, encode_frame


class FrameKind(StrEnum):
    """What bytes of a frame are for."""

    PAYLOAD = "payload"
    KEYS = "keys"
    SHARES = "shares"
    SIGNATURES = "signatures"
    OVERHEAD = "overhead"


class Message(Protocol):
    """One message's body."""

    TYPE: ClassVar[FrameType]

    def body(self) -> Sequence[bytes | memoryview]:
        """Return the parts of the body, in order."""
        ...

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        ...

    def parts(self) -> Mapping[FrameKind, int]:
        """Return how many bytes are what; what is not named here is overhead."""
        ...


M = TypeVar("M", bound=Message)


def encode_message(message: Message, round: int, session_id: bytes) -> bytes:
    """Return a message as a frame."""
    return encode_frame(Header(message.TYPE, round, session_id), *message.body())


def decode_message(kind: type[M], data: bytes, limit: int) -> tuple[Header, M]:
    """Read a frame that must hold a message of one kind.

    Raises:
        DecodeError: It does not.
    """
    header, reader = decode_frame(data, limit)
    if header.type is not kind.TYPE:
        raise DecodeError("another type of frame than expected here")
    message = kind.parse(reader)
    reader.done()
    return header, message


def frame_type(data: bytes) -> FrameType | None:
    """Return the type that a frame claims, or None where it has no known one."""
    try:
        return FrameType(data[3]) if len(data) > 3 else None
    except ValueError:
        return None
