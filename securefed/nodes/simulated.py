"""The sites of a simulation: one site node each in this process, a transport to them, and the losses that are wanted.

The nodes, the messages and the client machines are those of a deployment. What only a simulation may do is here: look
at what the sites remember (for one checkpoint of all), and lose sites on purpose.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.roster import IdentityKey, RememberingVerifier
from protocols.session import RememberingDigest
from protocols.transport import CONTRIBUTIONS, Exchanged, InProcessTransport, Patience
from securefed.compression import Followed
from securefed.dropouts import dropouts_of_round, is_semi_honest
from securefed.nodes.control import ControlStage
from securefed.nodes.numbering import training_round
from securefed.nodes.site import SiteNode
from securefed.run_folder import Arrays
from securefed.sum_terms import SumTerms

Vector = NDArray[np.float32]


class Training(Protocol):
    """What all hospitals of a process can do; `securefed.hospitals.Hospitals` is one."""

    def expect(self, number: int, sites: Sequence[str]) -> None:
        """Say which sites are about to be asked in a round, in this order; not all of them have to be."""
        ...

    def train(self, site: str, received: Vector, number: int) -> Vector:
        """Train one round at a site and return its update float32[d]."""
        ...

    def score(self, site: str, received: Vector) -> float:
        """Return the site's validation accuracy with the received model."""
        ...


class SimulatedSites:
    """All site nodes of a simulation; a `Transport` to them.

    Args:
        identities: {site: its long-term key}.
        terms: The terms of the sums.
        training: The hospitals.
        workers: Sites that train, encode and mask at the same time, each in a thread of its own.
        images: {site: images that it trains on}: the sites with the most begin first.
    """

    def __init__(
        self,
        identities: Mapping[str, IdentityKey],
        terms: SumTerms,
        training: Training,
        workers: int = 1,
        images: Mapping[str, int] | None = None,
    ) -> None:
        self._terms, self._training = terms, training
        self._workers = workers
        self._images = images
        self.verifier = RememberingVerifier()
        digest, followed = RememberingDigest(), Followed()
        self._nodes = {
            site: SiteNode(
                key, terms, _AtSite(site, training), verifier=self.verifier, digest=digest, followed=followed
            )
            for site, key in identities.items()
        }
        self._bearable = terms.bearable_losses()

    def nodes(self) -> Collection[str]:
        """Return the names of the sites."""
        return tuple(self._nodes)

    def exchange(self, stage: str, requests: Mapping[str, bytes], *, round_id: int, patience: Patience) -> Exchanged:
        """Call each site as the iterator reaches it, or a few at a time; the sites that the round loses are silent."""
        lost = {} if stage == ControlStage.CLOSE_ROUND.value else self.losses(training_round(round_id))
        drops = {(site, round_id): at for site, at in lost.items()}
        transport = InProcessTransport(self._nodes, drops, workers=self._workers, weights=self._images)
        if stage in CONTRIBUTIONS:
            self._training.expect(training_round(round_id), transport.reached(stage, requests, round_id))
        return transport.exchange(stage, requests, round_id=round_id, patience=patience)

    def close(self) -> None:
        """Nothing is held."""

    def losses(self, number: int) -> Mapping[str, str]:
        """Return {site: stage at which it is lost} in a round."""
        config = self._terms.config
        return dropouts_of_round(
            config.simulation,
            self._terms.sites,
            number,
            config.federation.seed,
            self._bearable,
            semi_honest=is_semi_honest(config),
        )

    def memories(self) -> dict[str, Arrays]:
        """Return what the channel of each site remembers between rounds."""
        return {site: node.channel.memory() for site, node in self._nodes.items()}

    def restore(self, public: Arrays, memories: Mapping[str, Arrays], vector: Vector) -> None:
        """Put the channel of each site at a checkpoint.

        Raises:
            ValueError: The checkpoint is of another federation.
        """
        if not public:
            return
        if set(memories) != set(self._nodes):
            raise ValueError("the state of the compression is of another federation")
        for site, memory in memories.items():
            self._nodes[site].channel.restore({**public, **memory, "vector": vector})


class _AtSite:
    """The hospital of one site among all of them."""

    def __init__(self, site: str, training: Training) -> None:
        self._site, self._training = site, training

    def train(self, received: Vector, number: int) -> Vector:
        return self._training.train(self._site, received, number)

    def score(self, received: Vector) -> float:
        return self._training.score(self._site, received)
