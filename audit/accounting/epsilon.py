"""Epsilon of a composition with its bracket and cross-checks: one number for the report, and whether to believe it.

The stated value is the pessimistic PLD where every part is Gaussian, else RDP, as it is where RDP bounds it better.
Beside it stand the optimistic PLD as a lower bound and the accountants it was checked against; where the bounds
contradict each other the result says so and nothing may be claimed from it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from audit.accounting.gaussian import is_gaussian
from audit.accounting.mechanisms import Adjacency, Composition
from audit.accounting.pld import has_pld, is_meaningless, pld_epsilon, rounding_of
from audit.accounting.prv import prv_interval
from audit.accounting.rdp import rdp_epsilon

DISAGREEMENT = "ACCOUNTING DISAGREEMENT"
"""First words of every contradiction between accountants."""

_SLACK = 1 + 1e-6

_LITTLE = 0.1
"""Of delta: where rounding is more than that, a PLD above RDP is no sign of an error."""

_UPPER = {"PLD": "the pessimistic PLD", "RDP": "RDP"}

_LARGEST_LOWER = 700.0
"""Above it exp(-loss) underflows in `dp-accounting`, whose optimistic epsilon then is too large by up to about 1."""


@dataclass(frozen=True)
class Epsilon:
    """What a composition costs.

    Attributes:
        delta: Probability with which the guarantee may fail.
        adjacency: Neighbouring relation.
        accountant: Which one states `upper`: PLD or RDP.
        upper: No smaller than the true epsilon; infinite where nothing can be claimed.
        lower: No larger than the true epsilon of the mechanisms; None where no accountant gives one. By PRV above 700,
            unless it is known in closed form.
        cross_checks: {accountant: epsilon} of the others; PRV is an upper bound.
        contradictions: What does not fit together, each beginning with DISAGREEMENT; empty when all is well.
    """

    delta: float
    adjacency: Adjacency
    accountant: str
    upper: float
    lower: float | None
    cross_checks: Mapping[str, float]
    contradictions: tuple[str, ...]


def account(composition: Composition, delta: float, adjacency: Adjacency = Adjacency.ADD_OR_REMOVE_ONE) -> Epsilon:
    """Return what a composition costs, cross-checked.

    Args:
        composition: What was released about the same data.
        delta: Probability within (0, 1).
        adjacency: Neighbouring relation.

    Raises:
        ValueError: `delta` is out of range.
        AccountingUnavailableError: `dp-accounting` or scipy is not installed.
    """
    rdp = rdp_epsilon(composition, delta, adjacency)
    if not has_pld(composition):
        return Epsilon(delta, adjacency, "RDP", rdp, None, {}, ())
    if is_meaningless(composition, delta, adjacency):  # not computed, so that there is nothing to compare
        return Epsilon(delta, adjacency, "PLD", math.inf, 0.0, {"RDP": rdp} if math.isfinite(rdp) else {}, ())
    pld = pld_epsilon(composition, delta, adjacency)
    stated, upper = ("PLD", pld) if pld <= rdp else ("RDP", rdp)
    lower: float | None = pld_epsilon(composition, delta, adjacency, pessimistic=False)
    checks = {name: bound for name, bound in (("PLD", pld), ("RDP", rdp)) if name != stated and math.isfinite(bound)}
    contradictions: list[str] = []
    assert lower is not None  # noqa: S101 (narrows the type)
    if rounding_of(composition) < _LITTLE * delta and rdp * _SLACK + 2e-4 < pld < math.inf:
        contradictions.append(_contradiction("the PLD", pld, "RDP", rdp))
    if lower > upper * _SLACK:
        contradictions.append(_contradiction("the optimistic PLD", lower, _UPPER[stated], upper))
    removed = adjacency is Adjacency.ADD_OR_REMOVE_ONE and not any(part.replaced for part in composition)
    prv = prv_interval(composition, delta) if removed else None
    if lower > _LARGEST_LOWER and not is_gaussian(composition):
        lower = None if prv is None else prv.lower
    if prv is not None:
        checks["PRV"] = prv.upper
        if lower is not None and lower > prv.upper:
            contradictions.append(_contradiction("the optimistic PLD", lower, "the upper PRV bound", prv.upper))
        if prv.lower > upper:
            contradictions.append(_contradiction("the lower PRV bound", prv.lower, _UPPER[stated], upper))
    return Epsilon(delta, adjacency, stated, upper, lower, checks, tuple(contradictions))


def _contradiction(low_name: str, low: float, high_name: str, high: float) -> str:
    return f"{DISAGREEMENT}: {low_name} {low:.6g} lies above {high_name} {high:.6g}"
