"""Choose the graph and the threshold of a round from what it must withstand, and say what it costs.

Up to 100 clients the graph is complete and the bounds are certain. Above, the least even k with a safe t is found as in
google-parfait/federated-compute, graph_parameter_finder.cc (conditions 1 to 4 of SPEC.md, "Graph"), with
exact integers and with the colluders and dropouts rounded up; against an active server it goes on from there until the
losses that such a server chooses cannot cut the ring either (condition 5).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, comb

from protocols.codec import MAX_VALUE_BITS, MIN_VALUE_BITS
from protocols.errors import NoSafePlanError, ParameterError
from protocols.parameters import (
    COMPLETE_UP_TO,
    MIN_COHORT,
    MIN_HONEST_SURVIVORS,
    MIN_THRESHOLD,
    least_complete_threshold,
    least_ring_threshold,
    least_threshold,
    ring_quorum,
)
from protocols.ring import required_ring_bits
from protocols.stages import Stage, ThreatModel
from protocols.tails import disconnection, exposure, log2_of, severance, starvation, tail_above, tail_below
from protocols.traffic import Traffic, expected_traffic
from protocols.wire import MAX_CLIENTS, MAX_COORDINATES

MAX_ORDERS_LOG2 = 64
"""Orders of the ring that an adversary is thought able to compare between two stages, binary logarithm."""

MAX_SECURITY = 256
"""Largest sigma and eta."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A choice of parameters with its guarantees.

    Attributes:
        clients: n.
        corrupt: Colluders tolerated, C.
        dropouts: Losses tolerated, D.
        threat_model: Against whom.
        neighbours: k; n - 1 is the complete graph.
        threshold: t.
        quorum: Signatures over the survivor set that a client wants to see, q; none in a semi-honest round.
        min_survivors: Fewest clients in an opened sum.
        ring_bits: Width of the ring.
        privacy_failure_log2: Base-2 logarithm of the bound on the chance that some client is exposed; -inf if certain.
        correctness_failure_log2: The same for the chance that the sum cannot be opened despite at most D losses.
        traffic: Expected bytes of one client by stage and direction, without a signature's or a key's guesswork: exact
            for a round in which nobody is lost.
    """

    clients: int
    corrupt: int
    dropouts: int
    threat_model: ThreatModel
    neighbours: int
    threshold: int
    quorum: int
    min_survivors: int
    ring_bits: int
    privacy_failure_log2: float
    correctness_failure_log2: float
    traffic: Mapping[Stage, Traffic]

    @property
    def is_complete(self) -> bool:
        """Whether every two clients share a pad."""
        return self.neighbours == self.clients - 1

    @property
    def choices(self) -> dict[str, int | ThreatModel]:
        """The arguments that `RoundParameters.choose` takes from a plan."""
        return {
            "threat_model": self.threat_model,
            "corrupt": self.corrupt,
            "neighbours": self.neighbours,
            "threshold": self.threshold,
            "min_survivors": self.min_survivors,
        }


def plan(
    clients: int,
    corrupt: float | Fraction,
    dropout: float,
    sigma: int = 40,
    eta: int = 20,
    threat_model: ThreatModel = ThreatModel.ACTIVE,
    *,
    vector_length: int = 526_336,
    value_bits: int = 16,
    payload_bytes: int = 0,
    noise_tail: int = 0,
    withheld: int = 0,
) -> Plan:
    """Find the cheapest safe parameters.

    Args:
        clients: n.
        corrupt: Share of the clients that may collude with the server, 0 to 1; their number is rounded up. Of a number
            that is known give a Fraction: a float next to it may be above it.
        dropout: Share of the clients that may be lost, 0 to 1; their number is rounded up.
        sigma: A client is exposed with probability at most 2**-sigma, 1 to 256.
        eta: A round within the losses fails with probability at most 2**-eta, 1 to 256.
        threat_model: Against whom.
        vector_length: Coordinates, 1 to 2**28, for the expected bytes.
        value_bits: Bits of a value, 2 to 22, for the ring.
        payload_bytes: Size of the download.
        noise_tail: Bound of the summed noise.
        withheld: Losses at RevealNonces that a k-regular graph shall survive. Each lets an adversary choose among more
            orders of the ring, which takes more neighbours; clients refuse a ring with more losses there.

    Raises:
        NoSafePlanError: Nothing meets this; the reason names what would have to give.
        ParameterError: An argument cannot be meant.
    """
    if not MIN_COHORT <= clients <= MAX_CLIENTS:
        raise ParameterError("clients", f"must be {MIN_COHORT} to {MAX_CLIENTS}")
    if not 0 <= corrupt < 1 or not 0 <= dropout < 1:
        raise ParameterError("corrupt" if not 0 <= corrupt < 1 else "dropout", "must be at least 0 and below 1")
    for name, value, least, most in (
        ("sigma", sigma, 1, MAX_SECURITY),
        ("eta", eta, 1, MAX_SECURITY),
        ("dimension", vector_length, 1, MAX_COORDINATES),
        ("value_bits", value_bits, MIN_VALUE_BITS, MAX_VALUE_BITS),
    ):
        if not least <= value <= most:
            raise ParameterError(name, f"must be {least} to {most}")
    colluders, losses = _part_of(clients, corrupt), _part_of(clients, dropout)
    if colluders + losses > clients - MIN_HONEST_SURVIVORS:
        raise NoSafePlanError(
            "clients",
            f"{colluders} colluders and {losses} losses among {clients} leave fewer than 3 honest clients in the sum",
        )
    found = None
    if clients > COMPLETE_UP_TO:
        found = find_ring(clients, colluders, losses, sigma + _bits(orders(clients, withheld)), eta, threat_model)
    neighbours, threshold = found or (clients - 1, _complete_threshold(clients, colluders, losses, threat_model))
    ring_bits = required_ring_bits(clients, (1 << value_bits) - 2, noise_tail)
    privacy, correctness = Fraction(0), Fraction(0)
    quorum = 0
    if threat_model is ThreatModel.ACTIVE:
        quorum = ring_quorum(clients, colluders) if found else threshold
    if found:
        privacy = privacy_failure(clients, colluders, losses, neighbours, threshold, threat_model)
        correctness = starvation(clients, losses, neighbours, threshold)
    return Plan(
        clients=clients,
        corrupt=colluders,
        dropouts=losses,
        threat_model=threat_model,
        neighbours=neighbours,
        threshold=threshold,
        quorum=quorum,
        min_survivors=clients - losses if found else max(threshold, colluders + MIN_HONEST_SURVIVORS),
        ring_bits=ring_bits,
        privacy_failure_log2=log2_of(privacy),
        correctness_failure_log2=log2_of(correctness),
        traffic=expected_traffic(clients, neighbours, quorum, threat_model, vector_length, ring_bits, payload_bytes),
    )


def orders(clients: int, withheld: int, most_log2: int = MAX_ORDERS_LOG2) -> int:
    """Return how many orders of the ring can be brought about by withholding up to so many nonces, or can be compared.

    Args:
        clients: n.
        withheld: Nonces that were committed to and not revealed.
        most_log2: Binary logarithm of the orders that anybody can compare in the time between two stages.
    """
    return min(1 << most_log2, sum(comb(clients, i) for i in range(withheld + 1)))


def _bits(number: int) -> int:
    """ceil(log2(number))."""
    return (number - 1).bit_length()


@lru_cache(maxsize=256)
def privacy_failure(
    clients: int, corrupt: int, dropouts: int, neighbours: int, threshold: int, threat_model: ThreatModel
) -> Fraction:
    """Bound the chance that a ring of random order exposes some client: cut in two, or crowded by colluders."""
    failure = disconnection(clients, corrupt + dropouts, neighbours)
    if threat_model is ThreatModel.ACTIVE:
        failure += severance(clients, corrupt, neighbours, threshold)
    return min(Fraction(1), failure + exposure(clients, corrupt, neighbours, threshold, threat_model))


def find_ring(
    clients: int, corrupt: int, dropouts: int, sigma: int, eta: int, threat_model: ThreatModel
) -> tuple[int, int] | None:
    """Return the least even k and its least t that meet all conditions, or None where only a complete graph could.

    Against an active server a ring needs a quorum of the whole cohort among those that may be left.
    """
    limit, active = Fraction(1, 1 << sigma), threat_model is ThreatModel.ACTIVE
    if active and clients - dropouts < ring_quorum(clients, corrupt):
        return None
    for neighbours, least, most in rings(clients, corrupt, dropouts, sigma, eta, threat_model):
        binding = least_ring_threshold(clients, corrupt, neighbours, clients - dropouts) if active else 0
        too_few, enough = max(least, binding) - 1, most + 1
        while enough - too_few > 1:
            threshold = (too_few + enough) // 2
            if privacy_failure(clients, corrupt, dropouts, neighbours, threshold, threat_model) <= limit:
                enough = threshold
            else:
                too_few = threshold
        if enough <= most:
            return neighbours, enough
    return None


def rings(
    clients: int, corrupt: int, dropouts: int, sigma: int, eta: int, threat_model: ThreatModel
) -> Iterator[tuple[int, int, int]]:
    """Yield each even k with the least and the largest t for conditions 1 to 4, which take losses to be chance."""
    limit = Fraction(1, clients << eta)
    for neighbours in range(2, clients - 1, 2):
        if disconnection(clients, corrupt + dropouts, neighbours) >= Fraction(1, 1 << (sigma + 1)):
            continue
        least = _ring_threshold(clients, corrupt, neighbours, sigma, threat_model)
        most = _most_threshold(clients, dropouts, neighbours, limit)
        if least <= most:
            yield neighbours, least, most


def _most_threshold(clients: int, dropouts: int, neighbours: int, limit: Fraction) -> int:
    """The largest t that k neighbours miss rarely enough; 0 where there is none."""
    low, high = 0, neighbours
    while low < high:
        middle = (low + high + 1) // 2
        if tail_below(clients, clients - dropouts, neighbours, middle) <= limit:
            low = middle
        else:
            high = middle - 1
    return low


def _ring_threshold(clients: int, corrupt: int, neighbours: int, sigma: int, threat_model: ThreatModel) -> int:
    """The least t for k neighbours: above the colluders t1 among them that are exceeded too rarely to matter."""
    limit = Fraction(1, clients << (sigma + 1))
    low, high = 0, neighbours
    while low < high:
        middle = (low + high) // 2
        if tail_above(clients, corrupt, neighbours, middle) <= limit:
            high = middle
        else:
            low = middle + 1
    return least_threshold(neighbours, low, threat_model)


def _complete_threshold(clients: int, corrupt: int, dropouts: int, threat_model: ThreatModel) -> int:
    threshold = max(MIN_THRESHOLD, least_complete_threshold(clients, corrupt, threat_model))
    if threshold > clients - dropouts:
        raise NoSafePlanError(
            "threshold",
            f"{corrupt} colluders need a threshold of {threshold}, but only {clients - dropouts} of {clients} clients "
            f"are left after {dropouts} losses: accept fewer of either",
        )
    return threshold


def _part_of(clients: int, share: float | Fraction) -> int:
    """ceil(share * clients), where a float such as 0.1 means the decimal fraction that was written."""
    return ceil((share if isinstance(share, Fraction) else Fraction(repr(float(share)))) * clients)
