"""Stochastic rounding: unbiased, within its norms, and the same for one record of a sum as for a vector of its own."""

import math

import numpy as np
import pytest

from protocols.errors import OutOfRangeError
from protocols.noise.rounding import round_once, round_within, rounded_l1, rounded_l2
from tests.protocols.noise.checks import DEVIATIONS, source


def test_the_expectation_is_kept():
    grid = np.full(400_000, 3.3)
    rounded = round_once(grid, bytes(32))
    assert set(np.unique(rounded)) == {3, 4}
    assert abs(rounded.mean() - 3.3) < DEVIATIONS * math.sqrt(0.21 / grid.size)


def test_integers_are_not_touched():
    grid = np.arange(-1000.0, 1000.0)
    assert np.array_equal(round_once(grid, bytes(32)), grid)


@pytest.mark.parametrize("norm", [0.5, 10.0, 300.0])
@pytest.mark.parametrize("others", [0.0, 1e4])
def test_one_record_of_a_rounded_sum_is_within_the_bound(norm, others):
    """With the same u the difference is a rounding of the record: its norm exceeds D2(beta) as rarely as that."""
    d, beta, rng = 5000, 0.2, np.random.default_rng(1)
    record = rng.standard_normal(d)
    record *= norm / np.linalg.norm(record)
    rest = rng.standard_normal(d) * others
    exceeded = 0
    for trial in range(200):
        seed = trial.to_bytes(32, "little")
        difference = round_once(rest + record, seed) - round_once(rest, seed)
        assert np.linalg.norm(difference) <= rounded_l2(norm, d, 0)
        assert np.abs(difference).sum() <= rounded_l1(float(np.linalg.norm(difference)), d) + 1e-9
        exceeded += np.linalg.norm(difference) > rounded_l2(norm, d, beta)
    assert exceeded <= 200 * beta + DEVIATIONS * math.sqrt(200 * beta * (1 - beta))


def test_rounding_is_repeated_until_the_norm_is_within_the_limit():
    """A limit at the median of the norm: single tries exceed it, the result never does."""
    grid = np.full(64, 0.5)
    limit = math.sqrt(32)
    tries = [np.linalg.norm(round_once(grid, trial.to_bytes(32, "little"))) for trial in range(50)]
    assert max(tries) > limit
    for trial in range(50):
        rounded = round_within(grid, limit, source(f"within {trial}"))
        assert np.linalg.norm(rounded) <= limit


def test_a_vector_that_was_not_clipped_is_refused():
    with pytest.raises(OutOfRangeError):
        round_within(np.full(64, 100.5), rounded_l2(100.0, 64, 0), source("unclipped"))
