"""Which federations can protect their members at all: refused before anything is computed."""

from collections.abc import Sequence

from protocols.parameters import COMPLETE_UP_TO, MIN_COHORT, MIN_HONEST_SURVIVORS, default_corrupt, least_threshold
from protocols.stages import ThreatModel
from securefed.config import RunConfig
from securefed.errors import ConfigError
from securefed.privacy.shared_noise import SHARED_MODES, require_honest_noise


def check_cohort(config: RunConfig, sites: Sequence[str], *, of_study: bool = False) -> None:
    """Refuse a federation that cannot protect its members, before anything is computed.

    Args:
        config: Its configuration.
        sites: The hospitals that train.
        of_study: Whether they are those of a study's roster: its lead has no data to deal.

    Raises:
        ConfigError: There are too few hospitals, or threshold, corrupt and colluders do not fit their number; in clear
            too, where the same losses end a round.
    """
    if not config.aggregates:
        return
    secure, n = config.secure_aggregation, len(sites)
    if n < MIN_COHORT:
        few = f"a sum over {n} hospital{'s' * (n != 1)} hides nobody, at least {MIN_COHORT} are needed; "
        if of_study:
            raise ConfigError("roster.hospitals", f"{few}make a roster with the keys of more (securefed keys roster)")
        raise ConfigError(
            "secure_aggregation.enabled" if secure.enabled else "data.source",
            f"{few}partition a single-site set with --clients N, or train each on its own with --method local",
        )
    corrupt = default_corrupt(n) if secure.corrupt < 0 else secure.corrupt
    if corrupt > n - MIN_HONEST_SURVIVORS:
        raise ConfigError(
            "secure_aggregation.corrupt",
            f"{corrupt} of {n} hospitals: at least {MIN_HONEST_SURVIVORS} honest ones must be in every sum; "
            f"use at most {n - MIN_HONEST_SURVIVORS}",
        )
    least = least_threshold(n, corrupt, ThreatModel(secure.threat_model))
    if secure.threshold and n > COMPLETE_UP_TO:
        raise ConfigError(
            "secure_aggregation.threshold", f"is planned for more than {COMPLETE_UP_TO} hospitals; leave it at 0"
        )
    if secure.threshold and not least <= secure.threshold <= n:
        raise ConfigError(
            "secure_aggregation.threshold",
            f"{secure.threshold} is not safe for {n} hospitals of whom {corrupt} may collude; use {least} to {n}",
        )
    if config.privacy.mode in SHARED_MODES and n <= COMPLETE_UP_TO:
        require_honest_noise(config.privacy, max(corrupt + MIN_HONEST_SURVIVORS, secure.threshold or least))
