"""SurvivorsSigned: this client signed one survivor set; it reveals shares only where a quorum signed the same."""

from collections.abc import Iterable, Mapping
from typing import Self

from protocols.client.noise_shares import HeldNoise, noise_fields, read_noise
from protocols.client.received_shares import ShareOf, held_secrets, read_shares, return_all, share_fields
from protocols.client.session import ClientSession, Environment
from protocols.client.state import State
from protocols.errors import SurvivorSetError, TooFewSurvivorsError
from protocols.messages import Message, UnmaskingRequest, decode_message
from protocols.messages.consistency import SurvivorSet
from protocols.messages.limits import request_limit
from protocols.roster import verify_signature
from protocols.secret_values import Secret
from protocols.session import SessionKeys
from protocols.stages import Stage
from protocols.statements import survivors_message
from protocols.wire import Reader


class SurvivorsSigned(State):
    """A survivor set is signed.

    Args:
        session: The round.
        keys_digest: 32 bytes.
        shares: {owner: its shares}.
        noise: {owner: its shares of noise seeds}; empty where no noise is removed.
        survivors: The set that this client signed.
    """

    TAG = 5

    def __init__(
        self,
        session: ClientSession,
        keys_digest: bytes,
        shares: Mapping[int, ShareOf],
        noise: HeldNoise,
        survivors: SurvivorSet,
    ) -> None:
        super().__init__(session)
        self._keys = SessionKeys(session.session_id, keys_digest)
        self._shares = shares
        self._noise = noise
        self._survivors = survivors

    @property
    def expects(self) -> Stage:
        """Unmasking."""
        return Stage.UNMASKING

    def _handle(self, data: bytes, environment: Environment) -> tuple[State | None, Message]:
        limit = request_limit(Stage.UNMASKING, self.session.parameters)
        request = decode_message(UnmaskingRequest, data, limit)[1]
        if request.survivors != self._survivors:
            raise SurvivorSetError("the server shows another survivor set than this client signed")
        self._verify_quorum(request.signatures, environment)
        names = self.session.names(self._survivors.positions, environment.roster)
        environment.participation.add(self.session.model_digest, names)
        return None, return_all(self._shares, self._noise, self._survivors, self.session.parameters)

    def _verify_quorum(self, signatures: Mapping[int, bytes], environment: Environment) -> None:
        needed = self.session.parameters.quorum(len(environment.roster))
        if not self._survivors.positions >= signatures.keys():
            raise SurvivorSetError("a signature is from no survivor")
        if len(signatures) < needed:
            raise TooFewSurvivorsError(Stage.CONSISTENCY_CHECK.value, len(signatures), needed)
        message = survivors_message(self._keys, self._survivors)
        for position, signature in signatures.items():
            key = self.session.identity_key(position, environment.roster)
            name = self.session.name(position, environment.roster)
            verify_signature(environment.verifier, key, message, signature, "survivor set", name)

    def _secrets(self) -> Iterable[Secret]:
        return held_secrets(self._shares, self._noise)

    def _fields(self) -> Iterable[bytes]:
        yield self._keys.keys_digest + self._survivors.encode()
        yield from share_fields(self._shares)
        yield from noise_fields(self._noise)

    @classmethod
    def read(cls, session: ClientSession, reader: Reader) -> Self:
        """Rebuild the state from a dump."""
        keys_digest, survivors = reader.take(32), SurvivorSet.parse(reader)
        return cls(session, keys_digest, read_shares(reader), read_noise(reader), survivors)
