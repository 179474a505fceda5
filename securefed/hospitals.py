"""The hospitals of a simulation: one `clients.method.Hospital` a site, addressed by the site's name."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.encoders import FeatureBundle
from clients.method.hospital import Hospital
from clients.method.settings import TrainingSettings
from securefed.run_folder import Arrays

Vector = NDArray[np.float32]


class Hospitals:
    """All sites that train, each with its own data and MLP.

    Args:
        bundle: Features of all sites.
        settings: Training settings, the same everywhere.
        method: Name of the method.
        seed: Seed of the run; each site derives its own generators from it.
        device: `cpu` or `cuda`.

    Attributes:
        seconds: Spent in `train` and `score` so far.
    """

    def __init__(self, bundle: FeatureBundle, settings: TrainingSettings, method: str, seed: int, device: str) -> None:
        self._hospitals = {
            site.site: Hospital(site, bundle.text_features, bundle.logit_scale, settings, method, seed, device)
            for site in bundle.sites
        }
        self.seconds = 0.0
        self._validation: dict[str, NDArray[np.int64]] = {site.site: site.val.labels for site in bundle.sites}

    @property
    def sites(self) -> Sequence[str]:
        """Names of the sites, in the order of the data set."""
        return tuple(self._hospitals)

    def train(self, site: str, received: Vector, number: int) -> Vector:
        """Train one round at a site from the global vector float32[d]; return its update float32[d]."""
        start = time.perf_counter()
        update = self._hospitals[site].train_round(received, number)
        self.seconds += time.perf_counter() - start
        return update

    def score(self, site: str, received: Vector) -> float:
        """Return the accuracy in [0, 1] of the site's ensemble with the received model on its validation images."""
        start = time.perf_counter()
        accuracy = self._accuracy(site, received)["ensemble"]
        self.seconds += time.perf_counter() - start
        return accuracy

    def validation_accuracy(self, vector: Vector) -> dict[str, dict[str, float]]:
        """Return {site: {part: accuracy on the validation images}}; sites without such images are left out."""
        return {site: self._accuracy(site, vector) for site, labels in self._validation.items() if labels.size}

    def predict(self, site: str, vector: Vector, split: str) -> Mapping[str, NDArray[np.float32]]:
        """Return {part: probabilities float32[N, C]} on a split of a site."""
        return self._hospitals[site].predict(vector, split)

    def keep_ratios(self, vector: Vector) -> dict[str, dict[str, float]]:
        """Return {site: {part: share of the rows that the masked layers keep}}."""
        return {site: dict(hospital.keep_ratios(vector)) for site, hospital in self._hospitals.items()}

    def private_states(self) -> dict[str, Arrays]:
        """Return what each site keeps to itself (its MLP), as copies."""
        return {site: hospital.private_state() for site, hospital in self._hospitals.items()}

    def load_private_states(self, states: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
        """Put back what `private_states` returned."""
        for site, state in states.items():
            self._hospitals[site].load_private_state(dict(state))

    def _accuracy(self, site: str, vector: Vector) -> dict[str, float]:
        labels = self._validation[site]
        parts = self._hospitals[site].predict(vector, "val")
        return {part: float((scores.argmax(axis=1) == labels).mean()) for part, scores in parts.items()}
