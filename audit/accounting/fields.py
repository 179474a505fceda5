"""Mechanisms as they stand in logs and ledgers (audit/privacy_fields.py declares the form)."""

from collections.abc import Mapping
from typing import Any

from audit.accounting.mechanisms import (
    DiscreteGaussian,
    Gaussian,
    GroupedSampledGaussian,
    Mechanism,
    SampledGaussian,
    Skellam,
    Unknown,
)
from audit.canonical import JSON
from audit.privacy_fields import MECHANISM


def mechanism_fields(mechanism: Mechanism) -> dict[str, JSON]:
    """Return a mechanism as JSON."""
    match mechanism:
        case Gaussian():
            return {"type": "gaussian", "noise_multiplier": mechanism.noise_multiplier}
        case SampledGaussian():
            return {
                "type": "sampled-gaussian",
                "noise_multiplier": mechanism.noise_multiplier,
                "sampling_rate": mechanism.sampling_rate,
            }
        case GroupedSampledGaussian():
            return {
                "type": "grouped-sampled-gaussian",
                "noise_multipliers": list(mechanism.noise_multipliers),
                "sampling_rate": mechanism.sampling_rate,
            }
        case Skellam():
            return {
                "type": "skellam",
                "l1": mechanism.l1,
                "l2": mechanism.l2,
                "share_variance": mechanism.share_variance,
                "shares": mechanism.shares,
                "sampling_rate": mechanism.sampling_rate,
                **({"least_share_variance": mechanism.least_share_variance} if mechanism.least_share_variance else {}),
            }
        case DiscreteGaussian():
            return {
                "type": "discrete-gaussian",
                "l1": mechanism.l1,
                "l2": mechanism.l2,
                "share_sigma": mechanism.share_sigma,
                "shares": mechanism.shares,
                "dimension": mechanism.dimension,
                "sampling_rate": mechanism.sampling_rate,
            }
        case Unknown():
            return {"type": "unknown", "reason": mechanism.reason}


def mechanism_of(fields: JSON) -> Mechanism:
    """Return the mechanism of its JSON.

    Raises:
        FieldError: The JSON is not as declared.
    """
    MECHANISM.check(fields, "mechanism")
    assert isinstance(fields, Mapping)  # noqa: S101 (narrows the type)
    values: dict[str, Any] = {name: value for name, value in fields.items() if name != "type"}
    match fields["type"]:
        case "gaussian":
            return Gaussian(**values)
        case "sampled-gaussian":
            return SampledGaussian(**values)
        case "grouped-sampled-gaussian":
            return GroupedSampledGaussian(tuple(values["noise_multipliers"]), values["sampling_rate"])
        case "skellam":
            return Skellam(**values)
        case "discrete-gaussian":
            return DiscreteGaussian(**values)
        case _:
            return Unknown(**values)
