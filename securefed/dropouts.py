"""Which site is lost in which round, at which stage: the losses that a simulation brings about."""

from collections.abc import Mapping, Sequence

import numpy as np

from protocols.parameters import COMPLETE_UP_TO
from protocols.stages import Stage, ThreatModel
from securefed.config import PLAIN_STAGE, RING_STAGE, STAGES, RunConfig, SimulationConfig
from securefed.errors import ConfigError

_CHECK = Stage.CONSISTENCY_CHECK.value


def dropouts_of_round(
    config: SimulationConfig,
    sites: Sequence[str],
    round_number: int,
    seed: int,
    bearable: int,
    *,
    semi_honest: bool = False,
) -> Mapping[str, str]:
    """Return {site: stage at which it is lost} for one round.

    The draws of `config.dropout` depend on (seed, round) alone, so that a resumed run loses the same sites; entries of
    `config.drop` are stronger, are kept whatever they lead to, and leave fewer to be lost at random.

    Args:
        config: Rate and named losses.
        sites: All sites.
        round_number: The round.
        seed: Seed of the run.
        bearable: Sites that may be lost without ending the round; of more that are drawn, those with the smallest draws
            are. A round beyond that would end without a sum, and clients refuse to sum updates of one model over
            another set afterwards.
        semi_honest: Whether rounds are; a loss that is drawn for the ConsistencyCheck, which they leave out, is one at
            the Unmasking that follows.
    """
    named = {site: stage for (site, number), stage in config.schedule().items() if number == round_number}
    rng = np.random.Generator(np.random.Philox(key=[seed, round_number], counter=[0, 0, 0, 0xD0]))
    drawn: dict[str, tuple[float, str]] = {}
    for site in sorted(sites):
        chance, stage = rng.random(), STAGES[int(rng.integers(len(STAGES)))]
        if semi_honest and stage == _CHECK:
            stage = Stage.UNMASKING.value
        if chance < config.dropout and site not in named:
            drawn[site] = chance, stage
    bearable = max(0, bearable - len(named))
    lost = {site: drawn[site][1] for site in sorted(drawn, key=lambda site: drawn[site][0])[:bearable]}
    return {**lost, **named}


def is_semi_honest(config: RunConfig) -> bool:
    """Return whether rounds leave out the ConsistencyCheck, and in clear the losses at it."""
    return config.secure_aggregation.threat_model == ThreatModel.SEMI_HONEST.value


def check_schedule(config: RunConfig, sites: Sequence[str]) -> None:
    """Refuse `drop` entries that name no site of this run, a round that will not come, or a stage of other sums.

    Stages of masks are taken in clear too, where the same losses follow as under masks (docs/adr/0002).
    """
    masked, rounds = config.secure_aggregation.enabled, config.federation.rounds
    early = "ShareKeys or MaskedInputCollection" if masked else PLAIN_STAGE
    lacking: dict[str, tuple[str, str]] = {}
    if not masked or len(sites) <= COMPLETE_UP_TO:
        lacking[RING_STAGE] = f"rounds under masks of more than {COMPLETE_UP_TO} sites", early
    if masked:
        lacking[PLAIN_STAGE] = "rounds in clear", early
    if is_semi_honest(config):
        lacking[_CHECK] = "rounds with the threat model active", Stage.UNMASKING.value
    for (site, number), stage in config.simulation.schedule().items():
        if stage in lacking:
            where, instead = lacking[stage]
            raise ConfigError("simulation.drop", f"{site}@{number}:{stage}: only {where} have it; use {instead}")
        if site not in sites:
            raise ConfigError("simulation.drop", f"there is no site {site!r}; the sites are {', '.join(sites)}")
        if number > rounds:
            raise ConfigError("simulation.drop", f"{site}@{number}: the run has {rounds} rounds")
