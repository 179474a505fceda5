"""What travels instead of a reply when a client refuses: the class of the reason and whom it names, no text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from protocols.errors import ProtocolError
from protocols.messages.frames import FrameKind
from protocols.wire import FrameType, Reader, u16

NOBODY = 0xFFFF


@dataclass(frozen=True, slots=True)
class Refusal:
    """A client's refusal.

    Attributes:
        code: `ProtocolError.code` of the reason.
        subject: Position of the client that it names, or 0xFFFF.
    """

    code: int
    subject: int = NOBODY
    TYPE: ClassVar = FrameType.REFUSAL

    @classmethod
    def of(cls, error: ProtocolError, positions: Mapping[str, int]) -> Self:
        """Return the refusal for an error; `positions` places the client whom it names."""
        subject = getattr(error, "peer", None) or getattr(error, "owner", None)
        return cls(error.code, positions.get(subject, NOBODY) if isinstance(subject, str) else NOBODY)

    def body(self) -> Sequence[bytes]:
        """Return code and subject."""
        return (u16(self.code), u16(self.subject))

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a body.

        Raises:
            DecodeError: The bytes are not such a body.
        """
        return cls(reader.u16(), reader.u16())

    def parts(self) -> Mapping[FrameKind, int]:
        """All is overhead."""
        return {}
