"""What differential privacy adds to a run whose hospitals add the noise in shares: `distributed` and `hospital`."""

from collections.abc import Callable, Mapping
from typing import Any

from audit.ledger import Ledger
from audit.log import EventLog
from clients.encoders import FeatureBundle
from protocols.noise import NoisePlan
from securefed.config import RunConfig
from securefed.hospitals import Hospitals
from securefed.privacy.claim import held_to_claim
from securefed.privacy.paid_updates import Pay, UpdatingHospitals, unpaid
from securefed.privacy.shared_charges import SharedCharges
from securefed.privacy.shared_claim import shared_claim, shared_notes, shared_summary, shared_verdict
from securefed.privacy.shared_spending import SharedSpending


def shared_hospitals(
    bundle: FeatureBundle,
    config: RunConfig,
    device: str,
    patients: Mapping[str, str | None],
    workers: int = 1,
    pay: Pay = unpaid,
) -> Hospitals:
    """Return hospitals that send clipped sums, or whole updates that the channel clips."""
    if config.privacy.mode == "distributed":
        from securefed.privacy.shared_hospitals import SummingHospitals  # loads torch

        return SummingHospitals(bundle, config, device, patients, workers, pay)
    return UpdatingHospitals(bundle, config, device, workers, pay)


class SharedPrivacy:
    """Differential privacy of one run in which hospitals add noise in shares, as its server keeps account of it.

    Args:
        config: The run's configuration.
        log: The run's log.
        plan: Grid, ring and noise.
        run: Name of the run in ledgers.
        patients: {path of an image: its patient or None}, where hospitals are simulated.
        fingerprints: {hospital: digest of its data}, likewise.
        ledger: Pays for the vectors of simulated hospitals; None without one.
        named: Returns what the log calls data of a fingerprint.
        deployed: Whether each hospital has a node of its own, which pays for itself.
    """

    def __init__(
        self,
        config: RunConfig,
        log: EventLog,
        plan: NoisePlan,
        run: str = "",
        patients: Mapping[str, str | None] | None = None,
        fingerprints: Mapping[str, str] | None = None,
        ledger: Ledger | None = None,
        named: Callable[[str], str] = str,
        *,
        deployed: bool = False,
    ) -> None:
        self._config = config
        self._deployed = deployed
        self._plan = plan
        self._patients = dict(patients or {})
        self._spending = SharedSpending(log, held_to_claim(config.privacy, lambda: shared_verdict(config, plan)), plan)
        self._ledger = ledger
        digests = dict(fingerprints or {})
        self._charges = (
            None if ledger is None else SharedCharges(log, run, config.privacy, plan, digests, ledger, named=named)
        )

    def hospitals(self, bundle: FeatureBundle, device: str, workers: int) -> Hospitals:
        """Return the simulated hospitals; each pays for its vector where there is a ledger."""
        pay = unpaid if self._charges is None else self._charges.pay
        return shared_hospitals(bundle, self._config, device, self._patients, workers, pay)

    def claim(self) -> dict[str, Any]:
        """Return the fields of the event `privacy_claim`."""
        return shared_claim(self._config, self._plan, deployed=self._deployed)

    def notes(self) -> list[str]:
        """Return what a watcher should know before the first round."""
        affordable = self._spending.affordable if self._config.privacy.epsilon else None
        return shared_notes(self._config, self._plan, affordable)

    def check_run(self, rounds: int, finished: int = 0) -> None:
        """Refuse a run whose ledger could not pay for its rounds after the last finished one.

        Raises:
            BudgetExceededError: It could not; recorded, nothing was sent.
        """
        if self._charges is not None:
            self._charges.check_run(rounds, finished)

    def check_round(self, number: int) -> None:
        """Refuse a round that could exceed the target.

        Raises:
            TargetEpsilonError: It could; recorded, nothing was sent.
        """
        self._spending.check_round(number)

    def before_opening(self, number: int, survivors: int) -> None:
        """Charge the sum that is about to be opened."""
        self._spending.charge(number, survivors)

    def finish(self) -> dict[str, Any]:
        """Record epsilon against each adversary; return the block `privacy` of summary.json."""
        return shared_summary(self._config, self._plan, self._spending.state_epsilon(), deployed=self._deployed)

    def close(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            self._ledger.close()
