"""AdvertiseKeys and RevealNonces: gather signed keys, then (on a k-regular graph) the nonces that order the ring."""

from collections.abc import Mapping

from protocols.blocks import PositionedBlocks
from protocols.commitments import verify_nonces
from protocols.errors import AuthenticationError
from protocols.graph import CompleteGraph, RingGraph, graph_seed, ring_order
from protocols.key_agreement import is_small_order
from protocols.messages import (
    AdvertiseKeysReply,
    AdvertiseKeysRequest,
    Advertisement,
    Message,
    RevealNoncesReply,
    RevealNoncesRequest,
    decode_message,
)
from protocols.messages.limits import reply_limit
from protocols.roster import verify_signature
from protocols.server.session import ServerSession
from protocols.server.share_collection import CollectingShares
from protocols.server.state import ServerState
from protocols.session import SessionKeys, keys_digest_complete
from protocols.stages import Stage
from protocols.statements import advertisement_message


class CollectingKeys(ServerState):
    """Parameters and model go out, advertisements come in."""

    stage = Stage.ADVERTISE_KEYS

    def __init__(self, session: ServerSession) -> None:
        super().__init__(session)
        self._advertisements: dict[int, Advertisement] = {}
        self._seen: set[bytes] = set()

    def requests(self) -> Mapping[int, Message]:
        """The same request for the whole cohort."""
        request = AdvertiseKeysRequest(self.session.parameters.encode(), self.session.payload)
        return dict.fromkeys(range(self.session.parameters.clients), request)

    def absorb(self, position: int, data: bytes) -> Message:
        """Take in an advertisement whose signature verifies in this session."""
        limit = reply_limit(self.stage, self.session.parameters)
        reply = decode_message(AdvertiseKeysReply, data, limit)[1]
        entry, name = reply.advertisement, self.session.name(position)
        complete = self.session.parameters.is_complete
        if bool(entry.nonce_commitment) == complete or bool(entry.signature) != self.session.is_active:
            raise AuthenticationError("advertisement", name)
        keys = {entry.channel_public, entry.mask_public}
        if len(keys) < 2 or keys & self._seen or any(is_small_order(key) for key in keys):
            raise AuthenticationError("public key", name)
        if self.session.is_active:
            message = advertisement_message(self.session.session_id, position, entry)
            key = self.session.identity_key(position)
            verify_signature(self.session.verifier, key, message, entry.signature, "advertisement", name)
        self._seen |= keys
        self._advertisements[position] = entry
        return reply

    def conclude(self) -> ServerState:
        """Fix the set of clients: keys are shown to all on a complete graph, commitments on a k-regular one."""
        parameters = self.session.parameters
        advertised = dict(sorted(self._advertisements.items()))
        if not parameters.is_complete:
            self.require(len(advertised), parameters.min_survivors)
            return CollectingNonces(self.session, advertised)
        self.require(len(advertised), max(parameters.min_survivors, parameters.threshold))
        encoded = {position: entry.encode() for position, entry in advertised.items()}
        identifier = self.session.session_id
        keys = SessionKeys(identifier, keys_digest_complete(identifier, encoded))
        graph = CompleteGraph(parameters.clients)
        return CollectingShares(self.session, advertised, PositionedBlocks((), b""), keys, graph)


class CollectingNonces(ServerState):
    """All commitments go out, nonces come in."""

    stage = Stage.REVEAL_NONCES

    def __init__(self, session: ServerSession, advertisements: Mapping[int, Advertisement]) -> None:
        super().__init__(session)
        self._advertisements = advertisements
        self._commitments = PositionedBlocks.of(
            {position: entry.nonce_commitment for position, entry in advertisements.items()}
        )
        self._nonces: dict[int, bytes] = {}

    def requests(self) -> Mapping[int, Message]:
        """The same list for everybody who advertised keys."""
        return dict.fromkeys(self._advertisements, RevealNoncesRequest(self._commitments))

    def absorb(self, position: int, data: bytes) -> Message:
        """Take in a nonce that opens its commitment."""
        reply = decode_message(RevealNoncesReply, data, reply_limit(self.stage, self.session.parameters))[1]
        verify_nonces(self.session.session_id, self._commitments, PositionedBlocks.of({position: reply.nonce}))
        self._nonces[position] = reply.nonce
        return reply

    def conclude(self) -> ServerState:
        """Order the ring: whoever is lost keeps a seat, empty, so that nobody is moved by a loss."""
        parameters, identifier = self.session.parameters, self.session.session_id
        self.require(len(self._nonces), parameters.min_survivors)
        nonces = PositionedBlocks.of(self._nonces)
        seed = graph_seed(identifier, self._commitments.encode(), nonces.encode())
        graph = RingGraph(ring_order(seed, parameters.clients), parameters.neighbours)
        present = {position: self._advertisements[position] for position in nonces.positions}
        return CollectingShares(self.session, present, nonces, SessionKeys(identifier, seed), graph)
