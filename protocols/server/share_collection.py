"""ShareKeys: keys go out to those who share pads, sealed shares come in for their holders."""

from collections.abc import Mapping

from protocols.blocks import PositionedBlocks
from protocols.errors import DecodeError
from protocols.graph import Graph
from protocols.messages import (
    Advertisement,
    Message,
    NoisyShareKeysReply,
    ShareKeysReply,
    ShareKeysRequest,
    decode_message,
)
from protocols.messages.limits import reply_limit
from protocols.server.dealt import Dealings, Dealt
from protocols.server.input_collection import CollectingInputs
from protocols.server.session import ServerSession
from protocols.server.state import ServerState
from protocols.session import SessionKeys
from protocols.stages import Stage


class CollectingShares(ServerState):
    """Keys go out, sealed shares come in.

    Args:
        session: The round.
        advertisements: {position: advertisement} of the clients that are still there.
        nonces: Everybody's nonce on a k-regular graph, else empty.
        keys: What every key derivation takes in.
        graph: Who shares pads with whom.
    """

    stage = Stage.SHARE_KEYS

    def __init__(
        self,
        session: ServerSession,
        advertisements: Mapping[int, Advertisement],
        nonces: PositionedBlocks,
        keys: SessionKeys,
        graph: Graph,
    ) -> None:
        super().__init__(session)
        self._advertisements = advertisements
        self._nonces = nonces
        self._keys = keys
        self._graph = graph
        self._dealt: dict[int, Dealt] = {}

    def requests(self) -> Mapping[int, Message]:
        """Each client gets its neighbours' keys and its own; all of them on a complete graph."""
        if self.session.parameters.is_complete:
            return dict.fromkeys(self._advertisements, ShareKeysRequest(self._advertisements, self._nonces))
        return {position: ShareKeysRequest(self._shown_to(position), self._nonces) for position in self._advertisements}

    def absorb(self, position: int, data: bytes) -> Message:
        """Take in one client's dealing: one entry for each holder it was shown, sealed except its own."""
        limit = reply_limit(self.stage, self.session.parameters)
        if self.session.parameters.excess:
            return self._absorb_with_noise(position, decode_message(NoisyShareKeysReply, data, limit)[1])
        reply = decode_message(ShareKeysReply, data, limit)[1]
        self._check(position, reply)
        self._dealt[position] = Dealt(reply.seed_commitment, reply.shares)
        return reply

    def _absorb_with_noise(self, position: int, reply: NoisyShareKeysReply) -> Message:
        self._check(position, reply.plain)
        excess = self.session.parameters.excess
        if reply.noise.keys() != reply.plain.shares.keys() or len(reply.seed_commitments) != excess:
            raise DecodeError("shares of noise seeds are not dealt to exactly the holders")
        for holder, dealt in reply.noise.items():
            if len(dealt.commitments) != excess or bool(dealt.sealed) == (holder == position):
                raise DecodeError("shares of noise seeds are not those of the round")
        plain = reply.plain
        self._dealt[position] = Dealt(plain.seed_commitment, plain.shares, reply.seed_commitments, reply.noise)
        return reply

    def _check(self, position: int, reply: ShareKeysReply) -> None:
        if reply.shares.keys() != self._holders_of(position):
            raise DecodeError("shares are not dealt to exactly the holders")
        if any(bool(dealt.sealed) == (holder == position) for holder, dealt in reply.shares.items()):
            raise DecodeError("shares for others must be sealed, one's own must not be sent")

    def conclude(self) -> ServerState:
        """Fix the set of clients that share pads."""
        parameters = self.session.parameters
        least = max(parameters.min_survivors, parameters.threshold if parameters.is_complete else 0)
        self.require(len(self._dealt), least)
        publics = {position: self._advertisements[position].mask_public for position in self._dealt}
        dealings = Dealings(publics, dict(sorted(self._dealt.items())), self._keys, self._graph)
        return CollectingInputs(self.session, dealings)

    def _shown_to(self, position: int) -> dict[int, Advertisement]:
        shown = (*self._graph.neighbours(position), position)
        return {other: self._advertisements[other] for other in sorted(shown) if other in self._advertisements}

    def _holders_of(self, position: int) -> set[int]:
        return {holder for holder in self._graph.holders(position) if holder in self._advertisements}
