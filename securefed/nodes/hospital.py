"""The hospital behind a site node: its features, its MLP, and what it keeps of a finished run.

Features and torch are loaded when the first round needs them, so that a process which serves one message of another
stage does not pay for them.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.encoders import FeatureBundle
from clients.method.threads import one_thread_each
from securefed.config import RunConfig, write_config
from securefed.errors import ConfigError
from securefed.hospitals import Hospitals
from securefed.outcome import Outcome, write_outcome
from securefed.privacy.at_site import SitePrivacy
from securefed.run_folder import Arrays, RunFolder
from securefed.summary import privacy_off

Vector = NDArray[np.float32]


class SiteHospital:
    """One hospital of a deployment.

    It trains in one thread, as each hospital of a simulation does: sums that several threads make differ in their last
    bits, and the model would depend on the machine.

    Args:
        site: Its name in the roster.
        open_bundle: Loads the features: a bundle of this site alone, with the study's classes and prompts.
        config: The agreed configuration, with this site's own device.
        results: Folder for what is kept of finished runs.
        privacy: What it does about differential privacy; needed where the configuration has a privacy mode.
        study: Digest of the study, for the model card; "" where there is none.
        settings: The site.toml that it runs with, for `evaluate` to find the data again; "" where there is none.
    """

    def __init__(
        self,
        site: str,
        open_bundle: Callable[[], FeatureBundle],
        config: RunConfig,
        results: Path,
        privacy: SitePrivacy | None = None,
        *,
        study: str = "",
        settings: str = "",
    ) -> None:
        if config.privacy.enabled and privacy is None:
            raise ConfigError("privacy.mode", f"{config.privacy.mode} at {site} without a ledger to charge")
        self._privacy = privacy
        self._site = site
        self._open_bundle = open_bundle
        self._config = config
        self._results = results
        self._study = study
        self._settings = settings
        self._bundle: FeatureBundle | None = None
        self._loaded: Hospitals | None = None
        self._state: Arrays = {}

    def train(self, received: Vector, number: int) -> Vector:
        """Train one round and return the update float32[d]."""
        with one_thread_each():
            return self._hospitals().train(self._site, received, number)

    def score(self, received: Vector) -> float:
        """Return the accuracy of the site's ensemble on its validation images."""
        with one_thread_each():
            return self._hospitals().score(self._site, received)

    def private_state(self) -> Arrays:
        """Return the MLP and what belongs to it; {} before anything was trained."""
        return dict(self._state) if self._loaded is None else self._loaded.private_states()[self._site]

    def load_private_state(self, state: Arrays) -> None:
        """Put back what `private_state` returned; {} begins anew."""
        self._state = dict(state)
        if state and self._loaded is not None:
            self._loaded.load_private_states({self._site: state})
        else:
            self._loaded = None

    def keep(self, run_id: str, vector: Vector, chosen: int, state: Arrays) -> None:
        """Evaluate the kept model on this site's test images and write it, its MLP and all metrics into a folder.

        The folder is one that `evaluate` and `predict` read. It replaces what an earlier call left. A call that fails
        leaves nothing, and the site's present state as it was.

        Args:
            run_id: The run; the folder's name.
            vector: float32[d], the kept shared parameters.
            chosen: Round of the kept model.
            state: The site's private state after that round; {} of a site that trained in none.

        Raises:
            OSError, RunFolderError: The disk refuses.
        """
        present = self.private_state()
        part, final = self._results / f".{run_id}.part", self._results / run_id
        shutil.rmtree(part, ignore_errors=True)
        try:
            self.load_private_state(state)
            self._write(part, run_id, vector, chosen)
            shutil.rmtree(final, ignore_errors=True)
            part.rename(final)
        finally:
            shutil.rmtree(part, ignore_errors=True)
            self.load_private_state(present)

    def _write(self, path: Path, run_id: str, vector: Vector, chosen: int) -> None:
        bundle, hospitals = self._features(), self._hospitals()
        folder = RunFolder.create(path, "", _never(), path)
        path.chmod(0o700)
        start = time.perf_counter()
        write_config(self._config, folder.config)
        if self._settings:
            folder.write_text(folder.hospital, self._settings)
        privacy = privacy_off(self._config) if self._privacy is None else self._privacy.summary()
        secure = {"enabled": self._config.secure_aggregation.enabled}
        rounds, study = self._config.federation.rounds, self._study
        outcome = Outcome(hospitals, vector, rounds, chosen, secure, privacy, name=run_id, study=study)
        with one_thread_each():
            write_outcome(folder, self._config, bundle, outcome, {"total": time.perf_counter() - start})

    def _hospitals(self) -> Hospitals:
        if self._loaded is None:
            federation, features = self._config.federation, self._features()
            if self._privacy is not None:
                self._loaded = self._privacy.hospitals(features, federation.device)
            else:
                self._loaded = Hospitals(
                    features, self._config.training, federation.method, federation.seed, federation.device
                )
            if self._state:
                self._loaded.load_private_states({self._site: self._state})
        return self._loaded

    def _features(self) -> FeatureBundle:
        if self._bundle is None:
            self._bundle = self._open_bundle()
            (site,) = self._bundle.sites
            if self._config.federation.select == "best-val" and not site.val.labels.size:
                raise ConfigError("federation.select", f"best-val needs validation images and {self._site} has none")
        return self._bundle


def _never() -> Any:
    """A folder that is named exactly takes no part of its name from a clock."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(0, UTC)
