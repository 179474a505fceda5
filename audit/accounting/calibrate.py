"""How much noise a target needs, and how many steps it allows: bisection whose answer was itself accounted."""

import math
from collections.abc import Callable
from dataclasses import replace

from audit.accounting.mechanisms import Adjacency, Composition, Gaussian, Repeated, SampledGaussian, merged
from audit.accounting.pld import INTERVAL, has_pld, is_meaningless, pld_epsilon
from audit.accounting.rdp import rdp_epsilon

_COARSE = 1e-3
"""Discretisation while searching: an upper bound as well, in a tenth of the time."""

_PRECISION = 1e-3
"""Of a multiplier that is searched for, relative."""

_MAX_MULTIPLIER = 1e6
_MAX_STEPS = 10**9


class CalibrationError(ValueError):
    """No noise within reach, or not even one step, meets the target."""


class DeltaTooLargeError(CalibrationError):
    """Delta alone covers what a target is about: no noise at all meets it."""


def chance_of_use(composition: Composition) -> float:
    """Return the probability that a record is in any step of Gaussian mechanisms: with no larger a delta noise counts.

    With probability 1 less this one nothing depends on the record, whatever the noise and the neighbouring relation.
    """
    unused = 0.0
    for part in merged(composition):
        if isinstance(part.mechanism, Gaussian):
            return 1.0
        assert isinstance(part.mechanism, SampledGaussian)  # noqa: S101 (narrows the type)
        unused += part.count * math.log1p(-part.mechanism.sampling_rate)
    return -math.expm1(unused)


def upper_epsilon(
    composition: Composition, delta: float, adjacency: Adjacency = Adjacency.ADD_OR_REMOVE_ONE, *, coarse: bool = False
) -> float:
    """Return the stated upper bound alone, without its cross-checks: the smaller one of PLD and RDP.

    Args:
        composition: What was released.
        delta: Probability within (0, 1).
        adjacency: Neighbouring relation.
        coarse: A faster and slightly larger bound.
    """
    rdp = rdp_epsilon(composition, delta, adjacency)
    if not has_pld(composition):
        return rdp
    if is_meaningless(composition, delta, adjacency):
        return math.inf
    return min(rdp, pld_epsilon(composition, delta, adjacency, interval=_COARSE if coarse else INTERVAL))


def upper_accountant(composition: Composition, delta: float, adjacency: Adjacency = Adjacency.ADD_OR_REMOVE_ONE) -> str:
    """Return whose bound `upper_epsilon` is: PLD, or RDP."""
    upper = upper_epsilon(composition, delta, adjacency)
    best = math.isfinite(upper) and upper == rdp_epsilon(composition, delta, adjacency)
    return "RDP" if best or not has_pld(composition) else "PLD"


def bound_against(
    composition: Composition, target: float, delta: float, adjacency: Adjacency = Adjacency.ADD_OR_REMOVE_ONE
) -> float:
    """Return an upper bound as cheap as the answer to `is it within the target` allows: RDP, a coarse PLD, the PLD.

    Args:
        composition: What was released.
        target: Where the bound is above it, so is the stated one.
        delta: Probability within (0, 1).
        adjacency: Neighbouring relation.
    """
    cheap = rdp_epsilon(composition, delta, adjacency)
    if cheap <= target or not has_pld(composition):
        return cheap
    coarse = upper_epsilon(composition, delta, adjacency, coarse=True)
    if coarse <= target or coarse > 1.1 * (target + 0.1):
        return coarse
    return upper_epsilon(composition, delta, adjacency)


def calibrate_noise(
    compose: Callable[[float], Composition],
    target_epsilon: float,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE_ONE,
) -> float:
    """Return a noise multiplier that meets the target and exceeds the smallest such one by a thousandth at most.

    Args:
        compose: What a run with this multiplier releases; more noise must never cost more.
        target_epsilon: Positive.
        delta: Probability within (0, 1).
        adjacency: Neighbouring relation.

    Raises:
        CalibrationError: Not even the largest multiplier meets the target; DeltaTooLargeError where none is needed.
    """
    if target_epsilon <= 0:
        raise CalibrationError(f"the target epsilon must be positive, is {target_epsilon}")
    chance = chance_of_use(compose(1.0)) if has_pld(compose(1.0)) else 1.0
    if 0 < chance <= delta:
        raise DeltaTooLargeError(
            f"{delta:g} is at least the chance of {chance:.3g} that a record is in any step at all: to give it away "
            "without noise would be within the promise"
        )

    def meets(multiplier: float) -> bool:
        return upper_epsilon(compose(multiplier), delta, adjacency, coarse=True) <= target_epsilon

    def barely_meets(multiplier: float) -> bool:
        return upper_epsilon(compose(multiplier), delta, adjacency) <= target_epsilon

    high = 1.0
    while not meets(high):
        high *= 2
        if high > _MAX_MULTIPLIER:
            raise CalibrationError(f"no noise multiplier up to {_MAX_MULTIPLIER:g} gives epsilon {target_epsilon}")
    found = _least(meets, high)
    return _least(barely_meets, found) if barely_meets(found / (1 + _PRECISION)) else found


def _least(meets: Callable[[float], bool], high: float) -> float:
    """Return a multiplier that meets the target, as `high` does, and is above one that does not by `_PRECISION`."""
    low = high / 2
    while meets(low):
        low, high = low / 2, low
        if low < 1 / _MAX_MULTIPLIER:
            return high
    while high > low * (1 + _PRECISION):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high


def calibrate_sampled_gaussian(
    target_epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE_ONE,
) -> float:
    """Return a noise multiplier of DP-SGD with this rate and number of steps that meets the target.

    Raises:
        CalibrationError: No noise meets the target; DeltaTooLargeError where none is needed.
    """
    return calibrate_noise(
        lambda multiplier: [Repeated(SampledGaussian(multiplier, sampling_rate), steps)],
        target_epsilon,
        delta,
        adjacency,
    )


def affordable_steps(
    step: Composition,
    target_epsilon: float,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE_ONE,
) -> int:
    """Return how often `step` can be taken so that the whole stays within the target."""

    def meets(count: int, *, coarse: bool = True) -> bool:
        more = [replace(part, count=part.count * count) for part in step] if count else []
        return upper_epsilon(more, delta, adjacency, coarse=coarse) <= target_epsilon

    found = _most(meets, 0)
    return _most(lambda count: meets(count, coarse=False), found)


def _most(meets: Callable[[int], bool], low: int) -> int:
    """Return the largest number that meets the target, as `low` does; _MAX_STEPS where there is no end."""
    if low == _MAX_STEPS or not meets(low + 1):
        return low
    low, stride = low + 1, 1
    while meets(low + stride):
        low, stride = low + stride, 2 * stride
        if low + stride > _MAX_STEPS:
            return _MAX_STEPS
    high = low + stride
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low
