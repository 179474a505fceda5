"""AdvertiseKeys and RevealNonces: parameters and model down, signed round keys up; commitments down, nonces up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from protocols.blocks import PositionedBlocks
from protocols.errors import DecodeError
from protocols.messages.frames import FrameKind
from protocols.roster import SIGNATURE_BYTES
from protocols.wire import MAX_PAYLOAD_BYTES, FrameType, Reader, u8, u32

_HAS_SIGNATURE = 1
_HAS_NONCE_COMMITMENT = 2


@dataclass(frozen=True, slots=True)
class AdvertiseKeysRequest:
    """The round's parameters and the global model.

    Attributes:
        parameters: The bytes of `RoundParameters`; they are read and checked apart from the frame.
        payload: The download, opaque to the protocol; hashed into the session id as it was received.
    """

    parameters: bytes
    payload: bytes | memoryview
    TYPE: ClassVar = FrameType.ADVERTISE_KEYS_REQUEST

    def body(self) -> Sequence[bytes | memoryview]:
        """Return parameters' length, parameters, payload's length, payload."""
        return (u32(len(self.parameters)), self.parameters, u32(len(self.payload)), self.payload)

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        parameters, length = reader.take(reader.u32()), reader.u32()
        if length > MAX_PAYLOAD_BYTES:
            raise DecodeError("the payload is too large")
        return cls(parameters, reader.view(length))

    def parts(self) -> Mapping[FrameKind, int]:
        """The payload; parameters are overhead."""
        return {FrameKind.PAYLOAD: len(self.payload)}


@dataclass(frozen=True, slots=True)
class Advertisement:
    """One client's round keys.

    Attributes:
        channel_public: X25519 public key that protects shares, 32 bytes.
        mask_public: X25519 public key of the pairwise pads, 32 bytes.
        nonce_commitment: 32 bytes in a k-regular graph, else empty.
        signature: 64 bytes under the identity key against an active adversary, else empty.
    """

    channel_public: bytes
    mask_public: bytes
    nonce_commitment: bytes
    signature: bytes

    def encode(self) -> bytes:
        """Return flags, keys, and what the flags announce."""
        flags = (_HAS_SIGNATURE if self.signature else 0) | (_HAS_NONCE_COMMITMENT if self.nonce_commitment else 0)
        return u8(flags) + self.channel_public + self.mask_public + self.nonce_commitment + self.signature

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read an advertisement.

        Raises:
            DecodeError: The bytes are not one.
        """
        flags = reader.u8()
        if flags & ~(_HAS_SIGNATURE | _HAS_NONCE_COMMITMENT):
            raise DecodeError("unknown flags")
        return cls(
            reader.take(32),
            reader.take(32),
            reader.take(32 if flags & _HAS_NONCE_COMMITMENT else 0),
            reader.take(SIGNATURE_BYTES if flags & _HAS_SIGNATURE else 0),
        )

    def parts(self) -> Mapping[FrameKind, int]:
        """Keys and signature."""
        return {FrameKind.KEYS: 64 + len(self.nonce_commitment), FrameKind.SIGNATURES: len(self.signature)}


@dataclass(frozen=True, slots=True)
class AdvertiseKeysReply:
    """A client's advertisement, in the session that it is in."""

    advertisement: Advertisement
    TYPE: ClassVar = FrameType.ADVERTISE_KEYS_REPLY

    def body(self) -> Sequence[bytes]:
        """Return the advertisement."""
        return (self.advertisement.encode(),)

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        return cls(Advertisement.parse(reader))

    def parts(self) -> Mapping[FrameKind, int]:
        """Keys and signature."""
        return self.advertisement.parts()


@dataclass(frozen=True, slots=True)
class RevealNoncesRequest:
    """Everybody's commitments: after this the set is fixed, and nonces may become known."""

    commitments: PositionedBlocks
    TYPE: ClassVar = FrameType.REVEAL_NONCES_REQUEST

    def body(self) -> Sequence[bytes]:
        """Return the list."""
        return (self.commitments.encode(),)

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        return cls(PositionedBlocks.parse(reader))

    def parts(self) -> Mapping[FrameKind, int]:
        """Commitments count as keys."""
        return {FrameKind.KEYS: 34 * len(self.commitments)}


@dataclass(frozen=True, slots=True)
class RevealNoncesReply:
    """The nonce that opens this client's commitment."""

    nonce: bytes
    TYPE: ClassVar = FrameType.REVEAL_NONCES_REPLY

    def body(self) -> Sequence[bytes]:
        """Return the nonce."""
        return (self.nonce,)

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        return cls(reader.take(32))

    def parts(self) -> Mapping[FrameKind, int]:
        """The nonce counts as a key."""
        return {FrameKind.KEYS: 32}
