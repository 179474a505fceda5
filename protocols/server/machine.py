"""The server: requests out, replies in, one state at a time; every frame counted, every rejection kept by name."""

from collections.abc import Collection, Mapping

from protocols.errors import (
    AuthenticationError,
    ParameterError,
    ProtocolError,
    RefusedError,
    SessionMismatchError,
    StageOrderError,
)
from protocols.messages import Refusal, decode_message, encode_message, frame_type
from protocols.messages.limits import reply_limit
from protocols.parameters import RoundParameters
from protocols.result import Direction, FrameRecord, Rejection, RoundResult, account
from protocols.roster import Ed25519Verifier, Roster, SignatureVerifier
from protocols.server.consistency_check import CheckingConsistency
from protocols.server.input_collection import CollectingInputs
from protocols.server.key_collection import CollectingKeys
from protocols.server.session import ExcessNoise, ServerSession
from protocols.server.state import ServerState
from protocols.server.unmasking import Unmasking
from protocols.session import payload_digest, session_id
from protocols.stages import Stage
from protocols.wire import HEADER_BYTES, FrameType, decode_frame


class ServerMachine:
    """One round at the server.

    For each stage in `stages`: send `requests(stage)`, hand each reply to `absorb` as it comes, then `conclude(stage)`.

    Args:
        parameters: The round's parameters.
        roster: All clients, the same at every client.
        payload: The global model's bytes, opaque here.
        verifier: Checks signatures.
        excess_noise: The codec of a round whose excess noise is removed.
        left_out: Clients of the cohort that are not asked: they count as lost at AdvertiseKeys.

    Raises:
        ParameterError: The parameters belong to another roster, or excess noise could not be removed.
    """

    def __init__(
        self,
        parameters: RoundParameters,
        roster: Roster,
        payload: bytes,
        *,
        verifier: SignatureVerifier | None = None,
        excess_noise: ExcessNoise | None = None,
        left_out: Collection[str] = (),
    ) -> None:
        if parameters.excess and excess_noise is None:
            raise ParameterError("excess", "needs the codec, to take the noise out of the sum")
        if parameters.roster_digest != roster.digest or parameters.cohort[-1] >= len(roster):
            raise ParameterError("roster_digest", "the parameters belong to another roster")
        self.parameters = parameters
        self._session = ServerSession(
            parameters,
            roster,
            payload,
            session_id(parameters, payload_digest(payload)),
            verifier or Ed25519Verifier(),
            excess_noise,
        )
        self._state: ServerState | None = CollectingKeys(self._session)
        self._positions = {self._session.name(position): position for position in range(parameters.clients)}
        self._asked: set[int] = set()
        self._answered: set[int] = set()
        self._accepted: set[int] = set()
        self._frames: list[FrameRecord] = []
        self._rejections: list[Rejection] = []
        self._left_out = frozenset(left_out) & self._positions.keys()
        self._dropouts = dict.fromkeys(sorted(self._left_out), Stage.ADVERTISE_KEYS.value)
        self._complaints: dict[int, tuple[int, ...]] = {}
        self._result: RoundResult | None = None

    @property
    def session_id(self) -> bytes:
        """32 bytes."""
        return self._session.session_id

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of this round, in order."""
        return self.parameters.stages

    @property
    def frames(self) -> tuple[FrameRecord, ...]:
        """Every frame so far."""
        return tuple(self._frames)

    @property
    def dropouts(self) -> Mapping[str, str]:
        """{client: stage at which it was lost} so far."""
        return dict(self._dropouts)

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """What was not accepted so far, and from whom."""
        return tuple(self._rejections)

    @property
    def survivors(self) -> tuple[str, ...]:
        """Names of the clients whose vectors are in the sum, in the order of the cohort.

        Raises:
            StageOrderError: Vectors are still to come.
        """
        state = self._state
        if isinstance(state, CheckingConsistency | Unmasking):
            return tuple(self._session.name(position) for position in sorted(state.survivors.positions))
        raise StageOrderError(Stage.CONSISTENCY_CHECK.value, "nothing more" if state is None else state.stage.value)

    @property
    def result(self) -> RoundResult | None:
        """The finished round, None before."""
        return self._result

    def requests(self, stage: str) -> dict[str, bytes]:
        """Return {client: frame} for one stage; counted as sent.

        Raises:
            StageOrderError: It is not this stage's turn.
        """
        state = self._at(stage)
        encoded: dict[int, bytes] = {}
        frames: dict[str, bytes] = {}
        for position, message in state.requests().items():
            if id(message) not in encoded:
                encoded[id(message)] = encode_message(message, self.parameters.round, self.session_id)
            name, frame = self._session.name(position), encoded[id(message)]
            if name in self._left_out:
                continue
            frames[name] = frame
            self._asked.add(position)
            self._frames.extend(account(name, Direction.DOWN, stage, frame, message))
        return frames

    def absorb(self, stage: str, replies: Mapping[str, bytes]) -> None:
        """Take in replies, one or many. A refused reply is recorded under its sender's name and harms nobody else.

        Bytes are counted of the cohort's clients alone: what comes under another name is no part of the round.

        Raises:
            StageOrderError: It is not this stage's turn.
        """
        state = self._at(stage)
        for name, data in replies.items():
            try:
                self._absorb_one(state, name, data)
            except ProtocolError as error:
                if name in self._positions:
                    self._frames.extend(account(name, Direction.UP, stage, data, None))
                self._rejections.append(Rejection(name, stage, error))

    def conclude(self, stage: str) -> None:
        """End a stage: who has not answered is lost.

        Raises:
            StageOrderError: It is not this stage's turn.
            TooFewSurvivorsError: Too few are left; nothing was revealed.
            ReconstructionError, AggregateError: The sum cannot be opened.
        """
        state = self._at(stage)
        for position in sorted(self._asked - self._accepted):
            self._dropouts.setdefault(self._session.name(position), stage)
        self._asked, self._answered, self._accepted = set(), set(), set()
        self._state = None
        following = state.conclude()
        if isinstance(state, CollectingInputs):
            self._complaints = state.complaints
        if isinstance(state, Unmasking):
            self._finish(state)
        self._state = following

    def _absorb_one(self, state: ServerState, name: str, data: bytes) -> None:
        stage, position = state.stage.value, self._positions.get(name)
        if position is None or position not in self._asked:
            raise AuthenticationError("sender", "a client that was not asked")
        if position in self._answered:
            raise StageOrderError(f"one reply to {stage}", "a second one")
        self._answered.add(position)
        self._check_header(name, data, state.stage)
        message = state.absorb(position, data)
        self._accepted.add(position)
        self._frames.extend(account(name, Direction.UP, stage, data, message))
        if isinstance(state, Unmasking) and position in state.wrong_shares:
            for owner in state.wrong_shares[position]:
                error = AuthenticationError(f"share of {self._session.name(owner)}", name)
                self._rejections.append(Rejection(name, stage, error))

    def _check_header(self, name: str, data: bytes, stage: Stage) -> None:
        if frame_type(data) is FrameType.REFUSAL:
            refusal = decode_message(Refusal, data, HEADER_BYTES + 4)[1]
            known = refusal.subject < self.parameters.clients
            raise RefusedError(refusal.code, self._session.name(refusal.subject) if known else None)
        header, _ = decode_frame(data, reply_limit(stage, self.parameters))
        if header.round != self.parameters.round:
            raise StageOrderError(f"round {self.parameters.round}", f"round {header.round}")
        if header.session_id != self.session_id:
            raise SessionMismatchError(name)

    def _finish(self, state: Unmasking) -> None:
        assert state.total is not None  # noqa: S101 (conclude returned)
        names = self._session.name
        self._result = RoundResult(
            state.total,
            tuple(names(position) for position in sorted(state.survivors.positions)),
            self.dropouts,
            self.frames,
            self.rejections,
            {names(client): tuple(names(dealer) for dealer in dealers) for client, dealers in self._complaints.items()},
            self.parameters,
            self.session_id,
        )

    def _at(self, stage: str) -> ServerState:
        if self._state is None or self._state.stage.value != stage:
            raise StageOrderError("nothing more" if self._state is None else self._state.stage.value, stage)
        return self._state
