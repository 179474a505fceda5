"""Excess noise leaves the sum: seeds are rebuilt from shares, verified, expanded and subtracted."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from protocols.commitments import commit_to_noise_seed, commit_to_noise_share
from protocols.errors import DecodeError, ReconstructionError
from protocols.messages.consistency import SurvivorSet
from protocols.messages.noise_shares import NoisyUnmaskingReply
from protocols.secret_values import NoiseSeed
from protocols.server.dealt import Dealings
from protocols.server.reconstruction import candidates, require_shares
from protocols.server.session import ExcessNoise, ServerSession


class NoiseRemoval:
    """The shares of noise seeds that came in, and the seeds that they give.

    Args:
        session: The round.
        dealings: The clients that share pads.
        survivors: Whose vectors are in the sum.
    """

    def __init__(self, session: ServerSession, dealings: Dealings, survivors: SurvivorSet) -> None:
        self._session = session
        self._dealings = dealings
        self._owners = sorted(survivors.positions)
        lost = session.parameters.clients - len(self._owners)
        self.components = range(lost + 1, session.parameters.excess + 1)
        self._shares: dict[tuple[int, int], dict[int, bytes]] = {
            (owner, component): {} for owner in self._owners for component in self.components
        }

    def absorb(self, holder: int, reply: NoisyUnmaskingReply) -> set[int]:
        """Take in one holder's shares; return the owners of whom one is wrong.

        Raises:
            DecodeError: The reply is for other components or owners than are to be removed.
        """
        if reply.removed != len(self.components) or not set(self._owners).issuperset(reply.noise):
            raise DecodeError("shares of other noise than is to be removed")
        if not set(self._dealings.holders(holder)).issuperset(reply.noise):
            raise DecodeError("a share is of a client that dealt none to its sender")
        wrong = set()
        for owner, shares in reply.noise.items():
            expected = self._dealings.dealt[owner].noise[holder].commitments
            for component, share in zip(self.components, shares, strict=True):
                bound = commit_to_noise_share(share, self._session.session_id, owner, holder, component)
                if bound == expected[component - 1]:
                    self._shares[owner, component][holder] = share.expose()
                else:
                    wrong.add(owner)
        return wrong

    def noise(self, excess_noise: ExcessNoise) -> Iterator[NDArray[np.int64]]:
        """Return the noise to subtract, one component of one client at a time.

        Args:
            excess_noise: Expands seeds.

        Yields:
            int64 [d].

        Raises:
            TooFewSurvivorsError: A seed has fewer than t shares; raised before any is rebuilt.
            ReconstructionError: A client's shares do not rebuild the seed that it committed to.
        """
        if self._shares:
            require_shares(self._session, [(owner, shares) for (owner, _), shares in self._shares.items()])
        seeds = {key: self._rebuild(*key, shares) for key, shares in self._shares.items()}
        self._shares.clear()
        for (_, component), seed in seeds.items():
            yield excess_noise.component(component, seed)
            seed.erase()

    def _rebuild(self, owner: int, component: int, shares: Mapping[int, bytes]) -> NoiseSeed:
        commitment = self._dealings.dealt[owner].noise_seed_commitments[component - 1]
        for secret in candidates(shares, self._session.parameters.threshold):
            seed = NoiseSeed(secret)
            if commit_to_noise_seed(seed, self._session.session_id, owner, component) == commitment:
                return seed
            seed.erase()
        raise ReconstructionError(self._session.name(owner))
