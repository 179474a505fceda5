"""ConsistencyCheck: one survivor set down, one signature over it up."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

from protocols.errors import DecodeError
from protocols.messages.frames import FrameKind
from protocols.roster import SIGNATURE_BYTES
from protocols.wire import MAX_CLIENTS, FrameType, Reader, u16


@dataclass(frozen=True)
class SurvivorSet:
    """Which clients' masked vectors are in the sum, as one bit for each position.

    Attributes:
        clients: n, the size of the cohort.
        bits: Bit i is set if position i survived. Kept as it came: the positions take some hundred times the memory.
    """

    clients: int
    bits: int

    @classmethod
    def of(cls, clients: int, positions: AbstractSet[int]) -> Self:
        """Make the set."""
        return cls(clients, sum(1 << position for position in positions))

    @cached_property
    def positions(self) -> frozenset[int]:
        """The survivors."""
        return frozenset(i for i, bit in enumerate(reversed(f"{self.bits:b}")) if bit == "1")

    def encode(self) -> bytes:
        """Return n and ceil(n / 8) bytes; bit i of the little-endian bit string is position i."""
        return u16(self.clients) + self.bits.to_bytes((self.clients + 7) // 8, "little")

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a set.

        Raises:
            DecodeError: The bytes are not one.
        """
        clients = reader.u16()
        if not 1 <= clients <= MAX_CLIENTS:
            raise DecodeError("a cohort of that size cannot be")
        bits = int.from_bytes(reader.view((clients + 7) // 8), "little")
        if bits >> clients:
            raise DecodeError("padding bits are not zero")
        return cls(clients, bits)


@dataclass(frozen=True, slots=True)
class ConsistencyCheckRequest:
    """The survivor set, the same for all."""

    survivors: SurvivorSet
    TYPE: ClassVar = FrameType.CONSISTENCY_CHECK_REQUEST

    def body(self) -> Sequence[bytes]:
        """Return the set."""
        return (self.survivors.encode(),)

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        return cls(SurvivorSet.parse(reader))

    def parts(self) -> Mapping[FrameKind, int]:
        """All is overhead."""
        return {}


@dataclass(frozen=True, slots=True)
class ConsistencyCheckReply:
    """A client's signature over session, keys and survivor set."""

    signature: bytes
    TYPE: ClassVar = FrameType.CONSISTENCY_CHECK_REPLY

    def body(self) -> Sequence[bytes]:
        """Return the signature."""
        return (self.signature,)

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        return cls(reader.take(SIGNATURE_BYTES))

    def parts(self) -> Mapping[FrameKind, int]:
        """One signature."""
        return {FrameKind.SIGNATURES: SIGNATURE_BYTES}
