"""What a client insists on, whatever the server asks for."""

from dataclasses import dataclass, field

from protocols.errors import PolicyError
from protocols.parameters import (
    COMPLETE_UP_TO,
    MIN_COHORT,
    MIN_HONEST_SURVIVORS,
    MIN_THRESHOLD,
    RoundParameters,
    default_corrupt,
    least_complete_threshold,
    least_ring_threshold,
)
from protocols.plan import MAX_ORDERS_LOG2, orders, privacy_failure
from protocols.ring import MAX_RING_BITS
from protocols.roster import Roster
from protocols.stages import ThreatModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPolicy:
    """Floors and ceilings that a client checks before it makes any key.

    The defaults allow the smallest federations (three hospitals) and rely on the rules that `RoundParameters` enforces
    for every size: an active round needs 2 t > n + C, a sum at least C + 3 clients. On a complete graph an active round
    needs 2 t > N + C for a roster of N, too: the quorums of any two cohorts then share an honest client, which knows of
    the sum over the same model that it helped to open before. Where a roster is large enough for a k-regular one, t and
    min_survivors have floors for the same reason (`least_complete_threshold`, `least_ring_threshold`).

    Attributes:
        min_cohort: Fewest clients asked to take part.
        min_threshold: Least t.
        min_corrupt: Fewest colluding clients that the round must tolerate; None for one in five of the whole roster,
            since the server chooses the cohort and may choose all of them.
        min_honest_survivors: Fewest survivors beyond the tolerated colluders.
        complete_up_to: Up to this cohort the graph must be complete.
        min_sigma: Above it, the chance that the graph exposes some client must be at most 2**-min_sigma; None accepts
            any graph and any t on it, for simulations.
        max_orders_log2: Orders of the ring that an adversary is thought able to compare between two stages, where it
            has several to choose from; binary logarithm.
        max_rings: Rings in a row of which this client knows the order and has helped to open no sum: each is another
            chance for whoever lets a round end until the order suits it.
        max_vector_length: Longest vector, against exhaustion of memory.
        max_ring_bits: Widest ring, against exhaustion of time.
        threat_models: Accepted threat models.
        config_digest: The run's configuration as this client knows it, or None to accept what comes.
        encoding_digest: The codec as this client knows it, or None.
    """

    min_cohort: int = MIN_COHORT
    min_threshold: int = MIN_THRESHOLD
    min_corrupt: int | None = None
    min_honest_survivors: int = MIN_HONEST_SURVIVORS
    complete_up_to: int = COMPLETE_UP_TO
    min_sigma: int | None = 40
    max_orders_log2: int = MAX_ORDERS_LOG2
    max_rings: int = 16
    max_vector_length: int = 1 << 26
    max_ring_bits: int = MAX_RING_BITS
    threat_models: frozenset[ThreatModel] = field(default_factory=lambda: frozenset({ThreatModel.ACTIVE}))
    config_digest: bytes | None = None
    encoding_digest: bytes | None = None

    def check(self, parameters: RoundParameters, roster: Roster) -> None:
        """Refuse parameters below the floors.

        Raises:
            PolicyError: Names the parameter, what was offered and what is required.
        """
        _at_least("cohort", parameters.clients, self.min_cohort)
        _at_least("threshold", parameters.threshold, self._least_threshold(parameters, len(roster)))
        least_corrupt = default_corrupt(len(roster)) if self.min_corrupt is None else self.min_corrupt
        _at_least("corrupt", parameters.corrupt, least_corrupt)
        fewest = max(parameters.corrupt + self.min_honest_survivors, parameters.quorum(len(roster)))
        _at_least("min_survivors", parameters.min_survivors, fewest)
        if parameters.threat_model not in self.threat_models:
            accepted = ", ".join(sorted(model.value for model in self.threat_models))
            raise PolicyError("threat_model", parameters.threat_model.value, accepted)
        if not parameters.is_complete:
            if parameters.clients <= self.complete_up_to:
                raise PolicyError("neighbours", parameters.neighbours, "a complete graph")
            self.check_ring(parameters, withheld=0)
            self._check_binding(parameters, len(roster))
        if parameters.vector_length > self.max_vector_length:
            raise PolicyError("vector_length", parameters.vector_length, f"at most {self.max_vector_length}")
        if parameters.ring_bits > self.max_ring_bits:
            raise PolicyError("ring_bits", parameters.ring_bits, f"at most {self.max_ring_bits}")
        if parameters.roster_digest != roster.digest:
            raise PolicyError("roster_digest", parameters.roster_digest.hex(), roster.digest.hex())
        if parameters.cohort[-1] >= len(roster):
            raise PolicyError("cohort", parameters.cohort[-1], f"at most {len(roster) - 1}")
        for name, own in (("config_digest", self.config_digest), ("encoding_digest", self.encoding_digest)):
            offered: bytes = getattr(parameters, name)
            if own is not None and own != offered:
                raise PolicyError(name, offered.hex(), own.hex())

    def _least_threshold(self, parameters: RoundParameters, members: int) -> int:
        if not parameters.is_complete or parameters.threat_model is not ThreatModel.ACTIVE:
            return self.min_threshold
        complete_up_to = members if self.min_sigma is None else self.complete_up_to
        least = least_complete_threshold(members, parameters.corrupt, parameters.threat_model, complete_up_to)
        return max(self.min_threshold, least)

    def _check_binding(self, parameters: RoundParameters, members: int) -> None:
        """Refuse a ring that could open two sums over one model without an honest client that knows of both."""
        p = parameters
        if p.threat_model is ThreatModel.ACTIVE and self.min_sigma is not None:
            least = least_ring_threshold(members, p.corrupt, p.neighbours, p.min_survivors)
            _at_least("threshold", p.threshold, least)

    def check_ring(self, parameters: RoundParameters, withheld: int) -> None:
        """Refuse a k-regular graph that exposes some client too easily.

        Args:
            parameters: The round's parameters.
            withheld: How many clients committed to a nonce and did not reveal it. Whoever decides which ones has as
                many orders to choose from as there are sets of up to so many clients.

        Raises:
            PolicyError: The chance, times the number of orders, is above 2**-min_sigma.
        """
        if self.min_sigma is None:
            return
        failure = privacy_failure(
            parameters.clients,
            parameters.corrupt,
            parameters.clients - parameters.min_survivors,
            parameters.neighbours,
            parameters.threshold,
            parameters.threat_model,
        )
        if failure * orders(parameters.clients, withheld, self.max_orders_log2) * (1 << self.min_sigma) > 1:
            offered = f"{parameters.neighbours} with {withheld} nonces withheld"
            raise PolicyError("neighbours", offered, f"a chance of exposure below 2**-{self.min_sigma}")


def _at_least(name: str, offered: int, floor: int) -> None:
    if offered < floor:
        raise PolicyError(name, offered, f"at least {floor}")
