"""Messages of a round whose excess noise is removed: those of every round, each followed by shares of noise seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from protocols.commitments import SHARE_COMMITMENT_BYTES
from protocols.errors import DecodeError
from protocols.messages.frames import FrameKind
from protocols.messages.shares import MaskedInputRequest, ShareKeysReply
from protocols.messages.unmasking import UnmaskingReply
from protocols.sealing import SEALING_OVERHEAD
from protocols.secret_values import NoiseShare
from protocols.wire import FrameType, Reader, u8, u16


@dataclass(frozen=True, slots=True)
class DealtNoise:
    """What one client deals to one holder of its noise seeds.

    Attributes:
        commitments: 16 bytes for each component, in order, that bind the holder's share of its seed.
        sealed: All shares in order, readable by the holder alone; empty for those that a client keeps of itself.
    """

    commitments: tuple[bytes, ...]
    sealed: bytes

    def encode(self) -> bytes:
        """Return the number of components, commitments, the length of the sealed bytes, and these."""
        return u8(len(self.commitments)) + b"".join(self.commitments) + u16(len(self.sealed)) + self.sealed

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read dealt shares.

        Raises:
            DecodeError: The bytes are not that.
        """
        count = reader.u8()
        commitments = tuple(reader.take(SHARE_COMMITMENT_BYTES) for _ in range(count))
        length = reader.u16()
        if count == 0 or length not in (0, SEALING_OVERHEAD + NoiseShare.length * count):
            raise DecodeError("sealed shares of noise seeds have the wrong size")
        return cls(commitments, reader.take(length))


def dealt_noise_bytes(components: int, *, sealed: bool) -> int:
    """Return the size of what is dealt to one holder."""
    body = SEALING_OVERHEAD + NoiseShare.length * components if sealed else 0
    return 3 + SHARE_COMMITMENT_BYTES * components + body


@dataclass(frozen=True, slots=True)
class NoisyShareKeysReply:
    """A client's shares of its secrets and of its noise seeds.

    Attributes:
        plain: The reply of a round without excess noise.
        seed_commitments: 32 bytes for each component, in order, that bind its seed.
        noise: {holder: dealt shares}, ascending.
    """

    plain: ShareKeysReply
    seed_commitments: tuple[bytes, ...]
    noise: Mapping[int, DealtNoise]
    TYPE: ClassVar = FrameType.NOISY_SHARE_KEYS_REPLY

    def body(self) -> Sequence[bytes]:
        """Return the plain body, the seeds' commitments, position and shares of each holder."""
        return (*self.plain.body(), u8(len(self.seed_commitments)), *self.seed_commitments, *_encode(self.noise))

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        plain = ShareKeysReply.parse(reader)
        commitments = tuple(reader.take(32) for _ in range(reader.u8()))
        return cls(plain, commitments, _parse(reader))

    def parts(self) -> Mapping[FrameKind, int]:
        """Everything is shares."""
        own = 3 + 32 * len(self.seed_commitments) + _size(self.noise)
        return {FrameKind.SHARES: own + self.plain.parts()[FrameKind.SHARES]}


@dataclass(frozen=True, slots=True)
class NoisyMaskedInputRequest:
    """What others dealt to the receiver, of their secrets and of their noise seeds.

    Attributes:
        plain: The request of a round without excess noise.
        noise: {dealer: dealt shares}, ascending, of the same dealers.
    """

    plain: MaskedInputRequest
    noise: Mapping[int, DealtNoise]
    TYPE: ClassVar = FrameType.NOISY_MASKED_INPUT_REQUEST

    def body(self) -> Sequence[bytes]:
        """Return the plain body, position and shares of each dealer."""
        return (*self.plain.body(), *_encode(self.noise))

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        return cls(MaskedInputRequest.parse(reader), _parse(reader))

    def parts(self) -> Mapping[FrameKind, int]:
        """Everything is shares."""
        return {FrameKind.SHARES: 2 + _size(self.noise) + self.plain.parts()[FrameKind.SHARES]}


@dataclass(frozen=True, slots=True)
class NoisyUnmaskingReply:
    """One share for each owner, and for each survivor the shares of the noise seeds that are to be removed.

    No message names components: which ones a client returns follows from the survivor set that it signed.

    Attributes:
        plain: The reply of a round without excess noise.
        removed: How many components are removed, the last ones of each survivor.
        noise: {owner: its shares, in the order of the components}, ascending.
    """

    plain: UnmaskingReply
    removed: int
    noise: Mapping[int, tuple[NoiseShare, ...]]
    TYPE: ClassVar = FrameType.NOISY_UNMASKING_REPLY

    def body(self) -> Sequence[bytes]:
        """Return the plain body, the number of components, owner and shares of each."""
        entries = (u16(owner) + b"".join(share.expose() for share in self.noise[owner]) for owner in sorted(self.noise))
        return (*self.plain.body(), u8(self.removed), u16(len(self.noise)), *entries)

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        plain, removed = UnmaskingReply.parse(reader), reader.u8()
        noise: dict[int, tuple[NoiseShare, ...]] = {}
        for _ in range(reader.count(2 + NoiseShare.length * removed)):
            owner = reader.u16()
            if noise and owner <= next(reversed(noise)):
                raise DecodeError("positions are not strictly ascending")
            noise[owner] = tuple(NoiseShare(reader.view(NoiseShare.length)) for _ in range(removed))
        return cls(plain, removed, noise)

    def parts(self) -> Mapping[FrameKind, int]:
        """Shares with their owners."""
        own = (2 + NoiseShare.length * self.removed) * len(self.noise)
        return {FrameKind.SHARES: own + self.plain.parts()[FrameKind.SHARES]}


def _encode(noise: Mapping[int, DealtNoise]) -> Sequence[bytes]:
    return (u16(len(noise)), *(u16(position) + noise[position].encode() for position in sorted(noise)))


def _parse(reader: Reader) -> dict[int, DealtNoise]:
    noise: dict[int, DealtNoise] = {}
    for _ in range(reader.count(5)):
        position = reader.u16()
        if noise and position <= next(reversed(noise)):
            raise DecodeError("positions are not strictly ascending")
        noise[position] = DealtNoise.parse(reader)
    return noise


def _size(noise: Mapping[int, DealtNoise]) -> int:
    return sum(2 + dealt_noise_bytes(len(d.commitments), sealed=bool(d.sealed)) for d in noise.values())
