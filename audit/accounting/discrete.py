"""Renyi bounds of the discrete mechanisms that add up inside the ring, and the norms after stochastic rounding."""

import math

from audit.accounting.mechanisms import DiscreteGaussian, Skellam

_NEAR_TERMS = 1000


def rounded_l2(scaled_clip: float, dimension: int, beta: float) -> float:
    """Return the bound on the L2 norm of a clipped vector after stochastic rounding to integers.

    Args:
        scaled_clip: Clip norm in grid steps, C * s.
        dimension: Coordinates of the vector.
        beta: Rounding is repeated until the norm obeys the bound, which fails with at most this probability per try;
            0 for unconditional rounding.

    Paper: Kairouz, Liu, Steinke 2021 (arXiv 2102.06387), proposition 26.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1), is {beta}")
    plain = scaled_clip + math.sqrt(dimension)
    if beta == 0:
        return plain
    spread = math.sqrt(2 * math.log(1 / beta)) * (scaled_clip + math.sqrt(dimension) / 2)
    return min(plain, math.sqrt(scaled_clip**2 + dimension / 4 + spread))


def rounded_l1(l2: float, dimension: int) -> float:
    """Return the bound on the L1 norm of an integer vector of that L2 norm: the smaller of l2 * sqrt(d) and l2 ** 2."""
    return l2 * min(math.sqrt(dimension), l2)


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
