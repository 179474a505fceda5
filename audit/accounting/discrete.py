"""Renyi bounds of the discrete mechanisms that add up inside the ring."""

import math

from audit.accounting.mechanisms import DiscreteGaussian, Skellam

_NEAR_TERMS = 1000


def skellam_rdp(mechanism: Skellam, order: int) -> float:
    """Return the Renyi divergence bound at an integer order above 1, without sampling.

    Paper: Agarwal, Kairouz, Liu 2021 (arXiv 2110.04995), theorem 3.5. Its mu is the total variance, as Skellam shares
    add up to Skellam noise of the sum of their variances.
    """
    variance = mechanism.share_variance * mechanism.shares
    l1, l2 = mechanism.l1, mechanism.l2
    correction = min(((2 * order - 1) * l2**2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
    return order * l2**2 / (2 * variance) + correction


def discrete_gaussian_rdp(mechanism: DiscreteGaussian, order: float) -> float:
    """Return the Renyi divergence bound at an order above 1, without sampling.

    Paper: Kairouz, Liu, Steinke 2021 (arXiv 2102.06387), theorem 1 and proposition 14: a sum of discrete Gaussians
    is not one, `gap` bounds by how much.
    """
    n, dimension = mechanism.shares, mechanism.dimension
    sigma = math.sqrt(n) * mechanism.share_sigma
    gap = 10 * _gap_terms(mechanism.share_sigma, n)
    ratio1, ratio2 = mechanism.l1 / sigma, mechanism.l2 / sigma
    return min(
        order / 2 * ratio2**2 + gap * dimension,
        order / 2 * (ratio2**2 + 2 * ratio1 * gap + gap**2 * dimension),
        order / 2 * (ratio2 + math.sqrt(dimension) * gap) ** 2,
    )


def _gap_terms(share_sigma: float, n: int) -> float:
    """The sum over k below n of exp(-2 pi^2 sigma^2 k / (k + 1)); far ones are bounded by the first."""
    near = min(n, _NEAR_TERMS)

    def term(k: int) -> float:
        return math.exp(-2 * (math.pi * share_sigma) ** 2 * k / (k + 1))

    return sum(term(k) for k in range(1, near)) + (n - near) * term(near)
