"""Noise in shares: how much of it a configuration needs, and what one opened sum releases.

The same for all hospitals, since a sum is a release about all of them.
"""

from dataclasses import replace
from functools import lru_cache

from audit.accounting import (
    Adjacency,
    CalibrationError,
    Composition,
    DiscreteGaussian,
    Mechanism,
    Repeated,
    Skellam,
    against_colluders,
    calibrate_noise,
)
from protocols.errors import ParameterError
from protocols.noise import DropoutNoise, NoiseKind, NoisePlan, NoiseRequest, plan_noise
from protocols.parameters import RoundParameters
from securefed.config import PrivacyConfig, RunConfig
from securefed.errors import ConfigError
from securefed.privacy.rules import hindrances_of_xnoise

SHARED_MODES = ("distributed", "hospital")
"""Modes in which hospitals add the noise in shares."""


def shared_noise(config: RunConfig, parameters: RoundParameters, dimension: int) -> NoisePlan | None:
    """Return grid, ring and shares of noise; None where hospitals add no shares.

    Args:
        config: The run's configuration.
        parameters: Of some round: they say who may be lost.
        dimension: Coordinates of the shared vector.

    Raises:
        ConfigError: There is no such noise.
    """
    privacy = config.privacy
    if privacy.mode not in SHARED_MODES:
        return None
    require_honest_noise(privacy, parameters.min_survivors)
    try:
        request = NoiseRequest(
            dimension=dimension,
            clip_norm=privacy.clip_norm,
            noise_multiplier=privacy.noise_multiplier or 1.0,
            clients=parameters.clients,
            min_survivors=parameters.min_survivors,
            colluders=privacy.max_colluders,
            kind=NoiseKind(privacy.mechanism),
            dropout=dropout_noise(config, parameters),
            vector_norm=1.0 if privacy.mode == "hospital" else max(1.0, privacy.normaliser),
            whole_vector=privacy.mode == "hospital",
            ring_bits=privacy.ring_bits,
        )
        return _calibrated(request, privacy, config.federation.rounds + privacy.spare_rounds)
    except ParameterError as error:
        raise ConfigError(f"privacy.{error.name}", str(error)) from error


def require_honest_noise(privacy: PrivacyConfig, fewest: int) -> None:
    """Refuse more colluders than leave an honest hospital in a sum over as few as `fewest`; raises ConfigError."""
    if privacy.max_colluders >= fewest:
        raise ConfigError(
            "privacy.max_colluders",
            f"{privacy.max_colluders} of the {fewest} hospitals that a sum may be over: some honest one must add "
            f"noise; use at most {fewest - 1}",
        )


def dropout_noise(config: RunConfig, parameters: RoundParameters) -> DropoutNoise:
    """Return what happens to noise when hospitals are lost, `auto` resolved.

    Raises:
        ConfigError: xnoise is asked for where it cannot be.
    """
    privacy, reasons = config.privacy, hindrances_of_xnoise(config)
    if not parameters.is_complete:
        reasons.append("with more than 100 hospitals shares go to neighbours only")
    if privacy.dropout_noise == "xnoise" and reasons:
        raise ConfigError("privacy.dropout_noise", f"xnoise: {reasons[0]}; use conservative")
    exact = privacy.dropout_noise == "xnoise" or (privacy.dropout_noise == "auto" and not reasons)
    return DropoutNoise.XNOISE if exact else DropoutNoise.CONSERVATIVE


def mechanism_of_sum(plan: NoisePlan, survivors: int, sampling_rate: float) -> Mechanism:
    """Return what the opened sum over so many survivors is, as seen by one who knows nobody's noise."""
    request, variance = plan.request, plan.share_variance(survivors)
    if request.kind is NoiseKind.SKELLAM:
        least = plan.component_variance(0) if request.dropout is DropoutNoise.XNOISE else 0.0
        return Skellam(plan.l1, plan.l2, variance, survivors, sampling_rate, min(least, variance))
    return DiscreteGaussian(plan.l1, plan.l2, variance**0.5, survivors, request.dimension, sampling_rate)


def dearest_sum(plan: NoisePlan, sampling_rate: float) -> Composition:
    """Return the costliest sum that a round can open, as seen by the colluders that the plan covers."""
    mechanism = mechanism_of_sum(plan, plan.request.min_survivors, sampling_rate)
    return against_colluders([Repeated(mechanism)], plan.request.colluders)


def quietest_sum(plan: NoisePlan, sampling_rate: float) -> Mechanism:
    """Return the sum with the least noise that a round can open, as seen by one who knows nobody's noise."""
    request = plan.request
    ends = (request.min_survivors, request.clients)
    return mechanism_of_sum(plan, min(ends, key=lambda count: count * plan.share_variance(count)), sampling_rate)


def rate_of(privacy: PrivacyConfig) -> float:
    """Return the rate at which units enter a sum: hospitals are always in it."""
    return 1.0 if privacy.mode == "hospital" else privacy.sampling_rate


def noise_facts(plan: NoisePlan) -> dict[str, float | int | str]:
    """Return the public facts of the noise, for the event log."""
    request = plan.request
    return {
        "noise_mechanism": request.kind.value,
        "noise_multiplier": request.noise_multiplier,
        "dropout_noise": request.dropout.value,
        "clip_norm": request.clip_norm,
        "scale": plan.scale,
        "limit": plan.limit,
        "noise_tail": plan.noise_tail,
        "l2": plan.l2,
        "l1": plan.l1,
        "rounding_beta": plan.beta,
        "rounding_conditional": plan.is_conditional,
        "colluders": request.colluders,
        "min_survivors": request.min_survivors,
    }


@lru_cache(maxsize=16)
def _calibrated(request: NoiseRequest, privacy: PrivacyConfig, rounds: int) -> NoisePlan:
    """The plan with the given multiplier, or with one that all rounds may have."""
    if privacy.noise_multiplier:
        return plan_noise(request)

    def compose(multiplier: float) -> Composition:
        plan = plan_noise(replace(request, noise_multiplier=multiplier))
        return [Repeated(part.mechanism, rounds) for part in dearest_sum(plan, rate_of(privacy))]

    try:
        found = calibrate_noise(compose, privacy.epsilon, privacy.delta, Adjacency(privacy.adjacency))
    except CalibrationError as error:
        raise ConfigError("privacy.epsilon", f"{error}; use fewer rounds or a larger epsilon") from error
    return plan_noise(replace(request, noise_multiplier=found))
