"""The hospitals of the mode `distributed`: each returns the clipped sum of one step, without noise.

All of a simulation, or the one of a deployed site. The channel adds the hospital's share of the noise; nothing of the
sum leaves before.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from clients.encoders import FeatureBundle
from clients.privacy import PrivacySettings, PrivateHospital, Randomness
from clients.privacy.fleet import PrivateFleet
from securefed.config import PrivacyConfig, RunConfig
from securefed.hospitals import Hospitals
from securefed.privacy.ahead import Ahead
from securefed.privacy.hospitals import private_fleet, private_sites
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
        together: Whether the sums of a round are made for all sites in one batched computation; None for that on a GPU.
    """

    def __init__(
        self,
        bundle: FeatureBundle,
        config: RunConfig,
        device: str,
        patients: Mapping[str, str | None],
        workers: int = 1,
        pay: Pay = unpaid,
        together: bool | None = None,
    ) -> None:
        step = _step(config.privacy)
        self._private: dict[str, PrivateHospital] = private_sites(bundle, config, device, patients, step)
        method, seed = config.federation.method, config.federation.seed
        super().__init__(bundle, config.training, method, seed, device, workers=workers, hospitals=self._private)
        self._seed = seed if config.privacy.noise == "seeded" else None
        self._pay = pay
        self._fleet: PrivateFleet | None = None
        if device == "cuda" if together is None else together:
            self._fleet = private_fleet(bundle, config, device, step, double=True)
        self._sums: Ahead[Vector] | None = None if self._fleet is None else Ahead(self._sum_all)

    def expect(self, number: int, sites: Sequence[str]) -> None:
        """Say which sites are about to train in a round."""
        if self._sums is not None:
            self._sums.expect(number, sites)

    def train(self, site: str, received: Vector, number: int) -> Vector:
        """Return the clipped sum float64[d] of a site's gradients at the received model; the MLP learns as well."""
        hospital = self._private[site]
        with self._work.running():
            self._scored.pop(site, None)
            ahead = self._sums.take(site, received, number) if self._sums is not None else None
            if ahead is None:
                summed = cast("Vector", hospital.clipped_sum(received, number, self._randomness(site, number)).vector)
            else:
                summed = ahead
                hospital.receive(received)
            hospital.train_mlp(number)
        self._pay(site, number)
        return summed

    def _sum_all(self, sites: Sequence[str], received: Vector, number: int) -> Mapping[str, Vector]:
        """Sum for all sites at once; none of it leaves before its site has paid, and has added its share of noise."""
        assert self._fleet is not None  # noqa: S101 (narrows the type)
        trainees = [self._private[site].private_trainee(self._randomness(site, number)) for site in sites]
        summed = self._fleet.clipped_sums(received, trainees)
        return {site: cast("Vector", vector) for site, vector in zip(sites, summed, strict=True)}

    def _randomness(self, site: str, number: int) -> Randomness:
        return Randomness.of_the_system() if self._seed is None else Randomness.of_a_seed(self._seed, site, number)


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
