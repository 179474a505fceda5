"""What a run with noise in shares spends: a sum is charged in the log before it is opened, and refused if too dear."""

from typing import Any

from audit.accounting import (
    Adjacency,
    Composition,
    Repeated,
    against_broken_aggregation,
    against_colluders,
    mechanism_fields,
    mechanism_of,
    upper_epsilon,
)
from audit.attempts import unopened_in
from audit.log import EventLog
from protocols.noise import NoisePlan
from securefed.config import PrivacyConfig
from securefed.errors import TargetEpsilonError
from securefed.privacy.shared_charges import affordable_sums
from securefed.privacy.shared_noise import dearest_sum, mechanism_of_sum, rate_of

_TOLERANCE = 1e-9
"""Relative; sums of floats in another order."""


class SharedSpending:
    """The sums that one run opens; each concerns all hospitals.

    A round that is done again after an interruption has fresh noise: it is another release, charged again.

    Args:
        log: The run's log; charges of an earlier start of the run are read from it.
        config: The privacy section; its target is what no round may exceed.
        plan: Grid, ring and noise.
    """

    def __init__(self, log: EventLog, config: PrivacyConfig, plan: NoisePlan) -> None:
        self._log = log
        self._config = config
        self._plan = plan
        self._adjacency = Adjacency(config.adjacency)
        self._rate = rate_of(config)
        self._spent: list[Repeated] = [
            Repeated(mechanism_of(event.fields["mechanism"]), _whole(event.fields["repetitions"]))
            for event in log.events
            if event.kind == "privacy_event"
        ]

    @property
    def affordable(self) -> int | None:
        """How many sums the target allows, each at its costliest; None without a target."""
        return affordable_sums(self._plan, self._config)

    def check_round(self, number: int) -> None:
        """Refuse a round that could exceed the target, with as few survivors as may be.

        Raises:
            TargetEpsilonError: Recorded in the log; nothing of the round was sent.
        """
        target = self._config.epsilon
        if not target:
            return
        seen = (*against_colluders(self._spent, self._config.max_colluders), *dearest_sum(self._plan, self._rate))
        epsilon = upper_epsilon(seen, self._config.delta, self._adjacency)
        if epsilon <= target * (1 + _TOLERANCE):
            return
        error = TargetEpsilonError(number, epsilon, target, self.affordable or 0)
        self._log.append(
            "refused",
            {
                "what": f"round {number}",
                "reason": str(error),
                "round": number,
                "epsilon": _finite(epsilon),
                "budget": target,
            },
        )
        raise error

    def charge(self, number: int, survivors: int) -> None:
        """Record what the sum of a round is about to release."""
        mechanism = mechanism_of_sum(self._plan, survivors, self._rate)
        self._log.append(
            "privacy_event",
            {
                "mechanism": mechanism_fields(mechanism),
                "repetitions": 1,
                "round": number,
                "release_id": f"sum/{number}/{len(self._spent)}",
            },
        )
        self._spent.append(Repeated(mechanism))

    def epsilon(self, colluders: int = 0) -> float:
        """Return epsilon against whoever sees only sums, with so many hospitals that know their own noise."""
        return self._cost(against_colluders(self._spent, colluders))

    def epsilon_without_aggregation(self) -> float:
        """Return epsilon against one who opens single vectors: each carries one share of noise.

        Those of attempts that ended before their sum was charged have left as well.
        """
        return self._cost(against_broken_aggregation(self._spent, unopened_in(self._log.events)))

    def state_epsilon(self) -> dict[str, Any]:
        """Record epsilon against each adversary; return the same values for the summary."""
        colluders = self._config.max_colluders
        stated = [("aggregate-only", 0, self.epsilon())]
        if colluders:
            stated.append(("aggregate-only", colluders, self.epsilon(colluders)))
        stated.append(("aggregation-broken", 0, self.epsilon_without_aggregation()))
        for view, known, upper in stated:
            fields: dict[str, Any] = {"view": view, "delta": self._config.delta, "upper": _finite(upper)}
            self._log.append("epsilon", {**fields, "accountant": "RDP", **({"colluders": known} if known else {})})
        return {
            "aggregate_only": _finite(stated[0][2]),
            "colluders": {str(colluders): _finite(self.epsilon(colluders))},
            "aggregation_broken": _finite(stated[-1][2]),
        }

    def _cost(self, composition: Composition) -> float:
        return upper_epsilon(composition, self._config.delta, self._adjacency) if composition else 0.0


def _finite(value: float) -> float | None:
    """JSON has no infinity: null stands for it."""
    return value if value < float("inf") else None


def _whole(value: object) -> int:
    assert isinstance(value, int)  # noqa: S101 (the log checked it)
    return value
