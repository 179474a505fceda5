"""How large the recorded noise is, in words and against what it hides."""

import math
from collections.abc import Mapping
from typing import Any

from audit.history import RunHistory

Fields = Mapping[str, Any]


def noise_section(history: RunHistory) -> list[dict[str, Any]]:
    """Return the expected norm of each recorded noise, in units of the largest contribution of one unit.

    It is that on the shared vector alone, whatever else the mechanism covers. A noise of standard deviation s in each
    of d coordinates has the norm s sqrt(d). Nothing where the log does not say how long the shared vector is.
    """
    protocol = history.last("protocol_described")
    if protocol is None:
        return []
    dimension: Any = protocol.fields["dimension"]
    found: dict[str, dict[str, Any]] = {}
    for event in history.of_kind("privacy_event"):
        mechanism: Any = event.fields["mechanism"]
        deviation = _deviation(mechanism)
        if deviation is not None:
            name = mechanism_in_words(mechanism)
            found[name] = {"mechanism": name, "noise": deviation * math.sqrt(dimension), "signal": 1.0}
    return list(found.values())


def round_noise(history: RunHistory) -> dict[int, str]:
    """Return {round: the noise that was recorded for it, in words}; events of no round are in none."""
    found: dict[int, dict[str, None]] = {}
    for event in history.of_kind("privacy_event"):
        fields: Fields = event.fields
        if "round" in fields:
            words = f"{mechanism_in_words(fields['mechanism'])}, {fields['repetitions']} times"
            found.setdefault(fields["round"], {})[words] = None
    return {number: "; ".join(words)[:4000] for number, words in found.items()}


def mechanism_in_words(mechanism: Fields) -> str:
    """Return a mechanism with its parameters, for a table."""
    match mechanism["type"]:
        case "gaussian":
            return f"Gaussian, multiplier {mechanism['noise_multiplier']:.4g}"
        case "sampled-gaussian":
            return f"Gaussian, multiplier {mechanism['noise_multiplier']:.4g}, rate {mechanism['sampling_rate']:.4g}"
        case "grouped-sampled-gaussian":
            several = " and ".join(f"{value:.4g}" for value in mechanism["noise_multipliers"])
            return f"Gaussian in groups, multipliers {several}, rate {mechanism['sampling_rate']:.4g}"
        case "skellam":
            return f"Skellam, {mechanism['shares']} shares of variance {mechanism['share_variance']:.4g}"
        case "discrete-gaussian":
            return f"discrete Gaussian, {mechanism['shares']} shares of deviation {mechanism['share_sigma']:.4g}"
        case _:
            return "unknown"


def _deviation(mechanism: Fields) -> float | None:
    """Standard deviation a coordinate over the L2 bound of one contribution; None where there is no one number."""
    match mechanism["type"]:
        case "gaussian" | "sampled-gaussian":
            return float(mechanism["noise_multiplier"])
        case "grouped-sampled-gaussian":
            return float(mechanism["noise_multipliers"][0])  # the first group is the FAM, which is the shared vector
        case "skellam":
            return math.sqrt(mechanism["shares"] * mechanism["share_variance"]) / float(mechanism["l2"])
        case "discrete-gaussian":
            return math.sqrt(mechanism["shares"]) * float(mechanism["share_sigma"]) / float(mechanism["l2"])
        case _:
            return None
