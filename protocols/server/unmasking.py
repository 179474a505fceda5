"""Unmasking: shares come in, secrets are rebuilt and verified, their pads taken out, and the sum is opened."""

from collections.abc import Mapping, Sequence

from protocols.commitments import commit_to_share
from protocols.errors import DecodeError
from protocols.masking import RunningSum
from protocols.messages import Message, NoisyUnmaskingReply, UnmaskingReply, UnmaskingRequest, decode_message
from protocols.messages.consistency import SurvivorSet
from protocols.messages.limits import reply_limit
from protocols.secret_values import MaskKeyShare, SelfMaskShare
from protocols.server.dealt import Dealings
from protocols.server.noise_removal import NoiseRemoval
from protocols.server.reconstruction import remaining_pads
from protocols.server.session import ServerSession
from protocols.server.state import ServerState
from protocols.stages import Stage
from protocols.vectors import Aggregate


class Unmasking(ServerState):
    """Survivor set and quorum go out, shares come in.

    Args:
        session: The round.
        dealings: The clients that share pads.
        running_sum: The sum of the survivors' masked vectors.
        survivors: Who is in it.
        asked: Who is asked for shares.
        quorum: {signer: signature}; empty in a semi-honest round.
    """

    stage = Stage.UNMASKING

    def __init__(
        self,
        session: ServerSession,
        dealings: Dealings,
        running_sum: RunningSum,
        survivors: SurvivorSet,
        asked: Sequence[int],
        quorum: Mapping[int, bytes],
    ) -> None:
        super().__init__(session)
        self._dealings = dealings
        self._sum = running_sum
        self.survivors = survivors
        self._asked = asked
        self._quorum = quorum
        self._shares: dict[int, dict[int, bytes]] = {owner: {} for owner in dealings.dealt}
        self._noise = NoiseRemoval(session, dealings, survivors)
        self.wrong_shares: dict[int, tuple[int, ...]] = {}
        self.total: Aggregate | None = None

    def requests(self) -> Mapping[int, Message]:
        """The same set and quorum for all."""
        return dict.fromkeys(self._asked, UnmaskingRequest(self.survivors, self._quorum))

    def absorb(self, position: int, data: bytes) -> Message:
        """Take in one holder's shares; wrong ones are left out and remembered, the others still count."""
        limit, wrong_noise = reply_limit(self.stage, self.session.parameters), set[int]()
        noisy = decode_message(NoisyUnmaskingReply, data, limit)[1] if self.session.parameters.excess else None
        reply = decode_message(UnmaskingReply, data, limit)[1] if noisy is None else noisy.plain
        if not set(self._dealings.holders(position)).issuperset(reply.shares):
            raise DecodeError("a share is of a client that dealt none to its sender")
        if noisy is not None:
            wrong_noise = self._noise.absorb(position, noisy)
        wrong = sorted(wrong_noise.difference(reply.shares))
        for owner, share in reply.shares.items():
            right = self._is_right(owner, position, share)
            if right:
                self._shares[owner][position] = share.expose()
            if not right or owner in wrong_noise:
                wrong.append(owner)
        if wrong:
            self.wrong_shares[position] = tuple(wrong)
        return reply if noisy is None else noisy

    def conclude(self) -> None:
        """Rebuild, verify, cancel, open.

        Raises:
            TooFewSurvivorsError: Too few shares of some client came: the sum stays masked.
            ReconstructionError: A client dealt shares that rebuild nothing it published.
            AggregateError: The total is impossible.
        """
        parameters = self.session.parameters
        if self.session.excess_noise is not None:
            for noise in self._noise.noise(self.session.excess_noise):
                self._sum.subtract(noise)
        for pads in remaining_pads(self.session, self._dealings, self.survivors, self._shares):
            self._sum.remove(pads)
        self._shares.clear()
        self.total = self._sum.open(len(self.survivors.positions), parameters.max_coordinate, parameters.noise_tail)

    def _is_right(self, owner: int, holder: int, share: SelfMaskShare | MaskKeyShare) -> bool:
        """Whether a share is of the kind that opens the sum and is what its owner dealt to this holder."""
        dealt = self._dealings.dealt[owner].shares[holder]
        survived = owner in self.survivors.positions
        if isinstance(share, SelfMaskShare) is not survived:
            return False
        expected = dealt.self_mask_commitment if survived else dealt.mask_key_commitment
        return commit_to_share(share, self.session.session_id, owner, holder) == expected
