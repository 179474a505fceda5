"""The hospitals of the mode `hospital`: each returns a whole update as without privacy.

All of a simulation, or the one of a deployed site. A vector is paid for before it goes to the channel, which clips it
and adds noise, and so before anything of it leaves.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from clients.encoders import FeatureBundle
from securefed.config import RunConfig
from securefed.hospitals import Hospitals

Vector = NDArray[np.float32]
Pay = Callable[[str, int], None]
"""Called with (site, round) before a vector is handed out; raises where the site does not pay for it."""


def unpaid(_site: str, _number: int) -> None:
    """Where there is no ledger."""


class UpdatingHospitals(Hospitals):
    """All sites that train, each a whole update a round as without privacy; it is paid for before it is handed out.

    Args:
        bundle: Features of all sites.
        config: The run's configuration.
        device: `cpu` or `cuda`.
        workers: Sites that are evaluated at the same time.
        pay: Pays for a vector.
    """

    def __init__(
        self, bundle: FeatureBundle, config: RunConfig, device: str, workers: int = 1, pay: Pay = unpaid
    ) -> None:
        method, seed = config.federation.method, config.federation.seed
        super().__init__(bundle, config.training, method, seed, device, workers=workers)
        self._pay = pay

    def train(self, site: str, received: Vector, number: int) -> Vector:
        """Return the update float32[d] of a site."""
        update = super().train(site, received, number)
        self._pay(site, number)
        return update
