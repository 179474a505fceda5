"""Messages between the two nodes outside of the rounds of the protocol.

A frame is the length of a JSON text (4 bytes, little-endian), the text in canonical form (RFC 8785), then the bytes of
a model where the kind has one. Each kind has declared fields; anything else is refused.
"""

import struct
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from audit.canonical import JSON, CanonicalError, decode_canonical, encode_canonical
from audit.rules import DIGEST, NAME, PROSE, SIGNATURE, TIME, Choice, FieldError, Flag, Integer, ListOf, Record, Text
from protocols.errors import DecodeError

MAX_TEXT: Final = 1 << 20
"""Longest JSON text, in bytes."""


class ControlStage(StrEnum):
    """Stages that are no stage of a round."""

    HELLO = "Hello"
    """Before the first round and after every restart: versions, study, roster; where the site stands."""

    CLOSE_ROUND = "CloseRound"
    """After every round: whether a sum was opened, and over whom."""

    COUNTERSIGN = "CountersignHead"
    """After every round: the log's signed tree head."""

    CLOSE_RUN = "CloseRun"
    """At the end, and whenever a hospital that has not answered can be reached again: the kept model."""


_ROUND = Integer(0, (1 << 32) - 1)
_LAST_ROUND = Integer(-1, (1 << 32) - 1)
_HEAD = Record(
    {
        "format": Choice(("securefed-tree-head/1",)),
        "run_id": NAME,
        "round": Integer(),
        "size": Integer(1),
        "root": DIGEST,
        "time": TIME,
    }
)

REQUESTS: Final[Mapping[ControlStage, Record]] = {
    ControlStage.HELLO: Record(
        {"version": Integer(), "software": NAME, "run_id": NAME, "study": DIGEST, "roster": DIGEST}, {"ended": Flag()}
    ),
    ControlStage.CLOSE_ROUND: Record(
        {"round": _ROUND, "opened": Flag(), "survivors": ListOf(NAME, unique=True), "best": Integer()}
    ),
    ControlStage.COUNTERSIGN: Record({"head": _HEAD, "server": SIGNATURE, "from": Integer(), "proof": ListOf(DIGEST)}),
    ControlStage.CLOSE_RUN: Record({"run_id": NAME, "chosen_round": Integer()}),
}
"""Fields of each request. A Hello with `ended` says that no round of training is to come: it asks for nothing that
costs privacy. Its other fields never change, so that versions that differ are refused by name. CloseRun is followed by
the model, float32[d] little-endian."""

REPLIES: Final[Mapping[ControlStage, Record]] = {
    ControlStage.HELLO: Record(
        {"version": Integer(), "software": NAME, "last_round": _LAST_ROUND, "witnessed": Integer(), "data": DIGEST}
    ),
    ControlStage.CLOSE_ROUND: Record({}),
    ControlStage.COUNTERSIGN: Record(
        {"witnessed": Integer(), "signature": Text(128, "([0-9a-f]{128})?", "signature"), "data": DIGEST}
    ),
    ControlStage.CLOSE_RUN: Record({}),
}
"""Fields of each reply. `witnessed` is the size of the log under the last head that the site signed; a reply to
CountersignHead without a signature asks for a proof from there. `data` is what the site calls the data that it has
approved: said after every round, since its node may have been started anew."""

_REFUSAL = Record({"refused": NAME, "reason": PROSE})


class RefusedBySiteError(Exception):
    """A site refused a message outside of the rounds; `code` names why and `reason` says it in words."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


def encode_request(stage: ControlStage, fields: Mapping[str, JSON], model: bytes = b"") -> bytes:
    """Return a request's frame."""
    return _encode(REQUESTS[stage], fields, model)


def encode_reply(stage: ControlStage, fields: Mapping[str, JSON]) -> bytes:
    """Return a reply's frame."""
    return _encode(REPLIES[stage], fields, b"")


def encode_refusal(code: str, reason: str) -> bytes:
    """Return the frame of a refusal: a name of the kind of reason, and what the admin of the server may read."""
    return _encode(_REFUSAL, {"refused": code, "reason": reason}, b"")


def decode_request(stage: ControlStage, data: bytes) -> tuple[Mapping[str, Any], bytes]:
    """Return a request's fields and model.

    Raises:
        DecodeError: The bytes are no such request.
    """
    value, model = _decode(data)
    _check(REQUESTS[stage], value)
    if model and stage is not ControlStage.CLOSE_RUN:
        raise DecodeError("bytes follow a message that has none")
    return value, model


def decode_reply(stage: ControlStage, data: bytes) -> Mapping[str, Any]:
    """Return a reply's fields.

    Raises:
        RefusedBySiteError: It is a refusal.
        DecodeError: The bytes are no such reply.
    """
    value, rest = _decode(data)
    if rest:
        raise DecodeError("bytes follow a reply")
    if "refused" in value:
        _check(_REFUSAL, value)
        raise RefusedBySiteError(value["refused"], value["reason"])
    _check(REPLIES[stage], value)
    return value


def _encode(rule: Record, fields: Mapping[str, JSON], model: bytes) -> bytes:
    rule.check(fields, "")
    text = encode_canonical(fields)
    return struct.pack("<I", len(text)) + text + model


def _decode(data: bytes) -> tuple[Mapping[str, Any], bytes]:
    if len(data) < 4:
        raise DecodeError("not a control message")
    (length,) = struct.unpack_from("<I", data)
    if length > min(MAX_TEXT, len(data) - 4):
        raise DecodeError("a control message is cut or too long")
    try:
        value = decode_canonical(bytes(data[4 : 4 + length]))
    except CanonicalError as error:
        raise DecodeError("a control message is not in canonical form") from error
    if not isinstance(value, Mapping):
        raise DecodeError("a control message is no object")
    return value, bytes(data[4 + length :])


def _check(rule: Record, value: Mapping[str, JSON]) -> None:
    try:
        rule.check(value, "")
    except FieldError as error:
        raise DecodeError("a control message has other fields than declared") from error
