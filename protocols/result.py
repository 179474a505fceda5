"""What a round yields: the total, who is in it, who was lost where and why, and every frame counted on its bytes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from protocols.errors import ProtocolError, RefusedError
from protocols.messages import FrameKind, Message
from protocols.parameters import RoundParameters
from protocols.vectors import Aggregate


class Direction(StrEnum):
    """Which way a frame goes, seen from the client."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """The bytes of one kind in one frame; the records of a frame add up to its length.

    Attributes:
        client: Name of the client at the other end.
        direction: Up (client to server) or down.
        stage: Name of the stage.
        kind: What the bytes are for.
        bytes: How many.
    """

    client: str
    direction: Direction
    stage: str
    kind: FrameKind
    bytes: int


def account(
    client: str, direction: Direction, stage: str, frame: bytes, message: Message | None
) -> Iterable[FrameRecord]:
    """Split one frame's length into kinds; a frame that could not be read is overhead.

    Yields:
        One record for each kind that occurs.
    """
    parts: Mapping[FrameKind, int] = {} if message is None else message.parts()
    overhead = {FrameKind.OVERHEAD: len(frame) - sum(parts.values())}
    for kind, size in {**parts, **overhead}.items():
        if size:
            yield FrameRecord(client, direction, stage, kind, size)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Something of one client that the server did not accept.

    Attributes:
        client: Who sent it.
        stage: Name of the stage.
        error: Why; `error.code` is the class of reasons.
    """

    client: str
    stage: str
    error: ProtocolError


def refusals(rejections: Iterable[Rejection]) -> dict[str, int]:
    """Return {client: class of its reason} of the clients that answered with a refusal."""
    return {r.client: r.error.refusal_code for r in rejections if isinstance(r.error, RefusedError)}


@dataclass(frozen=True, slots=True, eq=False)
class RoundResult:
    """A finished round.

    Attributes:
        total: The opened sum of the survivors' encoded vectors.
        survivors: Names of the clients whose vectors are in the sum, in the order of the cohort.
        dropouts: {client: stage at which it was lost}. A client lost after MaskedInputCollection is still in the sum.
        frames: Every frame, in the order in which it passed.
        rejections: What was not accepted, and from whom.
        complaints: {client: dealers whose shares it could not use}.
        parameters: The round's parameters.
        session_id: 32 bytes; zero bytes without secure aggregation.
    """

    total: Aggregate
    survivors: tuple[str, ...]
    dropouts: Mapping[str, str]
    frames: tuple[FrameRecord, ...]
    rejections: tuple[Rejection, ...]
    complaints: Mapping[str, tuple[str, ...]]
    parameters: RoundParameters
    session_id: bytes
