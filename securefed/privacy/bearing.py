"""Whether the noise of a run bears all its rounds within its target: asked before hospitals agree to it."""

from protocols.noise import NoisePlan
from securefed.config import RunConfig
from securefed.privacy.mechanism import borne_rounds, local_cost, noise_multiplier
from securefed.privacy.shared_charges import affordable_sums


def require_noise(config: RunConfig) -> None:
    """Refuse a target that no noise of the mode `local` is made for, before anything is written; raises ConfigError."""
    if config.privacy.mode == "local":
        noise_multiplier(config.privacy, config.federation.rounds)


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
    if noise is not None:
        return affordable_sums(noise, privacy)
    rounds = config.federation.rounds
    return borne_rounds(privacy, local_cost(privacy, rounds), rounds) if privacy.epsilon else None
