"""What differential privacy adds to a run whose hospitals add the noise in shares: `distributed` and `hospital`."""

from typing import Any

from clients.data import ImageDataset
from clients.encoders import FeatureBundle
from protocols.noise import NoisePlan
from securefed.config import RunConfig
from securefed.evidence import RunEvidence
from securefed.hospitals import Hospitals
from securefed.privacy.shared_claim import shared_claim, shared_notes
from securefed.privacy.shared_spending import SharedSpending


class SharedPrivacy:
    """Differential privacy of one run in which hospitals add noise in shares.

    Args:
        config: The run's configuration.
        evidence: Its log.
        dataset: Its data, for patients.
        plan: Grid, ring and noise.
    """

    def __init__(self, config: RunConfig, evidence: RunEvidence, dataset: ImageDataset, plan: NoisePlan) -> None:
        self._config = config
        self._plan = plan
        self._patients = {record.path: record.patient for record in dataset.records}
        self._spending = SharedSpending(evidence.log, config.privacy, plan)

    def hospitals(self, bundle: FeatureBundle, device: str, workers: int) -> Hospitals:
        """Return the hospitals: they send clipped sums, or whole updates that the channel clips."""
        config = self._config
        if config.privacy.mode == "distributed":
            from securefed.privacy.shared_hospitals import SummingHospitals  # loads Opacus

            return SummingHospitals(bundle, config, device, self._patients, workers)
        method, seed = config.federation.method, config.federation.seed
        return Hospitals(bundle, config.training, method, seed, device, workers=workers)

    def claim(self) -> dict[str, Any]:
        """Return the fields of the event `privacy_claim`."""
        return shared_claim(self._config, self._plan)

    def notes(self) -> list[str]:
        """Return what a watcher should know before the first round."""
        return shared_notes(self._config, self._plan, self._spending.affordable)

    def check_run(self, rounds: int) -> None:
        """Nothing: there is no ledger in these modes (rule P16 of docs/privacy.md)."""

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
        privacy, views = self._config.privacy, self._spending.state_epsilon()
        fields = self.claim()
        return {
            "mode": privacy.mode,
            "epsilon": views["aggregate_only"],
            "delta": privacy.delta,
            "unit": privacy.unit,
            "claim": f"{fields['claim']}: {fields['reason']}",
            "adjacency": privacy.adjacency,
            "target_epsilon": privacy.epsilon or None,
            "epsilon_by_adversary": views,
            "noise": privacy.noise,
            "coupling": privacy.coupling,
            "mechanism": fields["values"],
            "unprotected": fields["unprotected"],
        }

    def close(self) -> None:
        """Nothing is held."""
