"""What each hospital's ledger is charged for its part in sums with noise in shares: before its vector leaves.

The charge is the costliest sum that the round can open, as the colluders see it whom the study provides for. Whether
the sum is opened at all, a hospital cannot know: a round that is done again is charged again, and a charge may be
wasted but never missed.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from audit.accounting import (
    Adjacency,
    Mechanism,
    Repeated,
    affordable_steps,
    against_broken_aggregation,
    upper_epsilon,
)
from audit.bounds import finite
from audit.ledger import (
    Account,
    Charge,
    Ledger,
    charged_release,
    foresee_charge,
    last_round_of,
    release_name,
    require_charges,
)
from audit.log import EventLog
from protocols.noise import NoisePlan
from securefed.config import PrivacyConfig
from securefed.errors import TargetEpsilonError
from securefed.privacy.shared_noise import dearest_sum, mechanism_of_sum, quietest_sum, rate_of


def charged_mechanism(plan: NoisePlan, privacy: PrivacyConfig) -> Mechanism:
    """Return what a ledger is charged for one vector.

    With `privacy.charge = "sum"` the costliest sum against the colluders of the plan, which holds against whoever sees
    sums only; with `"share"` the hospital's own vector, which carries one share of the noise: that holds also where
    secure aggregation fails, at a multiple of the epsilon.
    """
    rate = rate_of(privacy)
    if privacy.charge == "sum":
        return dearest_sum(plan, rate)[0].mechanism
    return single_share(plan, rate)


def single_share(plan: NoisePlan, sampling_rate: float) -> Mechanism:
    """Return a hospital's vector as one sees it who opens it, with the smallest share of noise that it can have."""
    mechanism = mechanism_of_sum(plan, plan.request.clients, sampling_rate)
    return against_broken_aggregation([Repeated(mechanism)])[0].mechanism


@lru_cache(maxsize=16)
def affordable_sums(plan: NoisePlan, privacy: PrivacyConfig) -> int | None:
    """Return how many sums the target allows, each at its costliest; None without a target."""
    if not privacy.epsilon:
        return None
    return affordable_steps(
        dearest_sum(plan, rate_of(privacy)), privacy.epsilon, privacy.delta, Adjacency(privacy.adjacency)
    )


class SharedCharges:
    """The charges of hospitals for sums.

    Args:
        log: Where charges and refusals are recorded.
        run: Name of the run in ledgers.
        privacy: The privacy section.
        plan: Grid, ring and noise.
        fingerprints: {hospital: digest of its data}.
        ledger: The budget across runs.
        most: Most vectors of a hospital, over all runs in the log; None for no such limit.
        named: Returns what the log calls data of a fingerprint, where others than the hospital read it.

    Raises:
        LedgerError: The ledger lacks a charge of the log.
    """

    def __init__(
        self,
        log: EventLog,
        run: str,
        privacy: PrivacyConfig,
        plan: NoisePlan,
        fingerprints: Mapping[str, str],
        ledger: Ledger,
        most: int | None = None,
        named: Callable[[str], str] = str,
    ) -> None:
        require_charges(ledger, log)
        self._log = log
        self._named = named
        self._run = run
        self._privacy = privacy
        self._plan = plan
        self._mechanism = charged_mechanism(plan, privacy)
        self._fingerprints = dict(fingerprints)
        self._ledger = ledger
        limits = [limit for limit in (most, affordable_sums(plan, privacy)) if limit is not None]
        self._most = None if most is None else min(limits)
        self._borne = min(limits, default=None)

    def check_run(self, rounds: int, finished: int = 0, *, record: bool = True) -> None:
        """Refuse a run whose sums together would exceed the budget of a hospital, before anything is sent.

        Args:
            rounds: Rounds of the whole run.
            finished: The last round that is known to have ended. Those after it that were not paid for need a vector
                each.
            record: Whether ledger and log record a refusal.

        Raises:
            BudgetExceededError: Recorded in ledger and log; nothing was charged.
        """
        for site in self._fingerprints:
            left = self._rest(site, rounds, finished)
            if left <= 0:
                continue
            what = release_name(self._run, f"{rounds - left + 1} to {rounds}", "all", site)
            charge = Charge(self._run, what, self._mechanism, left)
            foresee_charge(self._ledger, self._log, self._account(site), charge, record=record)

    def pay(self, site: str, number: int) -> None:
        """Charge a hospital for the vector that it is about to send.

        Raises:
            BudgetExceededError: The ledger refuses; recorded, the vector must not leave.
            TargetEpsilonError: The hospital has paid for as many vectors as the target allows.
        """
        before = self.vectors_of(site)
        if self._most is not None and before >= self._most:
            raise self._too_much(number)
        attempt = sum(release.startswith(f"{self._run}/{number}/") for release in self._paid(site))
        release_id = release_name(self._run, number, f"vector {attempt + 1}", site)
        charge = Charge(self._run, release_id, self._mechanism)
        charged_release(
            self._ledger,
            self._log,
            self._account(site),
            charge,
            lambda: None,
            round=number,
            privacy_event=False,
            named=self._named,
        )

    def vectors_of(self, site: str) -> int:
        """Return how many vectors a hospital has paid for, over all runs in the log and this run in the ledger."""
        return len(self._paid(site))

    def _rest(self, site: str, rounds: int, finished: int) -> int:
        """Return for how many vectors a hospital has still to pay, as far as the target bears them.

        A round that it has paid for is taken to have ended, whether or not it signed that one's head: refused for
        nothing, it would end a study that is complete. Where that round's sum was lost, `pay` refuses what the budget
        does not bear.
        """
        paid = self._paid(site)
        rest = rounds - max(finished, last_round_of(self._run, paid))
        return rest if self._borne is None else min(rest, self._borne - len(paid))

    def left_of(self, site: str) -> int | None:
        """Return for how many more vectors a hospital may pay; None without a limit."""
        return None if self._most is None else max(0, self._most - self.vectors_of(site))

    def views(self, site: str) -> dict[str, Any]:
        """Return the block `epsilon_by_adversary` of summary.json for what a hospital has paid for.

        Every vector counts as if its costliest sum had been opened: a hospital cannot know.
        """
        rate, count = rate_of(self._privacy), self.vectors_of(site)
        colluders = self._plan.request.colluders
        return {
            "aggregate_only": self._cost(quietest_sum(self._plan, rate), count),
            "colluders": {str(colluders): self._cost(dearest_sum(self._plan, rate)[0].mechanism, count)},
            "aggregation_broken": self._cost(single_share(self._plan, rate), count),
        }

    def _cost(self, mechanism: Mechanism, count: int) -> float | None:
        if not count:
            return 0.0
        adjacency = Adjacency(self._privacy.adjacency)
        epsilon = upper_epsilon([Repeated(mechanism, count)], self._privacy.delta, adjacency)
        return finite(epsilon)

    def _paid(self, site: str) -> set[str]:
        """An entry is durable in the ledger before the log has it: a crash may have come between."""
        charges = [event.fields for event in self._log.events if event.kind == "charge"]
        logged = {str(fields["release_id"]) for fields in charges if fields["hospital"] == site}
        held = self._ledger.charges(self._run)
        return logged | {spent.charge.release_id for spent in held if spent.account.hospital == site}

    def _account(self, site: str) -> Account:
        return Account(site, self._fingerprints[site], self._privacy.unit)

    def _too_much(self, number: int) -> TargetEpsilonError:
        assert self._most is not None  # noqa: S101 (the caller has looked)
        delta, adjacency = self._privacy.delta, Adjacency(self._privacy.adjacency)
        (sum_of_one,) = dearest_sum(self._plan, rate_of(self._privacy))
        epsilon, whole = (
            upper_epsilon([Repeated(sum_of_one.mechanism, count)], delta, adjacency)
            for count in (self._most + 1, max(1, self._most))
        )
        target = self._privacy.epsilon or whole
        error = TargetEpsilonError(number, epsilon, target, self._most)
        what: dict[str, Any] = {"what": f"round {number}", "reason": str(error), "round": number}
        what |= {"epsilon": finite(epsilon)}
        self._log.append("refused", what | ({"budget": target} if math.isfinite(target) else {}))
        return error
