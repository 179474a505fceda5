"""What the server keeps of the dealings and of the graph until the sum is opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from protocols.graph import Graph
from protocols.messages import DealtNoise, DealtShares
from protocols.session import SessionKeys


@dataclass(frozen=True, slots=True)
class Dealt:
    """What the server keeps of one client's dealing, to check shares and secrets with.

    Attributes:
        seed_commitment: 32 bytes.
        shares: {holder: dealt shares}.
        noise_seed_commitments: 32 bytes for each component of excess noise.
        noise: {holder: dealt shares of noise seeds}.
    """

    seed_commitment: bytes
    shares: Mapping[int, DealtShares]
    noise_seed_commitments: tuple[bytes, ...] = ()
    noise: Mapping[int, DealtNoise] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dealings:
    """All clients that share pads.

    Attributes:
        mask_publics: {position: public mask key}.
        dealt: {position: what it dealt}.
        keys: What every key derivation takes in.
        graph: Who shares pads with whom.
    """

    mask_publics: Mapping[int, bytes]
    dealt: Mapping[int, Dealt]
    keys: SessionKeys
    graph: Graph

    def neighbours(self, position: int) -> Sequence[int]:
        """Return the clients that share a pad with this one."""
        return [other for other in self.graph.neighbours(position) if other in self.dealt]

    def holders(self, position: int) -> Sequence[int]:
        """Return the clients that may hold a share of this one; the relation is symmetric."""
        return [other for other in self.graph.holders(position) if other in self.dealt]
