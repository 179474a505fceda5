"""From a configuration to the noise: what a round releases about a hospital, and how much noise a target needs."""

from dataclasses import dataclass
from functools import cache

from audit.accounting import (
    Adjacency,
    CalibrationError,
    Composition,
    DeltaTooLargeError,
    GroupedSampledGaussian,
    Mechanism,
    Repeated,
    SampledGaussian,
    affordable_steps,
    calibrate_sampled_gaussian,
    upper_epsilon,
)
from clients.privacy.settings import PrivacySettings
from securefed.config import PrivacyConfig
from securefed.errors import ConfigError


@dataclass(frozen=True)
class RoundCost:
    """What a round of the mode `local` releases about one hospital.

    Attributes:
        mechanism: One step.
        repetitions: Steps.
    """

    mechanism: Mechanism
    repetitions: int

    def of_rounds(self, rounds: int) -> Composition:
        """Return the composition of that many rounds."""
        return [Repeated(self.mechanism, self.repetitions * rounds)] if rounds else []


def noise_multiplier(config: PrivacyConfig, rounds: int) -> float:
    """Return the noise multiplier of a step of the mode `local`: as configured, or calibrated to all rounds.

    Raises:
        ConfigError: No noise meets the target.
    """
    if config.noise_multiplier:
        return config.noise_multiplier
    return calibrated(
        config.epsilon, config.delta, config.sampling_rate, config.steps * rounds, Adjacency(config.adjacency)
    )


def local_cost(config: PrivacyConfig, rounds: int) -> RoundCost:
    """Return what one round of the mode `local` costs; `rounds` is the number that the noise is calibrated to."""
    multipliers = _multipliers(config, noise_multiplier(config, rounds))
    if len(multipliers) == 1:
        return RoundCost(SampledGaussian(multipliers[0], config.sampling_rate), config.steps)
    return RoundCost(GroupedSampledGaussian(multipliers, config.sampling_rate), config.steps)


def step_settings(config: PrivacyConfig, rounds: int) -> PrivacySettings:
    """Return the private step as the hospitals of the mode `local` take it."""
    groups = config.clips_by_group and config.coupling == "joint"
    return PrivacySettings(
        unit=config.unit,
        coupling=config.coupling,
        clip_norms=(config.fam_clip_norm, config.mlp_clip_norm) if groups else (config.clip_norm,),
        noise_multipliers=_multipliers(config, noise_multiplier(config, rounds)),
        sampling_rate=config.sampling_rate,
        steps=config.steps,
        normaliser=config.normaliser,
        centring_steps=config.centring_steps,
    )


@cache
def affordable_rounds(config: PrivacyConfig, cost: RoundCost) -> int | None:
    """Return how many rounds the target allows; None without a target."""
    if not config.epsilon:
        return None
    step = [Repeated(cost.mechanism, cost.repetitions)]
    return affordable_steps(step, config.epsilon, config.delta, Adjacency(config.adjacency))


def borne_rounds(config: PrivacyConfig, cost: RoundCost, count: int) -> int:
    """Return how many of `count` rounds the target allows: all of them without one.

    How many it allows at all is searched for, which takes minutes at small rates, only where that is fewer.
    """
    if not config.epsilon:
        return count
    whole = epsilon_of(tuple(cost.of_rounds(count)), config.delta, Adjacency(config.adjacency))
    return count if whole <= config.epsilon else min(count, affordable_rounds(config, cost) or 0)


@cache
def epsilon_of(composition: tuple[Repeated, ...], delta: float, adjacency: Adjacency) -> float:
    """Return the upper bound on epsilon, remembered: hospitals that released the same cost the same."""
    return upper_epsilon(composition, delta, adjacency) if composition else 0.0


def _multipliers(config: PrivacyConfig, whole: float) -> tuple[float, ...]:
    """One multiplier, or one of FAM and MLP whose joint mechanism has the given one."""
    if not config.clips_by_group or config.coupling == "one-way":
        return (whole,)
    share = config.fam_noise_share
    return (whole / share**0.5, whole / (1 - share) ** 0.5)


@cache
def calibrated(epsilon: float, delta: float, rate: float, steps: int, adjacency: Adjacency) -> float:
    """Return the noise multiplier that so many steps at a rate need for a target.

    Raises:
        ConfigError: No noise meets the target, or none is needed for it.
    """
    try:
        return calibrate_sampled_gaussian(epsilon, delta, rate, steps, adjacency)
    except DeltaTooLargeError as error:
        reason = f"{error}; use a smaller delta, below one over the units of any hospital"
        raise ConfigError("privacy.delta", reason) from error
    except CalibrationError as error:
        raise ConfigError("privacy.epsilon", f"{error}; use fewer rounds or a larger epsilon") from error
