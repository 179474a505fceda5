"""What a run spends: a release is charged in log and ledger before it is made, and refused where it is too much."""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from audit.accounting import Adjacency, Repeated, mechanism_fields, mechanism_of, upper_accountant
from audit.bounds import finite
from audit.canonical import JSON
from audit.ledger import (
    Account,
    Charge,
    Ledger,
    LedgerError,
    charge_release,
    foresee_charge,
    last_round_of,
    release_name,
    require_charges,
)
from audit.log import EventLog
from securefed.config import PrivacyConfig, RunConfig
from securefed.errors import ConfigError, ReleaseGoneError, TargetEpsilonError
from securefed.privacy.mechanism import RoundCost, borne_rounds, epsilon_of

T = TypeVar("T")

VIEWS = ("everybody", "aggregate-only", "aggregation-broken")
"""For which epsilon is stated in the mode `local`: it is the same against all."""


def release_of_model(run: str, site: str, number: int, model_digest: str) -> str:
    """Return the name of the release of a hospital in a round of a run, for a received model (SHA-256, hex)."""
    return release_name(run, number, model_digest[:16], site)


class Spending:
    """The releases of one run in the mode `local`.

    A release has an identity: run, hospital, round and the model that the hospital received. It is charged once; a
    round that is done again from the same model after an interruption is the same release (`ReleaseStore` keeps what
    was made of it).

    Args:
        log: The run's log; charges of an earlier start of the run are read from it.
        run: Name of the run in ledgers.
        config: The privacy section.
        cost: What a round releases about a hospital.
        fingerprints: {hospital: digest of its data}.
        ledger: The budget across runs, or None.
        most: Most releases of a hospital, whatever epsilon would allow; None for no such limit.
        named: Returns what the log calls data of a fingerprint, where others than the hospital read it.
        planned: Rounds of the run: whether the target bears them all is asked before how many it bears.

    Raises:
        LedgerError: The ledger lacks a charge of the log.
    """

    def __init__(
        self,
        log: EventLog,
        run: str,
        config: PrivacyConfig,
        cost: RoundCost,
        fingerprints: Mapping[str, str],
        ledger: Ledger | None,
        most: int | None = None,
        named: Callable[[str], str] = str,
        planned: int = 0,
    ) -> None:
        self._log = log
        self._named = named
        self._most = most
        self._planned = planned
        self._run = run
        self._config = config
        self._cost = cost
        self._fingerprints = dict(fingerprints)
        self._ledger = ledger
        if ledger is not None:
            require_charges(ledger, log)
        self._spent: dict[str, list[Repeated]] = {site: [] for site in fingerprints}
        self._charged: set[str] = set()
        self._charging = threading.Lock()
        for event in log.events:
            if event.kind == "privacy_event":
                self._take_in(event.fields)

    def release_id(self, site: str, number: int, model_digest: str) -> str:
        """Return the name of the release of a hospital in a round, for a received model (SHA-256, hex)."""
        return release_of_model(self._run, site, number, model_digest)

    def borne(self, count: int) -> int:
        """Return how many releases of a hospital, of `count`, the target allows and `most` does."""
        borne = borne_rounds(self._config, self._cost, max(count, self._planned))
        return min(count, borne) if self._most is None else min(count, borne, self._most)

    def check_round(self, number: int) -> None:
        """Refuse a round whose releases would exceed the target.

        Raises:
            TargetEpsilonError: Recorded in the log; nothing of the round was released.
        """
        spent = max(self._spent.values(), key=len, default=[])
        if self._is_charged(number) or not self._spent or len(spent) < self.borne(len(spent) + 1):
            return
        raise self._too_much(number, spent)

    def check_release(self, site: str, number: int, release_id: str) -> None:
        """Refuse a hospital's new release beyond the target, whatever round or model it is asked for.

        Raises:
            TargetEpsilonError: Recorded in the log; nothing was released.
        """
        spent = self._spent.get(site, [])
        if release_id in self._charged or len(spent) < self.borne(len(spent) + 1):
            return
        raise self._too_much(number, spent)

    def announce(self, site: str, number: int, release_id: str) -> None:
        """Record a release that a hospital is going to be asked for, unless that was done before.

        For a log that is not the hospital's: whether it pays for the release, and makes it, is for the hospital.
        """
        if release_id not in self._charged:
            event = self._event(site, number, release_id)
            self._log.append("privacy_event", event)
            self._take_in(event)

    def check_run(self, rounds: int, finished: int = 0, *, record: bool = True) -> None:
        """Refuse a run whose rounds together would exceed the budget of a hospital, before anything is sent.

        Args:
            rounds: Rounds of the whole run.
            finished: The last round that is known to have ended; whoever has not paid for one up to it need not now.
                Nor is one counted again that was charged already.
            record: Whether ledger and log record a refusal.

        Raises:
            BudgetExceededError: Recorded in ledger and log; nothing was charged.
        """
        if self._ledger is None:
            return
        last = self.borne(rounds)
        for site, spent in self._spent.items():
            paid = self._paid(site)
            left = min(last - len(spent) - self._unlogged(site), rounds - max(finished, last_round_of(self._run, paid)))
            if left <= 0:
                continue
            what = release_name(self._run, f"{last - left + 1} to {last}", "all", site)
            charge = Charge(self._run, what, self._cost.mechanism, self._cost.repetitions * left)
            account = Account(site, self._fingerprints[site], self._config.unit)
            foresee_charge(self._ledger, self._log, account, charge, record=record)

    def charge(self, site: str, number: int, release_id: str) -> None:
        """Charge a release that is going to be made, unless that was done before; may be called from several threads.

        Raises:
            BudgetExceededError: The ledger refuses; recorded.
            ReleaseGoneError: It was made before and can have left; to make it again would be another release. So it is
                with one that the ledger has let go and this log does not know: another process has made it.
        """
        with self._charging:
            state = self._state_in_ledger(release_id)
            known = release_id in self._charged
            if state == "committed" or (state == "released" and not known):
                raise ReleaseGoneError(number)
            if known:
                return
            event = self._event(site, number, release_id)
            if self._ledger is not None and state is None:
                charge = Charge(self._run, release_id, self._cost.mechanism, self._cost.repetitions)
                account = Account(site, self._fingerprints[site], self._config.unit)
                charge_release(self._ledger, self._log, account, charge, round=number, named=self._named)
            else:
                self._record(site, event, "reserved")
            self._take_in(event)

    def release(self, site: str, number: int, release_id: str, make: Callable[[], T]) -> T:
        """Charge a release, unless that was done before, then make it; raises as `charge`, when nothing was made."""
        self.charge(site, number, release_id)
        if self._state_in_ledger(release_id) == "reserved" and self._ledger is not None:
            self._ledger.release(release_id)
        made = make()
        self.settle(site, number, release_id)
        return made

    def settle(self, site: str, number: int, release_id: str) -> None:
        """Record that a paid release is made and kept, before it leaves, unless that was done before."""
        if self._state_in_ledger(release_id) == "released" and self._ledger is not None:
            self._ledger.commit(release_id)
            self._record(site, self._event(site, number, release_id), "committed")

    def epsilon(self) -> float:
        """Return the upper bound on epsilon of the hospital that has paid most."""
        delta, adjacency = self._config.delta, Adjacency(self._config.adjacency)
        return max((epsilon_of(tuple(spent), delta, adjacency) for spent in self._distinct().values()), default=0.0)

    def state_epsilon(self, views: tuple[str, ...]) -> None:
        """Record epsilon for each view and each hospital whose releases differ from the others'.

        With the whole noise at each hospital it is the same against everybody, with and without secure aggregation.
        """
        delta, adjacency = self._config.delta, Adjacency(self._config.adjacency)
        for site, spent in self._distinct().items():
            epsilon = epsilon_of(tuple(spent), delta, adjacency)
            fields: dict[str, JSON] = {"upper": finite(epsilon)}
            fields |= {"delta": delta, "accountant": upper_accountant(spent, delta, adjacency), "hospital": site}
            for view in views:
                self._log.append("epsilon", {"view": view, **fields})

    def _distinct(self) -> dict[str, list[Repeated]]:
        distinct: dict[tuple[Repeated, ...], str] = {}
        for site, spent in self._spent.items():
            if spent:
                distinct.setdefault(tuple(spent), site)
        return {site: list(spent) for spent, site in distinct.items()}

    def _too_much(self, number: int, spent: list[Repeated]) -> TargetEpsilonError:
        """Record that a release more would be too much, and return the error that says so."""
        delta, adjacency = self._config.delta, Adjacency(self._config.adjacency)
        affordable = self.borne(len(spent) + 1)
        epsilon = epsilon_of((*spent, *self._cost.of_rounds(1)), delta, adjacency)
        target = self._config.epsilon or epsilon_of(tuple(self._cost.of_rounds(affordable)), delta, adjacency)
        error = TargetEpsilonError(number, epsilon, target, affordable)
        what: dict[str, Any] = {"what": f"round {number}", "reason": str(error), "round": number}
        what |= {"epsilon": finite(epsilon)} | ({"budget": target} if math.isfinite(target) else {})
        self._log.append("refused", what)
        return error

    def _is_charged(self, number: int) -> bool:
        return any(release.startswith(f"{self._run}/{number}/") for release in self._charged)

    def _state_in_ledger(self, release_id: str) -> str | None:
        """Return how far the ledger has got with a release: a run may have died between its steps."""
        if self._ledger is None:
            return None
        found = [spent.state for spent in self._ledger.charges(self._run) if spent.charge.release_id == release_id]
        return found[0] if found else None

    def _paid(self, site: str) -> set[str]:
        """Return the releases that a hospital has paid for in this run; the ledger has every charge of the log."""
        held = () if self._ledger is None else self._ledger.charges(self._run)
        return {spent.charge.release_id for spent in held if spent.account.hospital == site}

    def _unlogged(self, site: str) -> int:
        """Return how many charges of a hospital the ledger has and the log does not: one that a crash came between."""
        held = () if self._ledger is None else self._ledger.charges(self._run)
        return sum(spent.account.hospital == site and spent.charge.release_id not in self._charged for spent in held)

    def _record(self, site: str, event: Mapping[str, Any], state: str) -> None:
        """Append the charge, where there is a ledger, and with its reservation the privacy event."""
        with self._log.batch():
            if self._ledger is not None:
                paid = {name: event[name] for name in ("mechanism", "repetitions", "hospital", "release_id")}
                where = {"fingerprint": self._named(self._fingerprints[site]), "unit": self._config.unit}
                self._log.append("charge", {**paid, **where, "state": state})
            if state == "reserved":
                self._log.append("privacy_event", dict(event))

    def _event(self, site: str, number: int, release_id: str) -> dict[str, Any]:
        return {
            "mechanism": mechanism_fields(self._cost.mechanism),
            "repetitions": self._cost.repetitions,
            "round": number,
            "hospital": site,
            "release_id": release_id,
        }

    def _take_in(self, fields: Mapping[str, Any]) -> None:
        self._charged.add(fields["release_id"])
        self._spent.setdefault(fields["hospital"], []).append(
            Repeated(mechanism_of(fields["mechanism"]), fields["repetitions"])
        )


def with_absolute_ledger(config: RunConfig) -> RunConfig:
    """Return the configuration with the absolute path of its ledger: wherever it is read, it names the same one."""
    if not config.privacy.ledger:
        return config
    return replace(config, privacy=replace(config.privacy, ledger=str(Path(config.privacy.ledger).absolute())))


BUDGETS_OF_DEALT_CLIENTS = (
    "privacy.ledger keeps budgets of the clients that data.clients deals by their names; with another number, alpha or "
    "seed an image is another client's, so that budgets of several such runs do not limit what is spent on an image"
)


def check_ledger_is_there(config: PrivacyConfig) -> None:
    """Refuse to begin a run whose ledger cannot be used; none is made.

    Raises:
        ConfigError: There is no ledger at the path.
        LedgerError, EvidenceError: It is no ledger, or was changed.
    """
    path = Path(config.ledger)
    if config.ledger and not path.is_file():
        raise ConfigError(
            "privacy.ledger",
            f"there is no ledger {path}; check the path, or make it: securefed audit ledger policy {path} policy.toml",
        )
    ledger = open_ledger(config)
    if ledger is not None:
        ledger.close()


def open_ledger(config: PrivacyConfig) -> Ledger | None:
    """Return the ledger that the configuration of a run names, None without one.

    Raises:
        LedgerError: It is not there any more, or cannot be used.
    """
    if not config.ledger:
        return None
    path = Path(config.ledger)
    if not path.is_file():
        raise LedgerError(
            path, "the ledger of this run is not there; put it back, and go on from where the run was begun"
        )
    return Ledger(path)
