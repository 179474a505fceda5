"""What differential privacy adds to a run of the mode `local`: who trains, what is recorded, what it has cost."""

from functools import partial
from typing import TYPE_CHECKING, Any

from audit.data_name import named_data
from audit.ledger import run_of_log
from clients.data import ImageDataset, fingerprint, patient_grouping
from clients.encoders import FeatureBundle
from protocols.noise import NoisePlan
from securefed.config import RunConfig, profile_name
from securefed.evidence import RunEvidence
from securefed.privacy.claim import claim_fields, privacy_summary
from securefed.privacy.mechanism import local_cost
from securefed.privacy.releases import ReleaseStore
from securefed.privacy.shared_run import SharedPrivacy
from securefed.privacy.spending import VIEWS, Spending, open_ledger
from securefed.run_folder import RunFolder

if TYPE_CHECKING:
    from securefed.privacy.hospitals import PrivateHospitals


class LocalPrivacy:
    """Differential privacy of one run, mode `local`.

    Args:
        config: The run's configuration.
        evidence: Its log.
        folder: Its folder.
        dataset: Its data, for patients and fingerprints.
    """

    def __init__(self, config: RunConfig, evidence: RunEvidence, folder: RunFolder, dataset: ImageDataset) -> None:
        self._config = config
        self._sites = tuple(dataset.sites)
        self._patients = {record.path: record.patient for record in dataset.records}
        self._ledger = open_ledger(config.privacy)
        self._releases = ReleaseStore(folder)
        self._replayed = False
        self.spending = Spending(
            evidence.log,
            run_of_log(evidence.log.events),
            config.privacy,
            local_cost(config.privacy, config.federation.rounds),
            {site: fingerprint(dataset, site) for site in self._sites},
            self._ledger,
            named=partial(named_data, folder.data_key),
            planned=config.federation.rounds,
        )

    def hospitals(self, bundle: FeatureBundle, device: str, workers: int) -> "PrivateHospitals":
        """Return the hospitals, which charge what they release."""
        from securefed.privacy.hospitals import PrivateHospitals

        hospitals = PrivateHospitals(
            bundle,
            self._config,
            device,
            self._patients,
            self.spending,
            self._releases,
            workers,
            self.spending.charge,
        )
        self._replayed = hospitals.replayed
        return hospitals

    def check_run(self, rounds: int, finished: int = 0) -> None:
        """Refuse a run whose ledger could not pay for its rounds after the last finished one.

        Raises:
            BudgetExceededError: It could not; recorded, nothing was sent.
        """
        self.spending.check_run(rounds, finished)

    def check_round(self, number: int) -> None:
        """Refuse a round whose releases would exceed the target.

        Raises:
            TargetEpsilonError: They would; recorded, nothing was released.
        """
        self.spending.check_round(number)

    def before_opening(self, number: int, survivors: int) -> None:
        """Nothing: each hospital has charged what it sent."""

    def claim(self) -> dict[str, Any]:
        """Return the fields of the event `privacy_claim`."""
        return claim_fields(self._config, replayed=self._replayed)

    def notes(self) -> list[str]:
        """Return what a watcher should know before the first round."""
        privacy, rounds = self._config.privacy, self._config.federation.rounds
        values = self.claim()["values"]
        lines = [
            f"differential privacy: {privacy.mode}, {privacy.unit} level, {privacy.adjacency}, delta {privacy.delta:g}",
            f"noise multipliers {values['noise_multipliers']}, steps a round: {values['steps_a_round']}",
        ]
        profile = profile_name(self._config.training)
        if profile.startswith("private"):
            lines.append(f"training profile: {profile} (docs/privacy.md), the default with --dp")
        if (borne := self.spending.borne(rounds)) < rounds:
            lines.append(f"epsilon {privacy.epsilon:g} allows {borne} of {rounds} rounds with this noise")
        return lines

    def finish(self) -> dict[str, Any]:
        """Record epsilon against each adversary; return the block `privacy` of summary.json."""
        self.spending.state_epsilon(VIEWS)
        self._releases.discard(self._sites)
        return privacy_summary(self._config, self.spending.epsilon(), replayed=self._replayed)

    def close(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            self._ledger.close()


def named_patients(config: RunConfig, folder: RunFolder, dataset: ImageDataset) -> str:
    """Return what a run's record calls the grouping of images by patient; "" where patients are not the unit."""
    return named_data(folder.data_key, patient_grouping(dataset)) if config.privacy.unit == "patient" else ""


def start_privacy(
    config: RunConfig, evidence: RunEvidence, folder: RunFolder, dataset: ImageDataset, plan: NoisePlan | None
) -> LocalPrivacy | SharedPrivacy | None:
    """Return what differential privacy adds to a run; None without it. `plan` is the noise of shares, if there are."""
    if not config.privacy.enabled:
        return None
    if plan is None:
        return LocalPrivacy(config, evidence, folder, dataset)
    return SharedPrivacy(
        config,
        evidence.log,
        plan,
        run_of_log(evidence.log.events),
        {record.path: record.patient for record in dataset.records},
        {site: fingerprint(dataset, site) for site in dataset.sites},
        open_ledger(config.privacy),
        partial(named_data, folder.data_key),
    )
