"""How well a membership attack separates: its curve, the area under it, and what it finds at few wrong accusations."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Rates of wrong accusations at which a curve is recorded."""


@dataclass(frozen=True)
class Membership:
    """Rates of a membership attack.

    Attributes:
        auroc: Probability that a member scores above another, ties counted half; 0.5 is guessing.
        found: {rate of wrong accusations: rate of found members}, at RATES.
    """

    auroc: float
    found: dict[float, float]


def membership(members: NDArray[np.float64], others: NDArray[np.float64]) -> Membership:
    """Return the rates of an attack that accuses whoever scores high.

    Args:
        members: float64[n], scores of members.
        others: float64[k], scores of others.

    Raises:
        ValueError: One of the two is empty.
    """
    if not len(members) or not len(others):
        raise ValueError("members and others are needed to compare")
    ranked = np.sort(others)
    below = np.searchsorted(ranked, members, "left")
    equal = np.searchsorted(ranked, members, "right") - below
    auroc = float((below + equal / 2).mean() / len(others))
    found = {}
    for rate in RATES:
        allowed = int(rate * len(others) + 1e-9)
        threshold = -np.inf if allowed >= len(others) else ranked[len(others) - allowed - 1]
        found[rate] = float((members > threshold).mean())
    return Membership(auroc, found)
