"""KeysAdvertised and NonceRevealed: keys are out; on a k-regular graph the nonce follows, then shares are dealt."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from protocols.blocks import PositionedBlocks
from protocols.client.dealing import EMPTY_BLOCKS, deal_shares, verify_peers
from protocols.client.session import ClientSession, Environment
from protocols.client.shares_dealt import SharesDealt
from protocols.client.state import State
from protocols.errors import SurvivorSetError, TooFewSurvivorsError
from protocols.messages import (
    Advertisement,
    Message,
    RevealNoncesReply,
    RevealNoncesRequest,
    ShareKeysRequest,
    decode_message,
)
from protocols.messages.limits import request_limit
from protocols.secret_values import ChannelKey, GraphNonce, MaskKey, Secret, SelfMaskSeed
from protocols.stages import Stage
from protocols.wire import Reader, u8, u32


@dataclass(frozen=True, slots=True)
class RoundSecrets:
    """A client's secrets of one round.

    Attributes:
        channel_key: Protects shares on their way.
        mask_key: Makes the pairwise pads.
        self_mask_seed: Makes the self mask.
        nonce: For the order of the ring; None on a complete graph.
    """

    channel_key: ChannelKey
    mask_key: MaskKey
    self_mask_seed: SelfMaskSeed
    nonce: GraphNonce | None

    def all(self) -> Iterable[Secret]:
        """Return each of them."""
        held = (self.channel_key, self.mask_key, self.self_mask_seed, self.nonce)
        return (secret for secret in held if secret is not None)

    def fields(self) -> bytes:
        """Return the bytes for a dump."""
        nonce = b"" if self.nonce is None else self.nonce.expose()
        keys = self.channel_key.expose() + self.mask_key.expose() + self.self_mask_seed.expose()
        return keys + u8(len(nonce)) + nonce

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read what `fields` wrote.

        Raises:
            DecodeError: The bytes are not that.
        """
        keys = ChannelKey(reader.view(32)), MaskKey(reader.view(32)), SelfMaskSeed(reader.view(32))
        return cls(*keys, GraphNonce(reader.view(32)) if reader.u8() else None)


class KeysAdvertised(State):
    """Fresh keys are advertised; nothing of anybody else is known yet.

    Args:
        session: The round.
        payload: The global model as it was received.
        secrets: The round's secrets.
        advertisement: What was sent.
    """

    TAG = 1

    def __init__(
        self,
        session: ClientSession,
        payload: bytes | memoryview,
        secrets: RoundSecrets,
        advertisement: Advertisement,
    ) -> None:
        super().__init__(session)
        self._payload = payload
        self._round_secrets = secrets
        self._advertisement = advertisement

    @property
    def expects(self) -> Stage:
        """ShareKeys on a complete graph, else RevealNonces."""
        return Stage.SHARE_KEYS if self.session.parameters.is_complete else Stage.REVEAL_NONCES

    def _handle(self, data: bytes, environment: Environment) -> tuple[State | None, Message]:
        if self.session.parameters.is_complete:
            return self._deal(data, EMPTY_BLOCKS, environment)
        limit = request_limit(Stage.REVEAL_NONCES, self.session.parameters)
        commitments = decode_message(RevealNoncesRequest, data, limit)[1].commitments
        self._check_commitments(commitments)
        nonce = self._round_secrets.nonce
        assert nonce is not None  # noqa: S101 (made whenever the graph is not complete)
        following = NonceRevealed(self.session, self._payload, self._round_secrets, self._advertisement, commitments)
        return following, RevealNoncesReply(nonce.expose())

    def _check_commitments(self, commitments: PositionedBlocks) -> None:
        parameters = self.session.parameters
        if len(commitments) < parameters.min_survivors:
            raise TooFewSurvivorsError(Stage.REVEAL_NONCES.value, len(commitments), parameters.min_survivors)
        if commitments.positions[-1] >= parameters.clients:
            raise SurvivorSetError("the server shows a client outside the cohort")
        if dict(commitments.items()).get(self.session.position) != self._advertisement.nonce_commitment:
            raise SurvivorSetError("the server does not show this client's own commitment")

    def _deal(
        self, data: bytes, commitments: PositionedBlocks, environment: Environment
    ) -> tuple[State | None, Message]:
        limit = request_limit(Stage.SHARE_KEYS, self.session.parameters)
        request = decode_message(ShareKeysRequest, data, limit)[1]
        peers = verify_peers(self.session, self._advertisement, commitments, request, environment)
        secrets = self._round_secrets
        dealing = deal_shares(
            self.session,
            peers,
            (secrets.channel_key, secrets.mask_key, secrets.self_mask_seed),
            self._advertisement,
            environment,
        )
        secrets.channel_key.erase()
        if secrets.nonce is not None:
            secrets.nonce.erase()
        following = SharesDealt(
            self.session,
            self._payload,
            (secrets.mask_key, self._advertisement.mask_public, secrets.self_mask_seed, dealing.own_share),
            peers.keys.keys_digest,
            {position: entry.mask_public for position, entry in peers.advertisements.items()},
            dealing.incoming,
            dealing.noise,
        )
        return following, dealing.reply

    def _secrets(self) -> Iterable[Secret]:
        return self._round_secrets.all()

    def _fields(self) -> Iterable[bytes | memoryview]:
        return (self._round_secrets.fields(), self._advertisement.encode(), u32(len(self._payload)), self._payload)

    @classmethod
    def read(cls, session: ClientSession, reader: Reader) -> Self:
        """Rebuild the state from a dump."""
        secrets, advertisement = RoundSecrets.read(reader), Advertisement.parse(reader)
        return cls(session, reader.view(reader.u32()), secrets, advertisement)


class NonceRevealed(KeysAdvertised):
    """The nonce is revealed, all commitments are known: nobody can choose the order of the ring any more.

    Args:
        session: The round.
        payload: The global model as it was received.
        secrets: The round's secrets.
        advertisement: What was sent.
        commitments: Everybody's commitments as they stood when the nonce was revealed.
    """

    TAG = 2

    def __init__(
        self,
        session: ClientSession,
        payload: bytes | memoryview,
        secrets: RoundSecrets,
        advertisement: Advertisement,
        commitments: PositionedBlocks,
    ) -> None:
        super().__init__(session, payload, secrets, advertisement)
        self._commitments = commitments

    @property
    def expects(self) -> Stage:
        """ShareKeys."""
        return Stage.SHARE_KEYS

    def _handle(self, data: bytes, environment: Environment) -> tuple[State | None, Message]:
        return self._deal(data, self._commitments, environment)

    def _fields(self) -> Iterable[bytes | memoryview]:
        return (*super()._fields(), self._commitments.encode())

    @classmethod
    def read(cls, session: ClientSession, reader: Reader) -> Self:
        """Rebuild the state from a dump."""
        secrets, advertisement = RoundSecrets.read(reader), Advertisement.parse(reader)
        payload = reader.view(reader.u32())
        return cls(session, payload, secrets, advertisement, PositionedBlocks.parse(reader))
