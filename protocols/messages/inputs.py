"""The replies that carry vectors: masked in a secure round, plain in a round without secure aggregation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from protocols.blocks import encode_positions, parse_positions
from protocols.errors import DecodeError
from protocols.messages.frames import FrameKind
from protocols.messages.keys import AdvertiseKeysRequest
from protocols.packing import packed_bytes
from protocols.ring import MAX_RING_BITS
from protocols.wire import MAX_COORDINATES, FrameType, Reader, u8, u32


@dataclass(frozen=True, slots=True)
class MaskedInputReply:
    """A client's masked vector and whose shares it could not use.

    Attributes:
        unusable: Dealers whose sealed shares did not open or did not fit their commitments, ascending.
        ring_bits: Width of the ring.
        length: Coordinates.
        packed: ceil(length * ring_bits / 8) bytes.
    """

    unusable: tuple[int, ...]
    ring_bits: int
    length: int
    packed: bytes | memoryview
    TYPE: ClassVar = FrameType.MASKED_INPUT_REPLY

    def body(self) -> Sequence[bytes | memoryview]:
        """Return the dealers, width, length and the packed vector."""
        return (encode_positions(self.unusable), u8(self.ring_bits), u32(self.length), self.packed)

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        unusable = parse_positions(reader)
        return cls(unusable, *_parse_vector(reader))

    def parts(self) -> Mapping[FrameKind, int]:
        """The packed vector."""
        return {FrameKind.PAYLOAD: len(self.packed)}


@dataclass(frozen=True, slots=True)
class PlainInputRequest:
    """The round's parameters and the global model, for a round without secure aggregation."""

    parameters: bytes
    payload: bytes | memoryview
    TYPE: ClassVar = FrameType.PLAIN_INPUT_REQUEST

    def body(self) -> Sequence[bytes | memoryview]:
        """Return the same bytes as the request of AdvertiseKeys."""
        return AdvertiseKeysRequest(self.parameters, self.payload).body()

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        same = AdvertiseKeysRequest.parse(reader)
        return cls(same.parameters, same.payload)

    def parts(self) -> Mapping[FrameKind, int]:
        """The payload; parameters are overhead."""
        return {FrameKind.PAYLOAD: len(self.payload)}


@dataclass(frozen=True, slots=True)
class PlainInputReply:
    """A client's encoded vector in clear.

    Attributes:
        width: Bits of a coordinate.
        length: Coordinates.
        packed: ceil(length * width / 8) bytes.
    """

    width: int
    length: int
    packed: bytes | memoryview
    TYPE: ClassVar = FrameType.PLAIN_INPUT_REPLY

    def body(self) -> Sequence[bytes | memoryview]:
        """Return width, length and the packed vector."""
        return (u8(self.width), u32(self.length), self.packed)

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        return cls(*_parse_vector(reader))

    def parts(self) -> Mapping[FrameKind, int]:
        """The packed vector."""
        return {FrameKind.PAYLOAD: len(self.packed)}


def _parse_vector(reader: Reader) -> tuple[int, int, memoryview]:
    width, length = reader.u8(), reader.u32()
    if not 1 <= width <= MAX_RING_BITS or not 1 <= length <= MAX_COORDINATES:
        raise DecodeError("a vector of that width or length cannot be")
    return width, length, reader.view(packed_bytes(length, width))
