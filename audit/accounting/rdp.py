"""Renyi differential privacy: curves of all mechanisms, and the epsilon they imply. Needs numpy only.

A curve bounds the Renyi divergence at each order; curves of a composition add up. RDP is looser than the numerical
accountants, holds for the discrete mechanisms, and serves as a cross-check for the others.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from audit.accounting.discrete import discrete_gaussian_rdp, skellam_rdp
from audit.accounting.mechanisms import (
    Adjacency,
    Composition,
    DiscreteGaussian,
    Gaussian,
    GroupedSampledGaussian,
    Mechanism,
    Repeated,
    SampledGaussian,
    Skellam,
    Unknown,
    merged,
)
from audit.accounting.subsampling import sampled_rdp

ORDERS: tuple[float, ...] = (*(1 + x / 10 for x in range(1, 100)), *range(11, 65), 128, 256, 512, 1024)
"""Orders at which curves are evaluated."""

_MAX_SAMPLED_ORDER = 256
"""Sampled discrete mechanisms are not evaluated above: the sum over orders grows, and high orders do not help them."""


_SMALLEST_SIGMA = 0.05
"""Below, sampling is left out of the bound: it could not make such noise meaningful."""


def rdp_epsilon(
    composition: Composition,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE_ONE,
    orders: tuple[float, ...] = ORDERS,
) -> float:
    """Return an upper bound on epsilon, infinite where a part of the composition cannot be accounted.

    Where a sampled record is replaced, the bound is that without sampling: both data sets hold the record, in the same
    samples, so that with P0 the output without it the outputs are (1 - q) P0 + q P1 and (1 - q) P0 + q P2, whose
    divergence is no larger than that of P1 and P2. Sampled Gaussians alone have none here: their PLD is far tighter.

    Args:
        composition: What was released.
        delta: Probability within (0, 1) with which the bound may fail.
        adjacency: Neighbouring relation.
        orders: Renyi orders above 1.

    Paper: Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), proposition 12; van Erven, Harremoes 2014 (arXiv
        1206.2459), theorem 13: Renyi divergence is jointly quasi-convex.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must be in (0, 1), is {delta}")
    if not composition:
        return 0.0
    best = math.inf
    parts = merged(composition)
    if not all(isinstance(part.mechanism, Gaussian | SampledGaussian) for part in parts):
        parts = tuple(_without_sampling(part) if _is_replaced(part, adjacency) else part for part in parts)
    totals = sum(part.count * _curve(part.mechanism, part.relation(adjacency), orders) for part in parts)
    for order, total in zip(orders, np.asarray(totals), strict=True):
        epsilon = float(total) + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
        best = min(best, epsilon)
    return max(0.0, best)


def _is_replaced(part: Repeated, adjacency: Adjacency) -> bool:
    return part.relation(adjacency) is Adjacency.REPLACE_ONE


def _without_sampling(part: Repeated) -> Repeated:
    mechanism = part.mechanism
    if not isinstance(mechanism, SampledGaussian | Skellam | DiscreteGaussian):
        return part
    return replace(part, mechanism=replace(mechanism, sampling_rate=1.0))


def _curve(mechanism: Mechanism, adjacency: Adjacency, orders: tuple[float, ...]) -> NDArray[np.float64]:
    """Divergence bounds f64[len(orders)] of one use; infinite beyond the range of floats."""
    try:
        return _finite_curve(mechanism, adjacency, orders)
    except ArithmeticError:
        return np.full(len(orders), math.inf)


def _finite_curve(mechanism: Mechanism, adjacency: Adjacency, orders: tuple[float, ...]) -> NDArray[np.float64]:
    scale = 2.0 if adjacency is Adjacency.REPLACE_ONE else 1.0
    match mechanism:
        case Unknown():
            return np.full(len(orders), math.inf)
        case Gaussian():
            return np.asarray(orders) * (scale / mechanism.noise_multiplier) ** 2 / 2
        case SampledGaussian() | GroupedSampledGaussian():
            if mechanism.sampling_rate == 1:
                return np.asarray(orders) * (scale / mechanism.noise_multiplier) ** 2 / 2
            if adjacency is Adjacency.REPLACE_ONE:
                return np.full(len(orders), math.inf)
            return _sampled_gaussian(mechanism.sampling_rate, mechanism.noise_multiplier, orders)
        case Skellam():
            wide = Skellam(mechanism.l1 * scale, mechanism.l2 * scale, mechanism.share_variance, mechanism.shares)
            return _discrete(lambda order: skellam_rdp(wide, order), mechanism.sampling_rate, orders)
        case DiscreteGaussian():
            wider = DiscreteGaussian(
                mechanism.l1 * scale,
                mechanism.l2 * scale,
                mechanism.share_sigma,
                mechanism.shares,
                mechanism.dimension,
            )
            if mechanism.sampling_rate == 1:
                return np.asarray([discrete_gaussian_rdp(wider, order) for order in orders])
            rate = mechanism.sampling_rate
            return _discrete(lambda order: discrete_gaussian_rdp(wider, order), rate, orders)


@lru_cache(maxsize=64)
def _sampled_gaussian(q: float, sigma: float, orders: tuple[float, ...]) -> NDArray[np.float64]:
    """Log-moments of the sampled Gaussian by the trapezoidal rule, which converges geometrically for them.

    Paper: Mironov, Talwar, Zhang 2019 (arXiv 1908.10530), theorem 4: A(a) = E over N(0, sigma^2) of (P/Q) ** a.
    """
    if sigma < _SMALLEST_SIGMA:
        return np.asarray(orders) * (1 / sigma**2 / 2)
    step = min(sigma / 16, sigma**2 / 4)
    found = np.empty(len(orders))
    for index, order in enumerate(orders):
        z = np.arange(-12 * sigma, order + 12 * sigma, step)
        log_ratio = np.logaddexp(math.log1p(-q), math.log(q) + (2 * z - 1) / (2 * sigma**2))
        log_terms = order * log_ratio - z**2 / (2 * sigma**2)
        log_moment = np.logaddexp.reduce(log_terms) + math.log(step / (sigma * math.sqrt(2 * math.pi)))
        found[index] = max(0.0, log_moment) / (order - 1)
    return found


def _discrete(plain: Callable[[int], float], q: float, orders: tuple[float, ...]) -> NDArray[np.float64]:
    """The curve of a mechanism with symmetric noise that is bounded at integer orders, Poisson sampled at rate q."""
    if q == 1:
        return _interpolated(plain, orders)
    remembered = cache(plain)
    return _interpolated(
        lambda order: plain(order) if order > _MAX_SAMPLED_ORDER else sampled_rdp(remembered, q, order), orders
    )


def _interpolated(at_integer: Callable[[int], float], orders: tuple[float, ...]) -> NDArray[np.float64]:
    """Bounds between integers: (a - 1) times the divergence is convex in a and 0 at 1, so that chords lie above it."""
    known: dict[int, float] = {1: 0.0}

    def scaled(order: int) -> float:
        if order not in known:
            known[order] = (order - 1) * at_integer(order)
        return known[order]

    found = np.empty(len(orders))
    for index, order in enumerate(orders):
        low = math.floor(order)
        part = order - low
        value = scaled(low) if part == 0 else (1 - part) * scaled(low) + part * scaled(low + 1)
        found[index] = value / (order - 1)
    return found
