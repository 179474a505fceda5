"""Which clients share pads and hold each other's shares: all, or the k nearest on a ring that nobody can choose."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from protocols.labels import Label
from protocols.wire import u16


@dataclass(frozen=True, slots=True)
class CompleteGraph:
    """Every two clients share a pad; each client holds a share of everybody, itself included.

    Attributes:
        clients: n.
    """

    clients: int

    def neighbours(self, position: int) -> Sequence[int]:
        """Return the positions that share a pad with this one, ascending."""
        return [*range(position), *range(position + 1, self.clients)]

    def holders(self, position: int) -> Sequence[int]:
        """Return the positions that hold a share of this one's secrets, ascending; the relation is symmetric."""
        del position
        return range(self.clients)


@dataclass(frozen=True, slots=True)
class RingGraph:
    """Each client shares pads and secrets with the k / 2 before and the k / 2 after it on a ring.

    Attributes:
        order: The positions in the order in which they sit on the ring.
        degree: k, even.
    """

    order: tuple[int, ...]
    degree: int

    def neighbours(self, position: int) -> Sequence[int]:
        """Return the positions that share a pad with this one, ascending."""
        seat = _seats(self.order)[position]
        half, n = self.degree // 2, len(self.order)
        return sorted(self.order[(seat + step) % n] for step in range(-half, half + 1) if step)

    def holders(self, position: int) -> Sequence[int]:
        """Return the positions that hold a share of this one's secrets, ascending; the relation is symmetric."""
        return self.neighbours(position)


Graph = CompleteGraph | RingGraph


@lru_cache(maxsize=16)
def _seats(order: tuple[int, ...]) -> dict[int, int]:
    return {position: seat for seat, position in enumerate(order)}


def graph_seed(session_id: bytes, commitments: bytes, nonces: bytes) -> bytes:
    """Return the 32 bytes from which the order follows.

    Args:
        session_id: 32 bytes.
        commitments: The encoded list of all commitments.
        nonces: The encoded list of all nonces that were revealed.
    """
    lengths = len(commitments).to_bytes(4, "little") + len(nonces).to_bytes(4, "little")
    return hashlib.sha256(Label.GRAPH.encoded + session_id + lengths + commitments + nonces).digest()


@lru_cache(maxsize=16)
def ring_order(seed: bytes, clients: int) -> tuple[int, ...]:
    """Return all positions of the cohort sorted by their hash under the seed: an order that nobody chose.

    Clients that are lost before the graph is known keep their seats, so that losing them moves nobody else.
    """
    label = Label.ORDER.encoded + seed
    return tuple(sorted(range(clients), key=lambda position: hashlib.sha256(label + u16(position)).digest()))
