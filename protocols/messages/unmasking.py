"""Unmasking: survivor set and signatures down; up, for each owner, one share of one kind: both cannot be said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from protocols.errors import DecodeError
from protocols.messages.consistency import SurvivorSet
from protocols.messages.frames import FrameKind
from protocols.roster import SIGNATURE_BYTES
from protocols.secret_values import MaskKeyShare, SelfMaskShare
from protocols.wire import FrameType, Reader, u8, u16

_SELF_MASK = 1
_MASK_KEY = 2


@dataclass(frozen=True, slots=True)
class UnmaskingRequest:
    """The survivor set and the signatures that holders of the receiver's shares put under it.

    No message names the shares that the server wants: what a client returns follows from the set that it signed.

    Attributes:
        survivors: The set.
        signatures: {position: signature}, ascending; empty in a semi-honest round.
    """

    survivors: SurvivorSet
    signatures: Mapping[int, bytes]
    TYPE: ClassVar = FrameType.UNMASKING_REQUEST

    def body(self) -> Sequence[bytes]:
        """Return the set, the count, position and signature of each."""
        entries = (u16(position) + self.signatures[position] for position in sorted(self.signatures))
        return (self.survivors.encode(), u16(len(self.signatures)), *entries)

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        survivors = SurvivorSet.parse(reader)
        signatures: dict[int, bytes] = {}
        for _ in range(reader.count(2 + SIGNATURE_BYTES)):
            position = reader.u16()
            if signatures and position <= next(reversed(signatures)):
                raise DecodeError("positions are not strictly ascending")
            signatures[position] = reader.take(SIGNATURE_BYTES)
        return cls(survivors, signatures)

    def parts(self) -> Mapping[FrameKind, int]:
        """Signatures with their positions."""
        return {FrameKind.SIGNATURES: (2 + SIGNATURE_BYTES) * len(self.signatures)}


@dataclass(frozen=True, slots=True)
class UnmaskingReply:
    """One share for each owner: of its self-mask seed if it survived, of its mask key if it did not.

    Attributes:
        shares: {owner: share}, ascending.
    """

    shares: Mapping[int, SelfMaskShare | MaskKeyShare]
    TYPE: ClassVar = FrameType.UNMASKING_REPLY

    def body(self) -> Sequence[bytes]:
        """Return the count; owner, kind and share of each."""
        entries = (
            u16(owner) + u8(_SELF_MASK if isinstance(share, SelfMaskShare) else _MASK_KEY) + share.expose()
            for owner, share in sorted(self.shares.items())
        )
        return (u16(len(self.shares)), *entries)

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        shares: dict[int, SelfMaskShare | MaskKeyShare] = {}
        for _ in range(reader.count(3 + SelfMaskShare.length)):
            owner, kind = reader.u16(), reader.u8()
            if shares and owner <= next(reversed(shares)):
                raise DecodeError("positions are not strictly ascending")
            if kind not in (_SELF_MASK, _MASK_KEY):
                raise DecodeError("unknown kind of share")
            data = reader.view(SelfMaskShare.length)
            shares[owner] = SelfMaskShare(data) if kind == _SELF_MASK else MaskKeyShare(data)
        return cls(shares)

    def parts(self) -> Mapping[FrameKind, int]:
        """Shares with their owners."""
        return {FrameKind.SHARES: (3 + SelfMaskShare.length) * len(self.shares)}
