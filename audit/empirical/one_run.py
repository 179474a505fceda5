"""One-run auditing: a lower bound on epsilon from guesses about many canaries in a single run.

Each canary takes part with probability 1/2, independently. The auditor sees what was released, guesses for some of the
canaries whether they took part, and counts right guesses. Under a true privacy claim many right guesses are improbable.

Papers: Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846) for pairs (epsilon, delta); Mahloujifar, Melis, Chaudhuri 2024
(arXiv 2410.22235) for whole trade-off curves, which is what notices faults where epsilon is above ln(canaries).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audit.empirical.tradeoff import GaussianCurve, TradeOff

MIN_CANARIES = 5000
"""Below this many a bound is small whatever the run leaks."""

_SHARES = (0.02, 0.2, 0.95)
"""Shares of the canaries that are guessed about; each is a test of its own, which the significance is divided by."""


@dataclass(frozen=True)
class OneRunAudit:
    """What the guesses show.

    Attributes:
        canaries: Canaries in the run.
        guesses: Guesses of the strongest bound.
        correct: Right ones among them.
        confidence: Probability with which all of the following hold.
        epsilon: Lower bound on epsilon at the delta, without any assumption on the mechanism.
        epsilon_gaussian: Lower bound if the mechanism is a Gaussian one.
        refuted: Whether the claimed curve is refuted; None where none was claimed.
    """

    canaries: int
    guesses: int
    correct: int
    confidence: float
    epsilon: float
    epsilon_gaussian: float
    refuted: bool | None


def audit_scores(
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    delta: float,
    claim: TradeOff | None = None,
    confidence: float = 0.95,
) -> OneRunAudit:
    """Return the bounds that the scores of canaries give.

    Half of the guesses say "took part", about the canaries with the highest scores; half say "did not", about those
    with the lowest. How many are guessed about does not depend on the scores.

    Args:
        scores: float64[m], higher where a canary rather took part; made without looking at `included`.
        included: bool[m], which took part, each with probability 1/2.
        delta: Delta of the claim, within (0, 1).
        claim: The claimed trade-off curve.
        confidence: Within (0, 1).

    Raises:
        ValueError: The arrays differ in length or are empty.
    """
    if scores.shape != included.shape or scores.ndim != 1 or not len(scores):
        raise ValueError("one score and one truth a canary are needed")
    order = np.argsort(scores, kind="stable")
    significance = (1 - confidence) / len(_SHARES)
    canaries = len(scores)
    best = OneRunAudit(canaries, 0, 0, confidence, 0.0, 0.0, None if claim is None else False)
    for share in _SHARES:
        half = max(1, round(share * canaries / 2))
        lowest, highest = order[:half], order[canaries - half :]
        correct = int((~included[lowest]).sum() + included[highest].sum())
        guesses = 2 * half
        if guesses > canaries:
            continue
        epsilon = _epsilon_bound(canaries, guesses, correct, delta, significance)
        gaussian = _gaussian_bound(canaries, guesses, correct, delta, significance)
        refuted = None if claim is None else curve_is_refuted(claim, canaries, guesses, correct, significance)
        stronger = gaussian > best.epsilon_gaussian or not best.guesses
        best = OneRunAudit(
            canaries=canaries,
            guesses=guesses if stronger else best.guesses,
            correct=correct if stronger else best.correct,
            confidence=confidence,
            epsilon=max(best.epsilon, epsilon),
            epsilon_gaussian=max(best.epsilon_gaussian, gaussian),
            refuted=None if claim is None else bool(best.refuted or refuted),
        )
    return best


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return a bound on the probability of this many right guesses under (epsilon, delta)-DP.

    Paper: Steinke, Nasr, Jagielski 2023, theorem 5.2: a binomial tail, plus 2 m delta times the largest mean of the
    probabilities just below it.
    """
    from scipy.stats import binom

    accuracy = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, accuracy))
    if delta == 0 or correct == 0:
        return min(1.0, tail)
    steps = np.arange(1, correct + 1)
    below = binom.sf(correct - 1 - steps, guesses, accuracy) - tail
    return min(1.0, tail + 2 * canaries * delta * float(np.max(below / steps)))


def curve_is_refuted(curve: TradeOff, canaries: int, guesses: int, correct: int, significance: float) -> bool:
    """Return whether this many right guesses have a probability of at most `significance` under a trade-off curve.

    Paper: Mahloujifar, Melis, Chaudhuri 2024, algorithm 3 for two outcomes. From the assumption that the tail has the
    probability `significance`, r and h bound from below the joint probabilities of right and wrong guesses for each
    smaller count; what they come to for the count 0 must not exceed the share of canaries that was guessed about.
    """
    right = significance * correct / canaries
    wrong = significance * (guesses - correct) / canaries
    for count in range(correct - 1, -1, -1):
        more = max(wrong, curve.wrong(min(1.0, right)))
        if more == wrong:
            break
        right += count / (guesses - count) * (more - wrong)
        wrong = more
        if right + wrong > guesses / canaries:
            return True
    return right + wrong > guesses / canaries


def _epsilon_bound(canaries: int, guesses: int, correct: int, delta: float, significance: float) -> float:
    def is_refuted(epsilon: float) -> bool:
        return p_value(canaries, guesses, correct, epsilon, delta) <= significance

    return _largest(is_refuted, 20.0)


def _gaussian_bound(canaries: int, guesses: int, correct: int, delta: float, significance: float) -> float:
    def is_refuted(mu: float) -> bool:
        return curve_is_refuted(GaussianCurve(mu), canaries, guesses, correct, significance)

    return GaussianCurve(_largest(is_refuted, 10.0)).epsilon(delta)


def _largest(is_refuted: Callable[[float], bool], high: float) -> float:
    """The largest parameter in [0, high] that is refuted, from below; 0 where none is."""
    low = 0.0
    if not is_refuted(low):
        return 0.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if is_refuted(middle) else (low, middle)
    return low
