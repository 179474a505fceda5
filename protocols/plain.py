"""The same round without secure aggregation: vectors in clear, the same encoding, the same survivors, the same total.

The server sees every contribution. The path is there to compare with, and for data that needs no protection.
"""

from collections.abc import Iterable, Iterator

from protocols.client.session import Contribute, RoundContext
from protocols.errors import (
    AuthenticationError,
    DecodeError,
    ParameterError,
    ProtocolError,
    RefusedError,
    SessionMismatchError,
    StageOrderError,
    TooFewSurvivorsError,
)
from protocols.masking import RunningSum
from protocols.messages import PlainInputReply, PlainInputRequest, Refusal, decode_message, encode_message, frame_type
from protocols.messages.limits import FIRST_REQUEST_LIMIT, reply_limit
from protocols.packing import pack, unpack
from protocols.parameters import RoundParameters
from protocols.result import Direction, FrameRecord, Rejection, RoundResult, account, refusals
from protocols.ring import lane_dtype
from protocols.roster import Roster
from protocols.stages import Stage
from protocols.transport import DEFAULT_PATIENCE, Patience, Transport
from protocols.vectors import MaskedVector, NoisyVector
from protocols.wire import HEADER_BYTES, FrameType, decode_frame

STAGE = Stage.PLAIN_INPUT_COLLECTION.value
NO_SESSION = bytes(32)


def plain_width(parameters: RoundParameters) -> int:
    """Return the bits of a coordinate in clear: those of one client's largest, or with noise all of the ring."""
    return parameters.ring_bits if parameters.is_noisy else parameters.max_coordinate.bit_length()


class PlainClient:
    """A client of a plain round.

    Args:
        name: Its name in the roster.
        contribute: Trains and encodes.
    """

    def __init__(self, name: str, contribute: Contribute) -> None:
        self.name = name
        self._contribute = contribute

    def answer(self, stage: str, data: bytes) -> bytes:
        """Return the encoded vector, or a refusal."""
        number = 0
        try:
            if stage != STAGE:
                raise DecodeError("a plain client knows one stage only")
            header, request = decode_message(PlainInputRequest, data, FIRST_REQUEST_LIMIT)
            number, parameters = header.round, RoundParameters.decode(request.parameters)
            return self._reply(RoundContext(number, request.payload, parameters, self.name))
        except ProtocolError as error:
            return encode_message(Refusal.of(error, {}), number, NO_SESSION)

    def _reply(self, context: RoundContext) -> bytes:
        parameters, encoded = context.parameters, self._contribute(context)
        if len(encoded) != parameters.vector_length or encoded.max_coordinate > parameters.max_coordinate:
            raise DecodeError("the contribution is of another codec")
        if isinstance(encoded, NoisyVector) is not parameters.is_noisy:
            raise DecodeError("the contribution has noise in a round without, or none in a round with noise")
        width = plain_width(parameters)
        packed = pack(encoded.lanes(width), width)
        return encode_message(PlainInputReply(width, len(encoded), packed), context.round, NO_SESSION)


def run_plain_round(
    parameters: RoundParameters,
    roster: Roster,
    payload: bytes,
    transport: Transport,
    patience: Patience = DEFAULT_PATIENCE,
) -> RoundResult:
    """Gather and add encoded vectors in clear.

    Raises:
        ParameterError: Noise should be removed, for which secrets would have to be shared.
        TooFewSurvivorsError: Nobody answered.
    """
    if parameters.excess:
        raise ParameterError("excess", "noise is removed under secure aggregation only")
    names, frames, replies = ask_in_clear(parameters, roster, payload, transport, patience)
    attendance = Attendance(names, parameters.round)
    running = RunningSum(parameters.vector_length, parameters.ring_bits)
    survivors: list[str] = []
    rejections: list[Rejection] = []
    for name, reply in replies:
        message: PlainInputReply | None = None
        try:
            attendance.check(name, reply, reply_limit(Stage.PLAIN_INPUT_COLLECTION, parameters))
            message = _take(parameters, reply)
            running.add(_widen(message, parameters))
            survivors.append(name)
        except ProtocolError as error:
            rejections.append(Rejection(name, STAGE, error))
        if name in names:
            frames.extend(account(name, Direction.UP, STAGE, reply, message))
    if not survivors:
        raise TooFewSurvivorsError(STAGE, 0, 1, refusals(rejections), frames)
    total = running.open(len(survivors), parameters.max_coordinate, parameters.noise_tail)
    dropouts = {name: STAGE for name in names if name not in survivors}
    ordered = tuple(name for name in names if name in survivors)
    return RoundResult(total, ordered, dropouts, tuple(frames), tuple(rejections), {}, parameters, NO_SESSION)


def ask_in_clear(
    parameters: RoundParameters, roster: Roster, payload: bytes, transport: Transport, patience: Patience
) -> tuple[tuple[str, ...], list[FrameRecord], Iterator[tuple[str, bytes]]]:
    """Send the request of a round in clear to its cohort.

    Returns:
        The names of the cohort, the accounts of what was sent, and the replies as they come.
    """
    request = PlainInputRequest(parameters.encode(), payload)
    frame = encode_message(request, parameters.round, NO_SESSION)
    names = roster.select(parameters.cohort)
    frames: list[FrameRecord] = []
    for name in names:
        frames.extend(account(name, Direction.DOWN, STAGE, frame, request))
    replies, _ = transport.exchange(
        STAGE,
        dict.fromkeys(names, frame),
        round_id=parameters.round,
        patience=patience,
    )
    return names, frames, replies


class Attendance:
    """Whose replies a round in clear takes: the first of each client that was asked, of this round (SPEC.md, M-30).

    Args:
        asked: Names of the clients.
        number: The round.
    """

    def __init__(self, asked: Iterable[str], number: int) -> None:
        self._asked = frozenset(asked)
        self._number = number
        self._answered: set[str] = set()

    def check(self, name: str, reply: bytes, limit: int) -> None:
        """Refuse a reply of at most `limit` bytes that is not to be taken; whatever it is, no other of its name is.

        Raises:
            AuthenticationError: It is of nobody who was asked.
            StageOrderError: It is a second one, or of another round.
            SessionMismatchError: It is of a round under masks.
            RefusedError: It is a refusal.
            DecodeError: It is no frame.
        """
        if name not in self._asked:
            raise AuthenticationError("sender", "a client that was not asked")
        if name in self._answered:
            raise StageOrderError(f"one reply to {STAGE}", "a second one")
        self._answered.add(name)
        if frame_type(reply) is FrameType.REFUSAL:
            raise RefusedError(decode_message(Refusal, reply, HEADER_BYTES + 4)[1].code, None)
        header, _ = decode_frame(reply, limit)
        if header.round != self._number:
            raise StageOrderError(f"round {self._number}", f"round {header.round}")
        if header.session_id != NO_SESSION:
            raise SessionMismatchError(name)


def _take(parameters: RoundParameters, reply: bytes) -> PlainInputReply:
    _, message = decode_message(PlainInputReply, reply, reply_limit(Stage.PLAIN_INPUT_COLLECTION, parameters))
    if (message.width, message.length) != (plain_width(parameters), parameters.vector_length):
        raise DecodeError("the vector is of another width or length")
    return message


def _widen(message: PlainInputReply, parameters: RoundParameters) -> MaskedVector:
    """The plain vector as ring elements, for the same running sum."""
    lanes = unpack(message.packed, message.length, message.width).astype(lane_dtype(parameters.ring_bits))
    return MaskedVector(lanes, parameters.ring_bits)
