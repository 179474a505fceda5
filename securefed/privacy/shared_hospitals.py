"""The hospitals of the mode `distributed`: each returns the clipped sum of one step, without noise.

All of a simulation, or the one of a deployed site. The channel adds the hospital's share of the noise; nothing of the
sum leaves before.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from clients.encoders import FeatureBundle
from clients.privacy import PrivacySettings, PrivateHospital, Randomness
from securefed.config import PrivacyConfig, RunConfig
from securefed.hospitals import Hospitals
from securefed.privacy.hospitals import private_sites
from securefed.privacy.paid_updates import Pay, unpaid

Vector = NDArray[np.float32]


class SummingHospitals(Hospitals):
    """All sites that train, one clipped sum a round.

    Args:
        bundle: Features of all sites.
        config: The run's configuration.
        device: `cpu` or `cuda`.
        patients: {path of an image: its patient or None}.
        workers: Sites that are evaluated at the same time.
        pay: Pays for a vector.
    """

    def __init__(
        self,
        bundle: FeatureBundle,
        config: RunConfig,
        device: str,
        patients: Mapping[str, str | None],
        workers: int = 1,
        pay: Pay = unpaid,
    ) -> None:
        self._private: dict[str, PrivateHospital] = private_sites(
            bundle, config, device, patients, _step(config.privacy)
        )
        method, seed = config.federation.method, config.federation.seed
        super().__init__(bundle, config.training, method, seed, device, workers=workers, hospitals=self._private)
        self._seed = seed if config.privacy.noise == "seeded" else None
        self._pay = pay

    def train(self, site: str, received: Vector, number: int) -> Vector:
        """Return the clipped sum float32[d] of a site's gradients at the received model; the MLP learns as well."""
        source = Randomness.of_the_system() if self._seed is None else Randomness.of_a_seed(self._seed, site, number)
        hospital = self._private[site]
        with self._work.running():
            self._scored.pop(site, None)
            summed = hospital.clipped_sum(received, number, source).vector
            hospital.train_mlp(number)
        self._pay(site, number)
        return summed


def _step(privacy: PrivacyConfig) -> PrivacySettings:
    """The private step of a hospital whose noise is added later."""
    return PrivacySettings(
        unit=privacy.unit,
        coupling="one-way",
        clip_norms=(privacy.clip_norm,),
        noise_multipliers=(0.0,),
        sampling_rate=privacy.sampling_rate,
        steps=1,
        normaliser=privacy.normaliser,
    )
