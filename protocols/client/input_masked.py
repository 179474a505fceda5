"""InputMasked: the masked vector is out and own secrets are erased; one kind of each share held for others will go."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from protocols.client.noise_shares import HeldNoise, noise_fields, read_noise
from protocols.client.received_shares import ShareOf, held_secrets, read_shares, return_all, share_fields
from protocols.client.session import ClientSession, Environment
from protocols.client.state import State
from protocols.client.survivors_signed import SurvivorsSigned
from protocols.errors import SurvivorSetError, TooFewSurvivorsError
from protocols.graph import CompleteGraph, RingGraph, ring_order
from protocols.messages import (
    ConsistencyCheckReply,
    ConsistencyCheckRequest,
    Message,
    UnmaskingRequest,
    decode_message,
)
from protocols.messages.consistency import SurvivorSet
from protocols.messages.limits import request_limit
from protocols.secret_values import Secret
from protocols.session import SessionKeys
from protocols.stages import Stage
from protocols.statements import survivors_message
from protocols.wire import Reader


class InputMasked(State):
    """The vector is masked and sent.

    Args:
        session: The round.
        keys_digest: 32 bytes.
        dealers: Positions of the clients that share a pad with this one.
        shares: {owner: its shares}; the client itself among the owners on a complete graph.
        noise: {owner: its shares of noise seeds}; empty where no noise is removed.
    """

    TAG = 4

    def __init__(
        self,
        session: ClientSession,
        keys_digest: bytes,
        dealers: frozenset[int],
        shares: Mapping[int, ShareOf],
        noise: HeldNoise,
    ) -> None:
        super().__init__(session)
        self._keys = SessionKeys(session.session_id, keys_digest)
        self._dealers = dealers
        self._shares = shares
        self._noise = noise

    @property
    def expects(self) -> Stage:
        """ConsistencyCheck against an active adversary, else Unmasking."""
        return Stage.CONSISTENCY_CHECK if self.session.is_active else Stage.UNMASKING

    def _handle(self, data: bytes, environment: Environment) -> tuple[State | None, Message]:
        limit = request_limit(self.expects, self.session.parameters)
        if not self.session.is_active:
            request = decode_message(UnmaskingRequest, data, limit)[1]
            if request.signatures:
                raise SurvivorSetError("a semi-honest round has no signatures")
            self._check_survivors(request.survivors, environment)
            names = self.session.names(request.survivors.positions, environment.roster)
            environment.participation.add(self.session.model_digest, names)
            return None, return_all(self._shares, self._noise, request.survivors, self.session.parameters)
        survivors = decode_message(ConsistencyCheckRequest, data, limit)[1].survivors
        self._check_survivors(survivors, environment)
        signature = environment.identity.sign(survivors_message(self._keys, survivors))
        following = SurvivorsSigned(self.session, self._keys.keys_digest, self._shares, self._noise, survivors)
        self._shares, self._noise = {}, {}
        return following, ConsistencyCheckReply(signature)

    def _check_survivors(self, survivors: SurvivorSet, environment: Environment) -> None:
        parameters = self.session.parameters
        if survivors.clients != parameters.clients:
            raise SurvivorSetError("the survivor set is of another cohort")
        if self.session.position not in survivors.positions:
            raise SurvivorSetError("the server counts this client as dropped, though it sent its vector")
        if not self._dealers >= survivors.positions.intersection(self._neighbours()):
            raise SurvivorSetError("the server counts a client as a survivor that never shared its keys")
        if len(survivors.positions) < parameters.min_survivors:
            raise TooFewSurvivorsError(self.expects.value, len(survivors.positions), parameters.min_survivors)
        holders = len(self._dealers & survivors.positions) + (1 if parameters.is_complete else 0)
        if holders < parameters.threshold:
            raise TooFewSurvivorsError(self.expects.value, holders, parameters.threshold)
        names = self.session.names(survivors.positions, environment.roster)
        environment.participation.check(self.session.model_digest, names)

    def _neighbours(self) -> Sequence[int]:
        """All clients that could share a pad with this one, whether it was shown their keys or not."""
        parameters = self.session.parameters
        if parameters.is_complete:
            return CompleteGraph(parameters.clients).neighbours(self.session.position)
        order = ring_order(self._keys.keys_digest, parameters.clients)
        return RingGraph(order, parameters.neighbours).neighbours(self.session.position)

    def _secrets(self) -> Iterable[Secret]:
        return held_secrets(self._shares, self._noise)

    def _fields(self) -> Iterable[bytes]:
        yield self._keys.keys_digest
        yield SurvivorSet.of(self.session.parameters.clients, self._dealers).encode()
        yield from share_fields(self._shares)
        yield from noise_fields(self._noise)

    @classmethod
    def read(cls, session: ClientSession, reader: Reader) -> Self:
        """Rebuild the state from a dump."""
        keys_digest, dealers = reader.take(32), SurvivorSet.parse(reader).positions
        return cls(session, keys_digest, dealers, read_shares(reader), read_noise(reader))
