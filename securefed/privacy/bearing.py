"""Whether the noise of a run bears all its rounds within its target: asked before hospitals agree to it."""

from audit.accounting import Adjacency
from protocols.noise import NoisePlan
from securefed.config import RunConfig
from securefed.privacy.mechanism import affordable_rounds, epsilon_of, local_cost
from securefed.privacy.shared_charges import affordable_sums


def too_few_rounds(config: RunConfig, noise: NoisePlan | None) -> str:
    """Return why the target ends a run before its last round; "" where it does not, or where there is none.

    Args:
        config: The run's configuration.
        noise: Grid, ring and noise, where hospitals add it in shares.
    """
    privacy, rounds = config.privacy, config.federation.rounds
    most = rounds_borne(config, noise)
    if most is None or most >= rounds:
        return ""
    fewer = f"use federation.rounds={most}, " if most else "use "
    return (
        f"a noise multiplier of {privacy.noise_multiplier:g} bears {most} of {rounds} rounds within epsilon "
        f"{privacy.epsilon:g}; {fewer}a larger epsilon, or more noise (leave privacy.noise_multiplier out to have it "
        "calibrated)"
    )


def rounds_borne(config: RunConfig, noise: NoisePlan | None) -> int | None:
    """Return how many rounds the noise that is given bears within the target; None where either is not given.

    Noise that is calibrated bears all rounds.
    """
    privacy = config.privacy
    if not privacy.enabled or not privacy.noise_multiplier:
        return None
    return affordable_sums(noise, privacy) if noise is not None else _affordable(config)


def _affordable(config: RunConfig) -> int | None:
    """How many rounds of `local` the target bears, None without one; searched for only where all of them cost more."""
    privacy, rounds = config.privacy, config.federation.rounds
    cost = local_cost(privacy, rounds)
    if privacy.epsilon:
        whole = epsilon_of(tuple(cost.of_rounds(rounds)), privacy.delta, Adjacency(privacy.adjacency))
        if whole <= privacy.epsilon:
            return rounds
    return affordable_rounds(privacy, cost)
