"""MaskedInputCollection: shares go on to their holders, masked vectors come in and are added up at once."""

from collections.abc import Mapping

from protocols.errors import DecodeError, ReconstructionError
from protocols.masking import RunningSum
from protocols.messages import (
    MaskedInputReply,
    MaskedInputRequest,
    Message,
    NoisyMaskedInputRequest,
    decode_message,
)
from protocols.messages.consistency import SurvivorSet
from protocols.messages.limits import reply_limit
from protocols.server.consistency_check import CheckingConsistency
from protocols.server.dealt import Dealings
from protocols.server.session import ServerSession
from protocols.server.state import ServerState
from protocols.server.unmasking import Unmasking
from protocols.stages import Stage
from protocols.vectors import MaskedVector


class CollectingInputs(ServerState):
    """Sealed shares go out, masked vectors come in; only their sum is kept.

    Args:
        session: The round.
        dealings: The clients that share pads.
    """

    stage = Stage.MASKED_INPUT_COLLECTION

    def __init__(self, session: ServerSession, dealings: Dealings) -> None:
        super().__init__(session)
        self._dealings = dealings
        self._sum = RunningSum(session.parameters.vector_length, session.parameters.ring_bits)
        self._survivors: set[int] = set()
        self.complaints: dict[int, tuple[int, ...]] = {}

    def requests(self) -> Mapping[int, Message]:
        """Each client gets what the others dealt to it."""
        return {position: self._request(position) for position in self._dealings.dealt}

    def absorb(self, position: int, data: bytes) -> Message:
        """Add one masked vector."""
        parameters = self.session.parameters
        reply = decode_message(MaskedInputReply, data, reply_limit(self.stage, parameters))[1]
        if (reply.ring_bits, reply.length) != (parameters.ring_bits, parameters.vector_length):
            raise DecodeError("the masked vector is of another ring or length")
        if not set(self._dealings.neighbours(position)).issuperset(reply.unusable):
            raise DecodeError("a complaint names a client that dealt nothing")
        self._sum.add(MaskedVector.decode(reply.packed, reply.length, reply.ring_bits))
        self._survivors.add(position)
        if reply.unusable:
            self.complaints[position] = reply.unusable
        return reply

    def conclude(self) -> ServerState:
        """Fix the survivor set: from here on a vector that comes late is worth nothing.

        Raises:
            TooFewSurvivorsError: Too few vectors came.
            ReconstructionError: So many holders could not use a client's shares that its secrets are lost.
        """
        parameters = self.session.parameters
        least = max(parameters.min_survivors, parameters.threshold if parameters.is_complete else 0)
        self.require(len(self._survivors), least)
        self._require_usable_shares()
        survivors = SurvivorSet.of(parameters.clients, self._survivors)
        if self.session.is_active:
            return CheckingConsistency(self.session, self._dealings, self._sum, survivors)
        return Unmasking(self.session, self._dealings, self._sum, survivors, sorted(survivors.positions), {})

    def _require_usable_shares(self) -> None:
        """End the round here where reports of unusable shares leave too few holders of some client's secrets."""
        for owner in self._dealings.dealt:
            holders = [holder for holder in self._dealings.holders(owner) if holder in self._survivors]
            usable = sum(owner not in self.complaints.get(holder, ()) for holder in holders)
            if usable < self.session.parameters.threshold <= len(holders):
                raise ReconstructionError(self.session.name(owner))

    def _request(self, position: int) -> Message:
        dealt = {dealer: self._dealings.dealt[dealer] for dealer in self._dealings.neighbours(position)}
        request = MaskedInputRequest({dealer: entry.shares[position] for dealer, entry in dealt.items()})
        if not self.session.parameters.excess:
            return request
        return NoisyMaskedInputRequest(request, {dealer: entry.noise[position] for dealer, entry in dealt.items()})
