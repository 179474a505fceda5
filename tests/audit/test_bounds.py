"""No stated bound is stronger than the one that was computed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.bounds import at_least, at_most, percent_at_most

POSITIVE = st.floats(1e-12, 1e12)


@given(POSITIVE, st.integers(1, 8))
def test_a_stated_bound_is_on_the_side_of_what_was_computed(value, digits):
    upper, lower = float(at_most(value, digits)), float(at_least(value, digits))
    assert lower <= value <= upper
    assert upper - lower <= 10 ** (math.floor(math.log10(value)) - digits + 1) * 1.001


@given(st.floats(0, 1))
def test_a_share_is_never_stated_below_itself(share):
    assert float(percent_at_most(share).removesuffix(" %")) >= 100 * share * (1 - 1e-15)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(7.999418588, "8"), (0.1, "0.1"), (8.0, "8"), (0.0, "0"), (2.00001, "2.001"), (12345, "1.235e+04")],
)
def test_upper_bounds_are_rounded_up_and_short_ones_left(value, shown):
    assert at_most(value) == shown


def test_what_is_infinite_or_nearly_certain_is_said():
    assert at_most(math.inf) == "inf"
    assert percent_at_most(0.999143) == "99.92 %"
