"""Bounds as text: what is stated is never stronger than what was computed, in whatever few digits."""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Final

LARGEST_CLAIM: Final = 23.0
"""The largest epsilon that is claimed: exp(23) is more than there are people, so that a bound above it excludes not
even that one who knows nothing else picks out the right person of all."""


def at_most(bound: float, digits: int = 4) -> str:
    """Return an upper bound in significant digits, rounded up: epsilon 7.99942 is stated as 8."""
    return _rounded(Decimal(repr(float(bound))), digits, ROUND_CEILING)


def at_least(bound: float, digits: int = 4) -> str:
    """Return a lower bound, or what is left of a budget, in significant digits, rounded down."""
    return _rounded(Decimal(repr(float(bound))), digits, ROUND_FLOOR)


def percent_at_most(share: float) -> str:
    """Return an upper bound on a share in per cent, with four significant digits, rounded up."""
    return f"{_rounded(100 * Decimal(repr(float(share))), 4, ROUND_CEILING)} %"


def finite(value: float) -> float | None:
    """Return a value as JSON has it, which has no infinity: None stands for it."""
    return value if math.isfinite(value) else None


def _rounded(bound: Decimal, digits: int, rounding: str) -> str:
    """Round the decimal number that a float is read back from: of 0.1, none of the digits behind its first."""
    return f"{float(Context(prec=digits, rounding=rounding).plus(bound)):.{digits}g}"
