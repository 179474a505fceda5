"""Which site is lost in which round, at which stage: the losses that a simulation brings about."""

from collections.abc import Mapping, Sequence

import numpy as np

from protocols.parameters import COMPLETE_UP_TO
from securefed.config import PLAIN_STAGE, RING_STAGE, STAGES, RunConfig, SimulationConfig
from securefed.errors import ConfigError


def dropouts_of_round(
    config: SimulationConfig, sites: Sequence[str], round_number: int, seed: int, bearable: int
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
    """
    named = {site: stage for (site, number), stage in config.schedule().items() if number == round_number}
    rng = np.random.Generator(np.random.Philox(key=[seed, round_number], counter=[0, 0, 0, 0xD0]))
    drawn: dict[str, tuple[float, str]] = {}
    for site in sorted(sites):
        chance, stage = rng.random(), STAGES[int(rng.integers(len(STAGES)))]
        if chance < config.dropout and site not in named:
            drawn[site] = chance, stage
    bearable = max(0, bearable - len(named))
    lost = {site: drawn[site][1] for site in sorted(drawn, key=lambda site: drawn[site][0])[:bearable]}
    return {**lost, **named}


def check_schedule(config: RunConfig, sites: Sequence[str]) -> None:
    """Refuse `drop` entries that name no site of this run, a round that will not come, or a stage of other sums.

    Stages of masks are taken in clear too, where the same losses follow as under masks (docs/adr/0002).
    """
    masked, rounds = config.secure_aggregation.enabled, config.federation.rounds
    has = {RING_STAGE: masked and len(sites) > COMPLETE_UP_TO, PLAIN_STAGE: not masked}
    instead = "ShareKeys or MaskedInputCollection" if masked else PLAIN_STAGE
    for (site, number), stage in config.simulation.schedule().items():
        if not has.get(stage, True):
            where = (
                f"rounds under masks of more than {COMPLETE_UP_TO} sites" if stage == RING_STAGE else "rounds in clear"
            )
            raise ConfigError("simulation.drop", f"{site}@{number}:{stage}: only {where} have it; use {instead}")
        if site not in sites:
            raise ConfigError("simulation.drop", f"there is no site {site!r}; the sites are {', '.join(sites)}")
        if number > rounds:
            raise ConfigError("simulation.drop", f"{site}@{number}: the run has {rounds} rounds")
