"""The hospitals of the mode `local`: each pays for a release, makes it, keeps it, and then sends it.

All of a simulation, or the one of a deployed site: the same steps, paid for from one book or from the site's own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from clients.encoders import FeatureBundle
from clients.method.parts import build_model
from clients.privacy import PrivacySettings, PrivateHospital, Randomness
from clients.privacy.fleet import PrivateFleet, PrivatelyTrained
from securefed.config import RunConfig
from securefed.hospitals import Hospitals
from securefed.model_file import vector_digest
from securefed.privacy.ahead import Ahead
from securefed.privacy.mechanism import step_settings
from securefed.privacy.releases import ReleaseStore
from securefed.privacy.rules import require_patients

Vector = NDArray[np.float32]
T = TypeVar("T")
Charge = Callable[[str, int, str], None]
"""Called with (site, round, release id) before the release is made; raises where the site does not pay for it."""


class Payer(Protocol):
    """Who charges releases; `securefed.privacy.spending.Spending` is one."""

    def release_id(self, site: str, number: int, model_digest: str) -> str:
        """Return the name of the release of a hospital in a round, for a received model (SHA-256, hex)."""
        ...

    def release(self, site: str, number: int, release_id: str, make: Callable[[], T]) -> T:
        """Charge a release, unless that was done before, then make it."""
        ...

    def settle(self, site: str, number: int, release_id: str) -> None:
        """Record that a paid release is made and kept, before it leaves."""
        ...


class PrivateHospitals(Hospitals):
    """All sites that train, with differential privacy.

    Args:
        bundle: Features of all sites.
        config: The run's configuration.
        device: `cpu` or `cuda`.
        patients: {path of an image: its patient or None}.
        spending: Who charges what is released.
        releases: Where a paid release is kept until its round is final.
        workers: Sites that work at the same time.
        charge: Charges releases of which several are made at once: all sites that `expect` names are charged, in that
            order, as the first one is asked to train. None where a site pays as it trains.
        together: Whether a round is then trained for all of them in one batched computation; None for that on a GPU.
    """

    def __init__(
        self,
        bundle: FeatureBundle,
        config: RunConfig,
        device: str,
        patients: Mapping[str, str | None],
        spending: Payer,
        releases: ReleaseStore,
        workers: int = 1,
        charge: Charge | None = None,
        together: bool | None = None,
    ) -> None:
        step = step_settings(config.privacy, config.federation.rounds)
        self._private = private_sites(bundle, config, device, patients, step)
        super().__init__(
            bundle,
            config.training,
            config.federation.method,
            config.federation.seed,
            device,
            workers=workers,
            hospitals=self._private,
        )
        self._seed = config.federation.seed if config.privacy.noise == "seeded" else None
        self._spending = spending
        self._releases = releases
        self._charge = charge
        self._fleet: PrivateFleet | None = None
        if charge is not None and (device == "cuda" if together is None else together):
            self._fleet = private_fleet(bundle, config, device, step)
        at_once = charge is not None and (self._fleet is not None or workers > 1)
        self._round: Ahead[PrivatelyTrained] | None = Ahead(self._charge_and_train) if at_once else None

    @property
    def replayed(self) -> bool:
        """Whether each hospital has replayed its steps when it started."""
        return all(hospital.replayed for hospital in self._private.values())

    def expect(self, number: int, sites: Sequence[str]) -> None:
        """Say which sites are about to train in a round."""
        if self._round is not None:
            self._round.expect(number, sites)

    def train(self, site: str, received: Vector, number: int) -> Vector:
        """Return the private update float32[d] of a site: of the release that it has paid for, or of a new one."""
        release_id = self._spending.release_id(site, number, vector_digest(received))
        hospital = self._private[site]

        def make() -> Vector:
            if ahead is None:
                made = hospital.train_round(received, number, self._randomness(site, number))
            else:
                made = hospital.adopt_private(ahead, received, number)
            self._releases.save(site, release_id, made, hospital.private_state())
            return made

        with self._work.running():
            self._scored.pop(site, None)
            ahead = self._round.take(site, received, number) if self._round is not None else None
            kept = self._releases.load(site, release_id)
            if kept is None:
                return self._spending.release(site, number, release_id, make)
            self._spending.settle(site, number, release_id)
            update, private = kept
            hospital.load_private_state(private)
            return update

    def _charge_and_train(self, sites: Sequence[str], received: Vector, number: int) -> Mapping[str, PrivatelyTrained]:
        """Charge all sites that have no paid release, in their order; then train these, where they train together.

        Nothing of it is a release yet: each site keeps and sends its own when it is asked, as if it had trained then.
        One that is not asked any more has paid for nothing, but has paid.
        """
        assert self._charge is not None  # noqa: S101 (the caller has looked)
        digest = vector_digest(received)
        names = {site: self._spending.release_id(site, number, digest) for site in sites}
        due = [site for site, name in names.items() if self._releases.load(site, name) is None]
        for site in due:
            self._charge(site, number, names[site])
        if self._fleet is None:
            return {}
        trainees = [self._private[site].private_trainee(self._randomness(site, number)) for site in due]
        return dict(zip(due, self._fleet.train(received, trainees, number), strict=True))

    def _randomness(self, site: str, number: int) -> Randomness:
        if self._seed is None:
            return Randomness.of_the_system()
        return Randomness.of_a_seed(self._seed, site, number)


def private_fleet(
    bundle: FeatureBundle, config: RunConfig, device: str, step: PrivacySettings, *, double: bool = False
) -> PrivateFleet:
    """Return a fleet for the hospitals of `private_sites`; `double` is for sums without noise (`clipped_sums`)."""
    text, scale, method = bundle.text_features, bundle.logit_scale, config.federation.method
    model = build_model(text, scale, config.training, method, site="", seed=0, device=device)
    assert model is not None  # noqa: S101 (private methods train one)
    return PrivateFleet(model.double() if double else model, method, step)


def private_sites(
    bundle: FeatureBundle,
    config: RunConfig,
    device: str,
    patients: Mapping[str, str | None],
    step: PrivacySettings,
) -> dict[str, PrivateHospital]:
    """Return {site: a hospital that takes private steps}.

    Raises:
        ConfigError: Patients are the unit, and an image has none.
    """
    made: dict[str, PrivateHospital] = {}
    for site in bundle.sites:
        named: Sequence[str | None] = [patients.get(path) for path in site.train.paths]
        require_patients(step.unit, site.site, named)
        made[site.site] = PrivateHospital(
            site,
            bundle.text_features,
            bundle.logit_scale,
            config.training,
            step,
            named,
            config.federation.method,
            config.federation.seed,
            device,
            site.train.digests,
        )
    return made
