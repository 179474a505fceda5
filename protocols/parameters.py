"""The public parameters of one round: what both ends must agree on, checked as a whole, hashed into the session."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from protocols.codec import Codec
from protocols.errors import DecodeError, ParameterError, RingOverflowError, TooFewSurvivorsError
from protocols.ring import MAX_RING_BITS, required_ring_bits
from protocols.roster import Roster
from protocols.stages import Stage, ThreatModel, stages_of
from protocols.wire import MAX_CLIENTS, MAX_COORDINATES, Reader, u8

MIN_COHORT = 3
MIN_THRESHOLD = 3
MIN_HONEST_SURVIVORS = 3

COMPLETE_UP_TO = 100
"""Largest cohort for which the graph is complete without asking whether a smaller one would do."""

_FIXED = struct.Struct("<BIHHHHBIQQ32s32s32s")
_FIELDS = (
    "round",
    "neighbours",
    "threshold",
    "corrupt",
    "min_survivors",
    "ring_bits",
    "vector_length",
    "max_coordinate",
    "noise_tail",
    "roster_digest",
    "config_digest",
    "encoding_digest",
)
"""The fields of the fixed part after the threat model, in the order of the format."""

_THREAT_MODELS = {1: ThreatModel.ACTIVE, 2: ThreatModel.SEMI_HONEST}


def default_corrupt(clients: int) -> int:
    """Return how many colluding clients a federation of that size tolerates by default: one in five, rounded down.

    Below five clients that is none: the sum is protected from the server alone, since three honest survivors must
    remain beside the colluders.
    """
    return clients // 5


def least_threshold(holders: int, corrupt: int, threat_model: ThreatModel) -> int:
    """Return the least safe threshold for `holders` share holders of whom `corrupt` collude.

    Active: 2 t > holders + corrupt, so that two quorums always share an honest holder and only one kind of share of a
    client can reach the threshold. Semi-honest: t > corrupt. Never below 3.
    """
    least = (holders + corrupt) // 2 + 1 if threat_model is ThreatModel.ACTIVE else corrupt + 1
    return max(MIN_THRESHOLD, least)


def ring_quorum(members: int, corrupt: int) -> int:
    """Return how many clients must sign a survivor set before shares are returned on a k-regular graph.

    Two thirds of roster and colluders together. More than half would make any two quorums share an honest client, so
    that all who return shares have signed one set. The rest is for sums over one model (SPEC.md, M-24): those who
    returned shares for an opened sum may be fewer than a quorum there, and still more than a third.

    Args:
        members: N, all clients of the roster: the server chooses whom of them it asks.
        corrupt: C.
    """
    return -(-2 * (members + corrupt) // 3)


def least_complete_threshold(
    members: int, corrupt: int, threat_model: ThreatModel, complete_up_to: int = COMPLETE_UP_TO
) -> int:
    """Return the least t of a complete graph for which any two sums over one model share an honest client.

    Active: 2 t > N + C; where a roster may use a ring, too, at least its quorum, since fewer may know of a sum there.

    Args:
        members: N, all clients of the roster.
        corrupt: C.
        threat_model: Against whom.
        complete_up_to: Largest cohort for which the graph must be complete.
    """
    least = least_threshold(members, corrupt, threat_model)
    if threat_model is ThreatModel.ACTIVE and members > complete_up_to:
        return max(least, ring_quorum(members, corrupt))
    return least


def least_ring_threshold(members: int, corrupt: int, neighbours: int, min_survivors: int) -> int:
    """Return the least t of an active ring for which an opened sum binds more than a third of roster and colluders.

    Each of the honest clients of a sum, min_survivors - C or more, takes t shares, and who returns shares does so for k
    clients at most: so t (min_survivors - C) / k - C honest clients or more returned shares, and know of the sum.

    Args:
        members: N, all clients of the roster.
        corrupt: C.
        neighbours: k.
        min_survivors: Fewest clients in an opened sum, above C.
    """
    return neighbours * (members + corrupt) // (3 * (min_survivors - corrupt)) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundParameters:
    """One round's parameters.

    Attributes:
        round: Round number, 0 to 2**32 - 1; a client takes part in each round of a run once.
        threat_model: Against whom the round protects.
        cohort: Roster places of the clients asked to take part, ascending; a client's position is its place in here.
        neighbours: Degree of the graph of pads: len(cohort) - 1 (complete) or an even number below.
        threshold: Shares that rebuild a secret, t.
        corrupt: Colluding clients that the round tolerates, C.
        min_survivors: Fewest clients whose sum is opened: at least C + 3, and t on a complete graph; clients insist on
            `quorum` of them.
        ring_bits: Width b of the ring, 1 to 62.
        vector_length: Coordinates of an encoded vector.
        max_coordinate: Largest value of one client's coordinate.
        noise_tail: Bound of the summed noise, 0 without noise.
        excess: Components of each client's noise that can be removed, one for each bearable loss; 0 where none is.
        roster_digest: 32 bytes.
        config_digest: 32 bytes; of the run's configuration.
        encoding_digest: 32 bytes; of the codec.

    Raises:
        ParameterError: A value is out of its range or contradicts another.
        RingOverflowError: The sum of the cohort could wrap around.
        TooFewSurvivorsError: The cohort is smaller than three clients.
    """

    round: int
    threat_model: ThreatModel
    cohort: tuple[int, ...]
    neighbours: int
    threshold: int
    corrupt: int
    min_survivors: int
    ring_bits: int
    vector_length: int
    max_coordinate: int
    noise_tail: int
    roster_digest: bytes
    config_digest: bytes
    encoding_digest: bytes
    excess: int = 0

    def __post_init__(self) -> None:
        n = len(self.cohort)
        if n < MIN_COHORT:
            raise TooFewSurvivorsError(Stage.ADVERTISE_KEYS.value, n, MIN_COHORT)
        _within("round", self.round, 0, (1 << 32) - 1)
        _within("cohort", n, MIN_COHORT, MAX_CLIENTS)
        if any(a >= b for a, b in zip(self.cohort, self.cohort[1:], strict=False)):
            raise ParameterError("cohort", "must be distinct and ascending")
        _within("cohort", self.cohort[0], 0, MAX_CLIENTS - 1)
        _within("cohort", self.cohort[-1], 0, MAX_CLIENTS - 1)
        _within("vector_length", self.vector_length, 1, MAX_COORDINATES)
        _within("max_coordinate", self.max_coordinate, 1, (1 << MAX_RING_BITS) - 1)
        _within("noise_tail", self.noise_tail, 0, (1 << MAX_RING_BITS) - 1)
        _within("ring_bits", self.ring_bits, 1, MAX_RING_BITS)
        if any(len(digest) != 32 for digest in (self.roster_digest, self.config_digest, self.encoding_digest)):
            raise ParameterError("digest", "must be 32 bytes")
        self._check_graph(n)
        self._check_excess(n)
        required = required_ring_bits(n, self.max_coordinate, self.noise_tail)
        if self.ring_bits < required:
            raise RingOverflowError(self.ring_bits, required)

    def _check_excess(self, n: int) -> None:
        _within("excess", self.excess, 0, 255)
        if self.excess and not (self.is_noisy and self.is_complete and self.excess == n - self.min_survivors):
            raise ParameterError("excess", "needs noise, a complete graph, and one component for each bearable loss")

    def _check_graph(self, n: int) -> None:
        _within("corrupt", self.corrupt, 0, n - MIN_HONEST_SURVIVORS)
        _within("neighbours", self.neighbours, MIN_THRESHOLD - 1, n - 1)
        if not self.is_complete and self.neighbours % 2:
            raise ParameterError("neighbours", "must be even in a k-regular graph")
        _within("threshold", self.threshold, MIN_THRESHOLD, self.holders)
        least_survivors = self.corrupt + MIN_HONEST_SURVIVORS
        if self.is_complete:
            least = least_threshold(self.holders, self.corrupt, self.threat_model)
            if self.threshold < least:
                raise ParameterError("threshold", f"must be at least {least} for {n} clients, {self.corrupt} corrupt")
            least_survivors = max(least_survivors, self.threshold)
        elif self.threat_model is ThreatModel.ACTIVE and 2 * self.threshold <= self.neighbours:
            raise ParameterError("threshold", "must be more than half of the neighbours")
        _within("min_survivors", self.min_survivors, least_survivors, n)

    @classmethod
    def choose(
        cls,
        *,
        round: int,
        roster: Roster,
        codec: Codec,
        config_digest: bytes,
        cohort: Sequence[str] | None = None,
        threat_model: ThreatModel = ThreatModel.ACTIVE,
        corrupt: int | None = None,
        neighbours: int | None = None,
        threshold: int | None = None,
        min_survivors: int | None = None,
        noise_tail: int = 0,
        excess: int = 0,
    ) -> Self:
        """Fill in what is not given: complete graph, least threshold that a `ClientPolicy` accepts, narrowest ring.

        Args:
            round: Round number.
            roster: All clients.
            codec: How updates are encoded.
            config_digest: 32 bytes; of the run's configuration.
            cohort: Names of the clients asked; all of the roster unless given.
            threat_model: Against whom the round protects.
            corrupt: Colluding clients tolerated; `default_corrupt` of the whole roster unless given.
            neighbours: Degree of the graph; complete unless given. `plan` finds safe values for large cohorts.
            threshold: Shares that rebuild a secret; needed with `neighbours`.
            min_survivors: Fewest clients in an opened sum.
            noise_tail: Bound of the summed noise.
            excess: Components of noise that can be removed.

        Raises:
            ParameterError: No such round can be.
        """
        places = roster.indices(roster.names if cohort is None else cohort)
        n = len(places)
        if n < MIN_COHORT:
            raise TooFewSurvivorsError(Stage.ADVERTISE_KEYS.value, n, MIN_COHORT)
        corrupt = default_corrupt(len(roster)) if corrupt is None else corrupt
        complete = neighbours is None or neighbours == n - 1
        if threshold is None:
            if not complete:
                raise ParameterError("threshold", "must be given for a k-regular graph: see plan()")
            threshold = least_complete_threshold(len(roster), corrupt, threat_model)
        if min_survivors is None:
            quorum = ring_quorum(len(roster), corrupt) if threat_model is ThreatModel.ACTIVE else 0
            if not complete and quorum > n:
                raise ParameterError("cohort", f"has {n} of {len(roster)} clients: a ring needs a quorum of {quorum}")
            min_survivors = max(corrupt + MIN_HONEST_SURVIVORS, threshold if complete else quorum)
        return cls(
            round=round,
            threat_model=threat_model,
            cohort=places,
            neighbours=n - 1 if neighbours is None else neighbours,
            threshold=threshold,
            corrupt=corrupt,
            min_survivors=min_survivors,
            ring_bits=required_ring_bits(n, codec.max_coordinate, noise_tail),
            vector_length=codec.vector_length,
            max_coordinate=codec.max_coordinate,
            noise_tail=noise_tail,
            roster_digest=roster.digest,
            config_digest=config_digest,
            encoding_digest=codec.digest,
            excess=excess,
        )

    @property
    def clients(self) -> int:
        """Size n of the cohort."""
        return len(self.cohort)

    @property
    def is_complete(self) -> bool:
        """Whether every two clients share a pad."""
        return self.neighbours == len(self.cohort) - 1

    @property
    def is_noisy(self) -> bool:
        """Whether every client adds noise to its vector."""
        return self.noise_tail > 0

    @property
    def holders(self) -> int:
        """How many shares each secret is split into: n on a complete graph (the client keeps one), else k."""
        return self.clients if self.is_complete else self.neighbours

    def quorum(self, members: int) -> int:
        """Return how many signatures over the survivor set a client wants to see before it returns shares.

        Active: the threshold on a complete graph, `ring_quorum` on a k-regular one; semi-honest: none.

        Args:
            members: Clients of the roster.
        """
        if self.threat_model is not ThreatModel.ACTIVE:
            return 0
        return self.threshold if self.is_complete else ring_quorum(members, self.corrupt)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of this round, in order."""
        return stages_of(self.threat_model, complete_graph=self.is_complete)

    def encode(self) -> bytes:
        """Return the parameters' bytes (SPEC.md, "Round parameters")."""
        model = next(number for number, model in _THREAT_MODELS.items() if model is self.threat_model)
        fixed = _FIXED.pack(
            model,
            self.round,
            self.neighbours,
            self.threshold,
            self.corrupt,
            self.min_survivors,
            self.ring_bits,
            self.vector_length,
            self.max_coordinate,
            self.noise_tail,
            self.roster_digest,
            self.config_digest,
            self.encoding_digest,
        )
        excess = u8(self.excess) if self.excess else b""
        return fixed + struct.pack(f"<H{self.clients}H", self.clients, *self.cohort) + excess

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Self:
        """Read parameters.

        Raises:
            DecodeError: The bytes are not parameters.
            ParameterError: They are, but no such round can be.
        """
        reader = Reader(data)
        number, *heads = _FIXED.unpack(reader.view(_FIXED.size))
        model = _THREAT_MODELS.get(number)
        if model is None:
            raise DecodeError("unknown threat model")
        count = reader.count(2)
        cohort = struct.unpack(f"<{count}H", reader.view(2 * count))
        excess = 0
        if reader.left:
            excess = reader.u8()
            if not excess:
                raise DecodeError("an excess of nothing is not written")
        reader.done()
        return cls(threat_model=model, cohort=cohort, excess=excess, **dict(zip(_FIELDS, heads, strict=True)))


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ParameterError(name, f"must be {least} to {most}, is {value}")
