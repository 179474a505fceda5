"""Trade-off curves: what a privacy claim says about every membership test at once.

A curve f gives the smallest possible rate of missed members at each rate x of wrong accusations (Dong, Roth, Su 2019,
arXiv 1905.02383). The bounds need 1 - f, the largest rate of found members, and its inverse.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

from audit.accounting import Adjacency, Composition, upper_epsilon

_NORMAL = NormalDist()
_DELTAS = (
    0.7,
    0.6,
    0.5,
    0.4,
    0.3,
    0.2,
    *(10.0**-power for power in (1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9, 10, 12)),
)


class TradeOff(Protocol):
    """A claim about all membership tests."""

    def found(self, wrong: float) -> float:
        """Return the largest rate of found members at a rate of wrong accusations, both in [0, 1]."""
        ...

    def wrong(self, found: float) -> float:
        """Return the smallest rate of wrong accusations at a rate of found members, both in [0, 1]."""
        ...


@dataclass(frozen=True)
class GaussianCurve:
    """The claim of a Gaussian mechanism whose noise is 1 / `mu` of its sensitivity (mu-GDP)."""

    mu: float

    def found(self, wrong: float) -> float:
        """Return Phi(Phi^-1(wrong) + mu)."""
        return _shifted(wrong, self.mu)

    def wrong(self, found: float) -> float:
        """Return Phi(Phi^-1(found) - mu)."""
        return _shifted(found, -self.mu)

    def epsilon(self, delta: float) -> float:
        """Return the epsilon of the curve at a delta, by bisection of its exact profile.

        Paper: Balle, Wang 2018 (arXiv 1805.06530), theorem 8.
        """
        mu = self.mu
        if mu == 0:
            return 0.0

        def profile(epsilon: float) -> float:
            first = _NORMAL.cdf(mu / 2 - epsilon / mu)
            # exp(epsilon) times the tail, together in logarithms: the one overflows where the other vanishes
            return first - math.exp(epsilon + _log_tail(mu / 2 + epsilon / mu))

        low, high = 0.0, 1.0
        while profile(high) > delta:
            low, high = high, 2 * high
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if profile(middle) > delta else (low, middle)
        return high


@dataclass(frozen=True)
class ProfileCurve:
    """The claim that all of some pairs (epsilon, delta) hold.

    Paper: Kairouz, Oh, Viswanath 2015 (arXiv 1311.0776), the region of each pair.
    """

    pairs: tuple[tuple[float, float], ...]

    def found(self, wrong: float) -> float:
        """Return the least of what the pairs allow."""
        best = 1.0
        for epsilon, delta in self.pairs:
            grown = math.exp(min(epsilon, 700.0))
            best = min(best, delta + grown * wrong, 1 - (1 - delta - wrong) / grown)
        return min(1.0, max(wrong, best))

    def wrong(self, found: float) -> float:
        """Return the most of what the pairs ask for."""
        worst = 0.0
        for epsilon, delta in self.pairs:
            grown = math.exp(min(epsilon, 700.0))
            worst = max(worst, (found - delta) / grown, 1 - delta - (1 - found) * grown)
        return min(found, worst)


def curve_of(
    composition: Composition,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE_ONE,
    stated: Sequence[tuple[float, float]] = (),
    *,
    coarse: bool = False,
) -> ProfileCurve:
    """Return the claim that accounted releases make: upper bounds on epsilon at many deltas.

    Args:
        composition: What was released.
        adjacency: Neighbouring relation.
        stated: Further pairs (epsilon, delta) that are claimed.
        coarse: A faster and slightly weaker claim.

    Raises:
        AccountingUnavailableError: `dp-accounting` is needed and not installed.
    """
    pairs = [(upper_epsilon(composition, delta, adjacency, coarse=coarse), delta) for delta in _DELTAS]
    return ProfileCurve(tuple((epsilon, delta) for epsilon, delta in [*pairs, *stated] if math.isfinite(epsilon)))


def _shifted(rate: float, by: float) -> float:
    if rate <= 0.0 or rate >= 1.0:
        return min(1.0, max(0.0, rate))
    return _NORMAL.cdf(_NORMAL.inv_cdf(rate) + by)


def _log_tail(x: float) -> float:
    """Log P(N > x), from its asymptotic series where the tail itself underflows."""
    tail = 0.5 * math.erfc(x / math.sqrt(2))
    if tail > 1e-280:
        return math.log(tail)
    return -0.5 * x * x - math.log(x * math.sqrt(2 * math.pi)) + math.log1p(-1 / (x * x))
