"""Privacy loss distributions: the tightest sound bounds for Gaussian mechanisms, sampled or not.

Without sampling the distribution is known in closed form; else `dp-accounting` composes it on a grid.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

from audit.accounting.gaussian import gaussian_epsilon, is_gaussian
from audit.accounting.mechanisms import Adjacency, Composition, Gaussian, Repeated, SampledGaussian, merged
from audit.accounting.rdp import rdp_epsilon
from audit.errors import AccountingUnavailableError

INTERVAL = 1e-4
"""Discretisation of the privacy loss."""

MEANINGLESS = 1e5
"""An epsilon that RDP bounds no better than this is not computed: the upper bound is infinity, the lower one 0."""

_FINER = 10
"""Steps of the grid in the standard deviation of the loss of a single use: on a wider grid bounds are of no use."""

_ROUNDING = 16 * 2.0**-52
"""Of delta, for each use of a mechanism: what floating point can make of a distribution and of its composition. Against
transforms in extended precision it was 0.1 to 1 times 2 ** -52, up to a million uses."""

_MAX_POINTS = 2_000_000
"""Points of a distribution; where the loss spans more, the interval grows and the bound stays sound."""


def has_pld(composition: Composition) -> bool:
    """Return whether every part is a Gaussian mechanism, which is what a vector PLD exists for."""
    return all(isinstance(repeated.mechanism, Gaussian | SampledGaussian) for repeated in merged(composition))


def is_meaningless(composition: Composition, delta: float, adjacency: Adjacency = Adjacency.ADD_OR_REMOVE_ONE) -> bool:
    """Return whether epsilon is so large, or so unknown, that it is not computed: the bound by RDP is MEANINGLESS."""
    return not _span(composition, delta, adjacency) < MEANINGLESS


def pld_epsilon(
    composition: Composition,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE_ONE,
    *,
    pessimistic: bool = True,
    interval: float = INTERVAL,
) -> float:
    """Return epsilon by composing privacy loss distributions.

    Args:
        composition: What was released; `has_pld` must hold.
        delta: Probability within (0, 1).
        adjacency: Neighbouring relation.
        pessimistic: An upper bound on the true epsilon; else a lower bound.
        interval: Discretisation of the privacy loss, refined where single uses lose less than that, and enlarged where
            the loss spans too many steps.

    Rounding errors count as a part of delta: where they come near it, the bound is loose. Where they exceed it, the
    upper bound is that without sampling.

    Raises:
        ValueError: A part has no PLD, or delta is out of range.
        AccountingUnavailableError: `dp-accounting` is not installed.

    Paper: Doroshenko et al. 2022 (arXiv 2207.04380); Koskela et al. 2020 (arXiv 1906.03049).
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must be in (0, 1), is {delta}")
    if not has_pld(composition):
        raise ValueError("only compositions of Gaussian mechanisms have a privacy loss distribution here")
    if not composition:
        return 0.0
    span = _span(composition, delta, adjacency)
    if not span < MEANINGLESS:
        return math.inf if pessimistic else 0.0
    if is_gaussian(composition):
        return gaussian_epsilon(composition, delta, adjacency, upper=pessimistic)
    rounding = rounding_of(composition)
    if pessimistic and rounding >= delta:
        return gaussian_epsilon(_without_sampling(composition), delta, adjacency)
    parts = merged(composition)
    interval = max(min(interval, min(_deviation(part) for part in parts) / _FINER), 2 * span / _MAX_POINTS)
    total = _composed(parts, adjacency, pessimistic=pessimistic, interval=interval)
    return max(0.0, float(total.get_epsilon_for_delta(delta - rounding if pessimistic else delta + rounding)))


def is_closed_form(composition: Composition, delta: float) -> bool:
    """Return whether the upper bound comes from no grid: nothing is sampled, or rounding on a grid exceeds delta."""
    return is_gaussian(composition) or rounding_of(composition) >= delta


def rounding_of(composition: Composition) -> float:
    """Return what rounding errors can add to, or take from, the delta of a distribution that is composed on a grid."""
    return _ROUNDING * sum(part.count for part in composition)


def _without_sampling(composition: Composition) -> list[Repeated]:
    """Return the composition as if every record were in every step, which costs no less."""
    return [
        replace(part, mechanism=Gaussian(part.mechanism.noise_multiplier))
        for part in merged(composition)
        if isinstance(part.mechanism, Gaussian | SampledGaussian)
    ]


def _deviation(part: Repeated) -> float:
    """About the standard deviation of the loss of a single use."""
    mechanism = part.mechanism
    assert isinstance(mechanism, Gaussian | SampledGaussian)  # noqa: S101 (narrows the type)
    rate = mechanism.sampling_rate if isinstance(mechanism, SampledGaussian) else 1.0
    return rate / mechanism.noise_multiplier


@lru_cache(maxsize=4)
def _composed(parts: tuple[Repeated, ...], adjacency: Adjacency, *, pessimistic: bool, interval: float) -> Any:
    """The distribution of a whole composition; a report asks for the same one at several deltas."""
    library = _library()
    total = None
    with _quiet_library():
        for repeated in parts:
            mechanism = repeated.mechanism
            assert isinstance(mechanism, Gaussian | SampledGaussian)  # noqa: S101 (narrows the type)
            single = _distribution(
                library, mechanism, repeated.relation(adjacency), pessimistic=pessimistic, interval=interval
            )
            power = single.self_compose(repeated.count) if repeated.count > 1 else single
            total = power if total is None else total.compose(power)
    return total


def _distribution(
    library: Any, mechanism: Gaussian | SampledGaussian, adjacency: Adjacency, *, pessimistic: bool, interval: float
) -> Any:
    relation = library.NeighborRel.ADD_OR_REMOVE_ONE
    sigma, rate = mechanism.noise_multiplier, 1.0
    if isinstance(mechanism, SampledGaussian):
        rate = mechanism.sampling_rate
        if adjacency is Adjacency.REPLACE_ONE:
            relation = library.NeighborRel.REPLACE_ONE
    elif adjacency is Adjacency.REPLACE_ONE:
        sigma /= 2  # replacing moves the sum by twice the clip
    return library.from_gaussian_mechanism(
        sigma,
        pessimistic_estimate=pessimistic,
        value_discretization_interval=interval,
        sampling_prob=rate,
        use_connect_dots=pessimistic,
        neighboring_relation=relation,
    )


def _span(composition: Composition, delta: float, adjacency: Adjacency) -> float:
    """About how far the composed loss reaches: epsilon by RDP with the sampling left out where RDP has no bound."""
    bound = rdp_epsilon(composition, delta, adjacency)
    if math.isfinite(bound):
        return bound
    return 2 * rdp_epsilon([replace(part, replaced=False) for part in composition], delta)


def _library() -> Any:
    try:
        from dp_accounting.pld import privacy_loss_distribution
    except ImportError as error:
        raise AccountingUnavailableError("dp-accounting") from error
    return privacy_loss_distribution


@contextmanager
def _quiet_library() -> Iterator[None]:
    """The library reports choices of algorithm as warnings on the root logger."""

    def keep(record: logging.LogRecord) -> bool:
        return record.module != "privacy_loss_distribution"

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)
