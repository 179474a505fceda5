"""ShareKeys and the request of MaskedInputCollection: keys down, sealed shares up, and on to their holders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, TypeVar

from protocols.blocks import PositionedBlocks
from protocols.commitments import SHARE_COMMITMENT_BYTES
from protocols.errors import DecodeError
from protocols.messages.frames import FrameKind
from protocols.messages.keys import Advertisement
from protocols.sealing import SEALED_BYTES
from protocols.wire import FrameType, Reader, u8, u16

Entry = TypeVar("Entry")

_DEALT_BYTES = 2 * SHARE_COMMITMENT_BYTES + 1


@dataclass(frozen=True, slots=True)
class ShareKeysRequest:
    """The round keys of the clients that may hold shares, and the nonces from which the graph follows.

    Attributes:
        advertisements: {position: advertisement}, ascending, the receiver's own among them.
        nonces: Everybody's nonce in a k-regular graph, else empty.
    """

    advertisements: Mapping[int, Advertisement]
    nonces: PositionedBlocks
    TYPE: ClassVar = FrameType.SHARE_KEYS_REQUEST

    def body(self) -> Sequence[bytes]:
        """Return count, position and advertisement of each, nonces."""
        entries = (u16(position) + self.advertisements[position].encode() for position in sorted(self.advertisements))
        return (u16(len(self.advertisements)), *entries, self.nonces.encode())

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        advertisements: dict[int, Advertisement] = {}
        for _ in range(reader.count(67)):
            _next_position(reader, advertisements, Advertisement.parse)
        return cls(advertisements, PositionedBlocks.parse(reader))

    def parts(self) -> Mapping[FrameKind, int]:
        """Keys with their positions, nonces and signatures."""
        signatures = sum(len(entry.signature) for entry in self.advertisements.values())
        keys = sum(66 + len(entry.nonce_commitment) for entry in self.advertisements.values())
        return {FrameKind.KEYS: keys + 34 * len(self.nonces), FrameKind.SIGNATURES: signatures}


@dataclass(frozen=True, slots=True)
class DealtShares:
    """What one client deals to one holder.

    Attributes:
        self_mask_commitment: 16 bytes that bind the share of the self-mask seed.
        mask_key_commitment: 16 bytes that bind the share of the mask key.
        sealed: 100 bytes that only the holder can open; empty for the shares that a client keeps of itself.
    """

    self_mask_commitment: bytes
    mask_key_commitment: bytes
    sealed: bytes

    def encode(self) -> bytes:
        """Return both commitments, the length of the sealed bytes, and these."""
        return self.self_mask_commitment + self.mask_key_commitment + u8(len(self.sealed)) + self.sealed

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read dealt shares.

        Raises:
            DecodeError: The bytes are not that.
        """
        commitments = reader.take(SHARE_COMMITMENT_BYTES), reader.take(SHARE_COMMITMENT_BYTES)
        length = reader.u8()
        if length not in (0, SEALED_BYTES):
            raise DecodeError("sealed shares have the wrong size")
        return cls(*commitments, reader.take(length))


@dataclass(frozen=True, slots=True)
class ShareKeysReply:
    """A client's shares of both of its secrets, one entry for each holder.

    Attributes:
        seed_commitment: 32 bytes that bind the self-mask seed.
        shares: {holder: dealt shares}, ascending.
    """

    seed_commitment: bytes
    shares: Mapping[int, DealtShares]
    TYPE: ClassVar = FrameType.SHARE_KEYS_REPLY

    def body(self) -> Sequence[bytes]:
        """Return commitment, count, position and shares of each holder."""
        return (self.seed_commitment, *_encode_shares(self.shares))

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        return cls(reader.take(32), _parse_shares(reader))

    def parts(self) -> Mapping[FrameKind, int]:
        """Everything is shares."""
        return {FrameKind.SHARES: 34 + _shares_bytes(self.shares)}


@dataclass(frozen=True, slots=True)
class MaskedInputRequest:
    """What others dealt to the receiver: {dealer: dealt shares}, ascending. Exactly these share pads with it."""

    shares: Mapping[int, DealtShares]
    TYPE: ClassVar = FrameType.MASKED_INPUT_REQUEST

    def body(self) -> Sequence[bytes]:
        """Return count, position and shares of each dealer."""
        return _encode_shares(self.shares)

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        return cls(_parse_shares(reader))

    def parts(self) -> Mapping[FrameKind, int]:
        """Everything is shares."""
        return {FrameKind.SHARES: 2 + _shares_bytes(self.shares)}


def _next_position(reader: Reader, entries: dict[int, Entry], parse: Callable[[Reader], Entry]) -> None:
    position = reader.u16()
    if entries and position <= next(reversed(entries)):
        raise DecodeError("positions are not strictly ascending")
    entries[position] = parse(reader)


def _encode_shares(shares: Mapping[int, DealtShares]) -> Sequence[bytes]:
    return (u16(len(shares)), *(u16(position) + shares[position].encode() for position in sorted(shares)))


def _parse_shares(reader: Reader) -> dict[int, DealtShares]:
    shares: dict[int, DealtShares] = {}
    for _ in range(reader.count(2 + _DEALT_BYTES)):
        _next_position(reader, shares, DealtShares.parse)
    return shares


def _shares_bytes(shares: Mapping[int, DealtShares]) -> int:
    return sum(2 + _DEALT_BYTES + len(dealt.sealed) for dealt in shares.values())
