"""The client: bytes in, bytes out, exactly one state at a time, secrets erased when a state is left for good."""

import logging
from collections.abc import Sequence
from typing import Self

from protocols.client.input_masked import InputMasked
from protocols.client.keys_advertised import KeysAdvertised, NonceRevealed
from protocols.client.session import Contribute, Environment
from protocols.client.shares_dealt import SharesDealt
from protocols.client.state import State, read_session
from protocols.client.survivors_signed import SurvivorsSigned
from protocols.client.waiting import accept_round
from protocols.entropy import Entropy, system_entropy
from protocols.errors import DecodeError, PolicyError, ProtocolError, StageOrderError
from protocols.messages import AdvertiseKeysRequest, Message, Refusal, encode_message
from protocols.messages.limits import FIRST_REQUEST_LIMIT, request_limit
from protocols.participation import Participation
from protocols.policy import ClientPolicy
from protocols.roster import Ed25519Verifier, IdentityKey, Roster, SignatureVerifier
from protocols.session import PayloadDigest
from protocols.stages import Stage
from protocols.wire import FrameType, Reader, decode_frame, u8, u32, u64

_REQUESTS = {
    Stage.ADVERTISE_KEYS: FrameType.ADVERTISE_KEYS_REQUEST,
    Stage.REVEAL_NONCES: FrameType.REVEAL_NONCES_REQUEST,
    Stage.SHARE_KEYS: FrameType.SHARE_KEYS_REQUEST,
    Stage.MASKED_INPUT_COLLECTION: FrameType.MASKED_INPUT_REQUEST,
    Stage.CONSISTENCY_CHECK: FrameType.CONSISTENCY_CHECK_REQUEST,
    Stage.UNMASKING: FrameType.UNMASKING_REQUEST,
}
_STATES: dict[int, type[State]] = {
    state.TAG: state for state in (KeysAdvertised, NonceRevealed, SharesDealt, InputMasked, SurvivorsSigned)
}
_DUMP_MAGIC = b"SFC3"
_REMEMBERED = 64
"""Rounds that were begun and not dealt for, of which a request that comes again is known."""
_log = logging.getLogger(__name__)


class ClientMachine:
    """One client over the rounds of one run.

    Rules of the machine:

    - AdvertiseKeys of a round above all in which shares were dealt, and none of the last that were begun, is accepted
      in any state; an unfinished round is erased first.
    - Any other request must be of the expected stage, round and session, else it is refused and nothing changes.
    - An expected request that is refused ends the round: its secrets are erased and the round cannot be repeated.
    - After Unmasking nothing of the round is left.

    Args:
        identity: This client's signing key; its name is the one that the roster gives this key.
        roster: All clients, as pinned out of band.
        policy: What this client insists on.
        contribute: Trains and encodes; called at MaskedInputCollection.
        entropy: Cryptographic source.
        verifier: Checks signatures.
        digest: Hashes what it receives; `payload_digest` by default.
        last_round: The last round of this run in which the client dealt shares, -1 before the first.
        begun: Rounds above `last_round` for which it advertised keys.
        participation: The sums that it has helped to open; new by default.
        rings: Nonces that it has revealed since it last helped to open a sum.

    Raises:
        ParameterError: The identity is not in the roster.
    """

    def __init__(
        self,
        identity: IdentityKey,
        roster: Roster,
        policy: ClientPolicy,
        contribute: Contribute,
        entropy: Entropy = system_entropy,
        *,
        verifier: SignatureVerifier | None = None,
        digest: PayloadDigest | None = None,
        last_round: int = -1,
        participation: Participation | None = None,
        rings: int = 0,
        begun: Sequence[int] = (),
    ) -> None:
        name = roster.name_of(identity.public)
        self.participation = participation or Participation(policy.min_honest_survivors)
        self._environment = Environment(
            name,
            identity,
            roster,
            policy,
            contribute,
            entropy,
            verifier or Ed25519Verifier(),
            self.participation,
            digest,
        )
        self._state: State | None = None
        self._last_round = last_round
        self._rings = rings
        self._begun = tuple(begun)

    @property
    def name(self) -> str:
        """The client's name in the roster."""
        return self._environment.name

    @property
    def expects(self) -> Stage:
        """The stage that continues the round; AdvertiseKeys between rounds."""
        return Stage.ADVERTISE_KEYS if self._state is None else self._state.expects

    @property
    def last_round(self) -> int:
        """The largest round that this client knows of: the last in which it dealt shares, or the last begun."""
        return max((self._last_round, *self._begun))

    def handle(self, stage: str, data: bytes) -> bytes:
        """Answer one request.

        Args:
            stage: Name of the stage, as the transport says.
            data: The request's frame.

        Returns:
            The reply's frame.

        Raises:
            StageOrderError: Another stage, round or session than expected; nothing has changed.
            ProtocolError: The request is refused; the round's secrets are erased.
        """
        if stage == Stage.ADVERTISE_KEYS.value:
            return self._begin(data)
        state = self._state
        if state is None or stage != state.expects.value:
            raise StageOrderError(self.expects.value, _known(stage))
        self._check_order(state, data)
        return self._advance(state, data)

    def answer(self, stage: str, data: bytes) -> bytes:
        """Answer one request, with a refusal frame where `handle` raises a `ProtocolError`; the log here says why."""
        state, last_round = self._state, self.last_round
        try:
            return self.handle(stage, data)
        except ProtocolError as error:
            _log.warning("%s refuses %s: %s: %s", self.name, _known(stage), type(error).__name__, str(error))
            session_id = bytes(32) if state is None else state.session.session_id
            return encode_message(Refusal.of(error, self._positions(state)), max(last_round, 0), session_id)

    def abandon(self) -> None:
        """End the round on this side and erase its secrets; the round cannot be repeated."""
        if self._state is not None:
            self._state.erase()
            self._state = None

    def dump(self, *, secrets: bool = True) -> bytes:
        """Return the machine's state for a process that serves one message only.

        Args:
            secrets: Without them a machine that is loaded has left the round in progress: it cannot answer its further
                stages, and takes part again from the next one. Rounds and sums that it must remember are in either.

        Secrecy: the bytes hold the round's secrets in clear. They must never leave the client's memory or its protected
        storage, and an older dump must never be loaded after a newer one: a repeated stage would spend pads twice.
        """
        state = b"" if self._state is None or not secrets else self._state.dump()
        sums = self.participation.encode(self._environment.roster)
        begun = u32(len(self._begun)) + b"".join(map(u64, self._begun))
        head = _DUMP_MAGIC + u64(self._last_round + 1) + begun + u32(self._rings) + u32(len(sums)) + sums
        return head + u8(1 if state else 0) + state

    @classmethod
    def load(
        cls,
        data: bytes,
        identity: IdentityKey,
        roster: Roster,
        policy: ClientPolicy,
        contribute: Contribute,
        entropy: Entropy = system_entropy,
        *,
        verifier: SignatureVerifier | None = None,
    ) -> Self:
        """Rebuild a machine from its newest dump.

        Raises:
            DecodeError: The bytes are not a dump.
        """
        reader = Reader(data)
        magic = reader.take(len(_DUMP_MAGIC))
        if magic != _DUMP_MAGIC:
            other = magic[:3] == _DUMP_MAGIC[:3]
            raise DecodeError(
                "a state of another version; end the study with that one" if other else "not a client's state"
            )
        last_round, begun = reader.u64() - 1, [reader.u64() for _ in range(reader.u32())]
        rings = reader.u32()
        sums = Participation.decode(reader.view(reader.u32()), policy.min_honest_survivors, roster)
        machine = cls(
            identity,
            roster,
            policy,
            contribute,
            entropy,
            verifier=verifier,
            last_round=last_round,
            participation=sums,
            rings=rings,
            begun=begun,
        )
        if reader.u8():
            kind = _STATES.get(reader.u8())
            if kind is None:
                raise DecodeError("unknown state")
            machine._state = kind.read(read_session(reader), reader)
        reader.done()
        return machine

    def _begin(self, data: bytes) -> bytes:
        header, reader = decode_frame(data, FIRST_REQUEST_LIMIT)
        if header.type is not FrameType.ADVERTISE_KEYS_REQUEST:
            raise DecodeError("another type of frame than expected here")
        if header.round <= self._last_round or header.round in self._begun:
            raise StageOrderError(f"a round after {self._last_round}, not begun before", f"round {header.round}")
        request = AdvertiseKeysRequest.parse(reader)
        reader.done()
        state, reply = accept_round(request, header, self._environment)
        if state.expects is Stage.REVEAL_NONCES and self._rings >= self._environment.policy.max_rings:
            state.erase()  # before it commits: a nonce that is missing later ends the round for all (M-37)
            raise self._too_many_rings()
        self.abandon()
        self._begun = (*self._begun, header.round)[-_REMEMBERED:]
        self._state = state
        return self._frame(state, reply)

    def _check_order(self, state: State, data: bytes) -> None:
        header, _ = decode_frame(data, request_limit(state.expects, state.session.parameters))
        if header.type is not _request_type(state):
            raise StageOrderError(state.expects.value, header.type.name)
        if header.round != state.session.parameters.round:
            raise StageOrderError(f"round {state.session.parameters.round}", f"round {header.round}")
        if header.session_id != state.session.session_id:
            raise StageOrderError("this session", "another session")

    def _advance(self, state: State, data: bytes) -> bytes:
        """Commit the next state on success; on every failure, of whatever kind, erase the round."""
        succeeded = False
        try:
            reveals = state.expects is Stage.REVEAL_NONCES
            if reveals and self._rings >= self._environment.policy.max_rings:
                raise self._too_many_rings()
            following, reply = state.handle(data, self._environment)
            frame = self._frame(state, reply)
            self._rings += reveals
            succeeded = True
        finally:
            if not succeeded:
                self.abandon()
        self._state = following
        if state.expects is Stage.SHARE_KEYS:  # only now: the request that begins a round is signed by nobody
            self._last_round = state.session.parameters.round
            self._begun = tuple(number for number in self._begun if number > self._last_round)
        if following is None:
            state.erase()
            self._rings = 0
        return frame

    def _too_many_rings(self) -> PolicyError:
        most = self._environment.policy.max_rings
        return PolicyError("rings in a row that opened nothing", self._rings, f"fewer than {most}; begin a new study")

    def _frame(self, state: State, reply: Message) -> bytes:
        return encode_message(reply, state.session.parameters.round, state.session.session_id)

    def _positions(self, state: State | None) -> dict[str, int]:
        if state is None:
            return {}
        roster = self._environment.roster
        return {roster.names[place]: i for i, place in enumerate(state.session.parameters.cohort)}


def _request_type(state: State) -> FrameType:
    if state.expects is Stage.MASKED_INPUT_COLLECTION and state.session.parameters.excess:
        return FrameType.NOISY_MASKED_INPUT_REQUEST
    return _REQUESTS[state.expects]


def _known(stage: str) -> str:
    """A stage's name if it is one, so that no free text from a transport enters an error."""
    return stage if stage in {known.value for known in Stage} else "an unknown stage"
