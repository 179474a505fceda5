"""Epsilon of plain Gaussian mechanisms in closed form: their privacy loss is normal, however often they are used."""

import math

from audit.accounting.mechanisms import Adjacency, Composition, Gaussian, Repeated, merged
from audit.errors import AccountingUnavailableError

_SLACK = 1e-12
"""Of the larger term of delta: far more than what rounding makes of its terms and of their difference."""

_PRECISION = 1e-12
"""Relative, of epsilon."""


def is_gaussian(composition: Composition) -> bool:
    """Return whether every part is a Gaussian mechanism without sampling."""
    return all(isinstance(part.mechanism, Gaussian) for part in merged(composition))


def gaussian_epsilon(
    composition: Composition, delta: float, adjacency: Adjacency = Adjacency.ADD_OR_REMOVE_ONE, *, upper: bool = True
) -> float:
    """Return the exact epsilon of Gaussian mechanisms, rounded up, or down.

    Args:
        composition: What was released; `is_gaussian` must hold.
        delta: Probability within (0, 1).
        adjacency: Neighbouring relation; replacing moves a sum by twice the clip.
        upper: Round up; else down.

    Raises:
        AccountingUnavailableError: scipy is not installed.

    Paper: Balle and Wang 2018 (arXiv 1805.06530), theorem 8; the loss of a composition is that of one mechanism whose
    mu squared is the sum of theirs (Dong, Roth, Su 2022, corollary 3.3).
    """
    mu = math.sqrt(sum(part.count * _shift(part, adjacency) ** 2 for part in merged(composition)))
    sign = 1 if upper else -1
    if mu == 0 or _delta(0.0, mu, sign) <= delta:
        return 0.0
    low, high = 0.0, mu**2 / 2 + mu
    while _delta(high, mu, sign) > delta:
        low, high = high, 2 * high
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _delta(middle, mu, sign) > delta else (low, middle)
    return high if upper else low


def _shift(part: Repeated, adjacency: Adjacency) -> float:
    """By how many standard deviations of the noise a contribution moves the sum."""
    assert isinstance(part.mechanism, Gaussian)  # noqa: S101 (narrows the type)
    return (2 if part.relation(adjacency) is Adjacency.REPLACE_ONE else 1) / part.mechanism.noise_multiplier


def _delta(epsilon: float, mu: float, sign: int) -> float:
    """Delta at an epsilon, of which rounding cannot have taken anything (sign 1), or to which nothing (-1)."""
    try:
        from scipy.special import erfcx, ndtr
    except ImportError as error:
        raise AccountingUnavailableError("scipy") from error
    a = mu / 2 - epsilon / mu
    b = a - mu
    whole = float(ndtr(a))
    # exp(epsilon) times the density at b is the density at a, so that nothing overflows and, below 0, nothing cancels
    # but what the two differ by.
    scale = math.exp(-(a**2) / 2) / 2
    rest = scale * float(erfcx(-b / math.sqrt(2)))
    first = whole if a > 0 else scale * float(erfcx(-a / math.sqrt(2)))
    return first - rest + sign * _SLACK * whole
