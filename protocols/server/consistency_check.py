"""ConsistencyCheck: one survivor set goes out to all survivors, their signatures come in."""

from collections.abc import Mapping

from protocols.masking import RunningSum
from protocols.messages import ConsistencyCheckReply, ConsistencyCheckRequest, Message, decode_message
from protocols.messages.consistency import SurvivorSet
from protocols.messages.limits import reply_limit
from protocols.roster import verify_signature
from protocols.server.dealt import Dealings
from protocols.server.session import ServerSession
from protocols.server.state import ServerState
from protocols.server.unmasking import Unmasking
from protocols.stages import Stage
from protocols.statements import survivors_message


class CheckingConsistency(ServerState):
    """The survivor set goes out, signatures come in.

    Args:
        session: The round.
        dealings: The clients that share pads.
        running_sum: The sum of the survivors' masked vectors.
        survivors: Who is in it.
    """

    stage = Stage.CONSISTENCY_CHECK

    def __init__(
        self, session: ServerSession, dealings: Dealings, running_sum: RunningSum, survivors: SurvivorSet
    ) -> None:
        super().__init__(session)
        self._dealings = dealings
        self._sum = running_sum
        self.survivors = survivors
        self._message = survivors_message(dealings.keys, survivors)
        self._signatures: dict[int, bytes] = {}

    def requests(self) -> Mapping[int, Message]:
        """The same set for all survivors."""
        return dict.fromkeys(sorted(self.survivors.positions), ConsistencyCheckRequest(self.survivors))

    def absorb(self, position: int, data: bytes) -> Message:
        """Take in one signature."""
        reply = decode_message(ConsistencyCheckReply, data, reply_limit(self.stage, self.session.parameters))[1]
        key, name = self.session.identity_key(position), self.session.name(position)
        verify_signature(self.session.verifier, key, self._message, reply.signature, "survivor set", name)
        self._signatures[position] = reply.signature
        return reply

    def conclude(self) -> ServerState:
        """Choose the quorum that every signer will be shown."""
        needed = self.session.quorum
        self.require(len(self._signatures), needed)
        signers = sorted(self._signatures)
        quorum = {signer: self._signatures[signer] for signer in signers[:needed]}
        return Unmasking(self.session, self._dealings, self._sum, self.survivors, signers, quorum)
