"""Methods that aggregate nothing: each hospital alone (`local`, `linear-probe`) or just the encoder (`zero-shot`)."""

from collections.abc import Callable, Sequence

import numpy as np

from clients.encoders import FeatureBundle
from securefed.config import RunConfig
from securefed.errors import ConfigError, DivergedError
from securefed.hospitals import Hospitals
from securefed.run_folder import MetricRow

NOTHING_SHARED = np.zeros(0, np.float32)
"""The shared vector of methods that share nothing."""


def require_training(config: RunConfig, without: Sequence[str]) -> None:
    """Refuse a linear probe where sites have no training image.

    Args:
        config: The run's configuration.
        without: The sites that have none.

    Raises:
        ConfigError: Names them.
    """
    if config.federation.method == "linear-probe" and without:
        raise ConfigError(
            "federation.method",
            f"linear-probe needs training images at every site and {', '.join(without)} has none; leave it out of "
            "the data, or hold it out with --global-site",
        )


def train_alone(
    config: RunConfig, hospitals: Hospitals, bundle: FeatureBundle, finished: Callable[[int, list[MetricRow]], None]
) -> int:
    """Train every hospital on its own data and leave it with its own best round; return the rounds that were run.

    The selection rule is that of the federation, applied by each hospital to itself: the round with its best validation
    accuracy (`best-val`, where it has validation images) or the last.

    Args:
        config: The run's configuration.
        hospitals: The hospitals.
        bundle: Features of all sites.
        finished: Called after each round with its lines of metrics.csv.

    Raises:
        ConfigError: A linear probe is asked for, and a site has no training image.
        DivergedError: A site's model predicts nothing finite after a round.
    """
    if config.federation.method == "zero-shot":
        return 0
    if config.federation.method == "linear-probe":
        require_training(config, [site.site for site in bundle.sites if not site.train.labels.size])
        hospitals.train_all(NOTHING_SHARED, 1)
        return 1
    chosen = {site.site for site in bundle.sites if site.val.labels.size and config.federation.select == "best-val"}
    best: dict[str, float] = dict.fromkeys(chosen, -1.0)
    kept = hospitals.private_states()
    for number in range(1, config.federation.rounds + 1):
        hospitals.train_all(NOTHING_SHARED, number)
        accuracy = hospitals.validation_accuracy(NOTHING_SHARED)
        if diverged := hospitals.diverged():
            raise DivergedError(diverged, number)
        states = hospitals.private_states()
        for site in hospitals.sites:
            if site not in best:
                kept[site] = states[site]
            elif accuracy[site]["ensemble"] > best[site]:
                best[site], kept[site] = accuracy[site]["ensemble"], states[site]
        finished(
            number,
            [
                MetricRow(number, site, "val", part, "accuracy", value)
                for site, parts in accuracy.items()
                for part, value in parts.items()
            ],
        )
    hospitals.load_private_states(kept)
    return config.federation.rounds
