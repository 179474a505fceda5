"""CloseRound: what a server tells every site once a round is over, and the site's answer.

Without it a site would not know whether the sum holds its vector. The frames are JSON (RFC 8785), strictly read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from audit.canonical import CanonicalError, decode_canonical, encode_canonical
from audit.rules import NAME, Choice, FieldError, Flag, Integer, ListOf, Record
from protocols.errors import DecodeError

STAGE: Final = "CloseRound"
_FORMAT = "securefed-close-round/1"
_RULE = Record(
    {
        "format": Choice((_FORMAT,)),
        "round": Integer(1),
        "opened": Flag(),
        "survivors": ListOf(NAME, unique=True),
    }
)


@dataclass(frozen=True)
class CloseRound:
    """How a round of the protocol ended.

    Attributes:
        round: The protocol's number of the round.
        opened: Whether a sum was opened.
        survivors: Sites in the sum; empty where none was opened.
    """

    round: int
    opened: bool
    survivors: tuple[str, ...]

    def encode(self) -> bytes:
        """Return the request's bytes."""
        return encode_canonical(
            {"format": _FORMAT, "round": self.round, "opened": self.opened, "survivors": list(self.survivors)}
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a request.

        Raises:
            DecodeError: The bytes are none.
        """
        try:
            value = decode_canonical(data)
            _RULE.check(value, "")
        except (CanonicalError, FieldError) as error:
            raise DecodeError("not a CloseRound") from error
        assert isinstance(value, Mapping)  # noqa: S101 (narrows the type)
        number, names = value["round"], value["survivors"]
        assert isinstance(number, int)  # noqa: S101
        assert isinstance(names, list)  # noqa: S101
        return cls(number, value["opened"] is True, tuple(str(name) for name in names))
