"""ConsistencyCheck: one survivor set down, one signature over it up."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import ClassVar, Self

from protocols.errors import DecodeError
from protocols.messages.frames import FrameKind
from protocols.roster import SIGNATURE_BYTES
from protocols.wire import MAX_CLIENTS, FrameType, Reader, u16


@dataclass(frozen=True, slots=True)
class SurvivorSet:
    """Which clients' masked vectors are in the sum, as one bit for each position.

    Attributes:
        clients: n, the size of the cohort.
        positions: The survivors.
    """

    clients: int
    positions: frozenset[int]

    @classmethod
    def of(cls, clients: int, positions: AbstractSet[int]) -> Self:
        """Make the set."""
        return cls(clients, frozenset(positions))

    def encode(self) -> bytes:
        """Return n and ceil(n / 8) bytes; bit i of the little-endian bit string is position i."""
        bits = sum(1 << position for position in self.positions)
        return u16(self.clients) + bits.to_bytes((self.clients + 7) // 8, "little")

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
        return cls(clients, frozenset(i for i in range(clients) if bits >> i & 1))


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
