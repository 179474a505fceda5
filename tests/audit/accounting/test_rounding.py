"""Bounds at the edge of floating point: many uses, little delta, steps that lose next to nothing."""

import math

import pytest
from scipy import optimize, stats

from audit.accounting import (
    Adjacency,
    DeltaTooLargeError,
    Gaussian,
    Repeated,
    SampledGaussian,
    account,
    affordable_steps,
    bound_against,
    calibrate_sampled_gaussian,
    rdp_epsilon,
    upper_accountant,
    upper_epsilon,
)
from audit.accounting.calibrate import chance_of_use
from audit.accounting.pld import is_closed_form, pld_epsilon
from audit.accounting.prv import prv_interval


def exact(mu, delta):
    """Balle and Wang 2018, theorem 8, with logarithms."""

    def excess(epsilon):
        first = stats.norm.logcdf(mu / 2 - epsilon / mu)
        second = epsilon + stats.norm.logcdf(-mu / 2 - epsilon / mu)
        return first + math.log(-math.expm1(second - first)) - math.log(delta)

    return optimize.brentq(excess, 1e-12, mu**2 / 2 + 40 * mu, xtol=1e-13)


@pytest.mark.parametrize("adjacency", list(Adjacency))
@pytest.mark.parametrize("delta", [1e-10, 1e-5, 9e-3])
@pytest.mark.parametrize(
    ("z", "count"), [(393.595, 100_000), (26.3731, 1000), (4.244, 50), (1.3, 12), (0.5, 1), (40, 1)]
)
def test_without_sampling_epsilon_is_exact(z, count, delta, adjacency):
    moved = 2 if adjacency is Adjacency.REPLACE_ONE else 1
    found = account([Repeated(SampledGaussian(z, 1.0), count)], delta, adjacency)
    known = exact(moved * math.sqrt(count) / z, delta)
    assert found.lower <= known * (1 + 1e-11)
    assert known * (1 - 1e-11) <= found.upper <= known * (1 + 1e-9)
    assert found.contradictions == ()


def test_noise_of_several_sizes_adds_up_exactly():
    parts = [Repeated(Gaussian(4.0), 10), Repeated(SampledGaussian(7.0, 1.0), 5), Repeated(Gaussian(3.0), 2)]
    assert upper_epsilon(parts, 1e-6) == pytest.approx(exact(math.sqrt(10 / 16 + 5 / 49 + 2 / 9), 1e-6), rel=1e-9)


@pytest.mark.parametrize(
    ("z", "rate", "count", "delta"),
    [
        (6732.53, 0.5, 10_000, 1e-8),
        (17_500, 0.1, 100_000, 1e-10),
        (3, 0.9, 10_000, 1e-6),
        (393.6, 0.9999, 100_000, 1e-10),
    ],
)
@pytest.mark.parametrize("adjacency", list(Adjacency))
def test_valid_compositions_contradict_nobody(z, rate, count, delta, adjacency):
    composition = [Repeated(SampledGaussian(z, rate), count)]
    found = account(composition, delta, adjacency)
    assert found.contradictions == ()
    assert found.upper == upper_epsilon(composition, delta, adjacency)
    assert found.upper <= rdp_epsilon(composition, delta, adjacency)
    moved = 2 if adjacency is Adjacency.REPLACE_ONE else 1
    assert found.upper <= exact(moved * math.sqrt(count) / z, delta) * 1.01  # sampling costs nothing
    assert found.lower is None or found.lower <= found.upper


def test_a_bound_holds_where_rounding_is_near_delta():
    """At a rate just below 1 the cost is that of no sampling, which the sum over a grid fell below."""
    for count, z in ((20_000, 176.0), (100_000, 393.595)):
        composition = [Repeated(SampledGaussian(z, 1 - 1e-9), count)]
        assert upper_epsilon(composition, 1e-10) >= exact(math.sqrt(count) / z, 1e-10) * (1 - 1e-6)


def test_random_variables_bound_nothing_where_rounding_exceeds_delta():
    assert prv_interval([Repeated(SampledGaussian(17_500, 0.1), 100_000)], 1e-10) is None
    close = prv_interval([Repeated(SampledGaussian(1, 0.01), 1000)], 1e-10)
    assert close.lower < upper_epsilon([Repeated(SampledGaussian(1, 0.01), 1000)], 1e-10)


@pytest.mark.parametrize(
    ("target", "rate", "steps"), [(0.1, 1.0, 5000), (0.1, 0.5, 5000), (0.05, 0.1, 1000), (1.0, 0.016, 3100)]
)
def test_noise_for_a_small_target_is_the_least(target, rate, steps):
    found = calibrate_sampled_gaussian(target, 1e-5, rate, steps)
    assert upper_epsilon([Repeated(SampledGaussian(found, rate), steps)], 1e-5) <= target
    assert upper_epsilon([Repeated(SampledGaussian(found / 1.0011, rate), steps)], 1e-5) > target


def test_steps_are_counted_by_the_bound_that_is_stated():
    step = [Repeated(SampledGaussian(98, 0.1), 100)]
    assert upper_epsilon([Repeated(SampledGaussian(98, 0.1), 1000)], 1e-5) < 0.0993
    assert affordable_steps(step, 0.1, 1e-5) == 10
    found = affordable_steps([Repeated(SampledGaussian(5.0, 0.016))], 0.5, 1e-5)
    assert upper_epsilon([Repeated(SampledGaussian(5.0, 0.016), found)], 1e-5) <= 0.5
    assert upper_epsilon([Repeated(SampledGaussian(5.0, 0.016), found + 1)], 1e-5) > 0.5


def test_what_rdp_cannot_bound_is_bounded_against_a_target():
    composition = [Repeated(SampledGaussian(4.0, 0.1), 50)]
    assert bound_against(composition, 3.0, 1e-5, Adjacency.REPLACE_ONE) <= 3.0


def test_a_bound_against_a_target_is_not_above_it_where_the_stated_one_is_within():
    """At a delta above the chance of being sampled PLD finds 0, and RDP, which knows nothing of it, hundreds."""
    composition = [Repeated(SampledGaussian(0.1, 1e-3))]
    assert rdp_epsilon(composition, 5e-3) > 10 * (3.0 + 1)
    assert bound_against(composition, 3.0, 5e-3) == upper_epsilon(composition, 5e-3) == 0


@pytest.mark.parametrize("adjacency", list(Adjacency))
@pytest.mark.parametrize(("rate", "steps"), [(1e-4, 1), (1e-3, 3), (0.5, 1)])
def test_no_noise_is_made_where_delta_covers_every_sample(rate, steps, adjacency):
    chance = 1 - (1 - rate) ** steps
    with pytest.raises(DeltaTooLargeError, match=r"at least the chance of .* that a record is in any step"):
        calibrate_sampled_gaussian(8.0, chance * 1.001, rate, steps, adjacency)


def test_a_delta_of_just_that_chance_covers_every_sample_too():
    assert chance_of_use([Repeated(SampledGaussian(1.0, 0.5), 1)]) == 0.5
    with pytest.raises(DeltaTooLargeError, match=r"0\.5 is at least the chance of 0\.5"):
        calibrate_sampled_gaussian(8.0, 0.5, 0.5, 1)


@pytest.mark.parametrize(("count", "delta", "closed"), [(25_000, 1e-12, True), (100, 1e-5, False)])
def test_a_bound_for_which_nothing_was_put_on_a_grid_is_told_as_one(count, delta, closed):
    steps = [Repeated(SampledGaussian(4.0, 0.01), count)]
    without = [Repeated(Gaussian(4.0), count)]
    assert is_closed_form(steps, delta) is closed
    assert (pld_epsilon(steps, delta) == pld_epsilon(without, delta)) is closed


def test_below_the_chance_of_being_sampled_a_target_is_reached():
    needed = calibrate_sampled_gaussian(8.0, 0.45, 0.5, 1)
    assert 7.6 < upper_epsilon([Repeated(SampledGaussian(needed, 0.5))], 0.45) <= 8.0


@pytest.mark.parametrize(("count", "delta"), [(25_000, 1e-10), (100, 1e-5)])
def test_the_accountant_that_a_log_names_is_the_one_that_the_report_finds(count, delta):
    steps = [Repeated(SampledGaussian(4.0, 0.01), count)]
    found = account(steps, delta)
    assert upper_accountant(steps, delta) == found.accountant == ("RDP" if count > 100 else "PLD")
    assert upper_epsilon(steps, delta) == found.upper
