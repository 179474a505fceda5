"""The bound on sampled mechanisms with symmetric noise: against exact sums, the Gaussian, and the former bound."""

import dataclasses
import math
from functools import partial, reduce

import numpy as np
import pytest
from scipy.special import ive

from audit.accounting import (
    Adjacency,
    DiscreteGaussian,
    Repeated,
    SampledGaussian,
    Skellam,
    account,
    rdp_epsilon,
    upper_epsilon,
)
from audit.accounting.discrete import skellam_rdp
from audit.accounting.rdp import ORDERS, _sampled_gaussian
from audit.accounting.subsampling import sampled_rdp
from protocols.noise.rounding import rounded_l1, rounded_l2

DELTA = 1e-5
REACH = 120


def skellam(variance):
    """Probabilities of -REACH to REACH."""
    mass = ive(np.abs(np.arange(-REACH, REACH + 1)), variance)
    return mass / mass.sum()


def discrete_gaussian(variance):
    mass = np.exp(-(np.arange(-REACH, REACH + 1) ** 2) / (2 * variance))
    return mass / mass.sum()


def shifted(mass, shift):
    """Both distributions on common outputs; what is left out has a mass of below 1e-98."""
    wide = np.zeros(len(mass) + 40)
    without, with_record = wide.copy(), wide.copy()
    without[20 : 20 + len(mass)] = mass
    with_record[20 + shift : 20 + shift + len(mass)] = mass
    both = (without > 1e-100) & (with_record > 1e-100)
    return without[both], with_record[both]


def divergence(p, q, order):
    return float(np.log(np.sum(np.exp(order * np.log(p) + (1 - order) * np.log(q)))) / (order - 1))


@pytest.mark.parametrize("noise", [skellam, discrete_gaussian])
@pytest.mark.parametrize("shifts", [(1,), (3,), (1, -2)])
@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
def test_exact_sums_over_outputs_have_this_bound_in_both_directions(noise, shifts, rate):
    """One and two coordinates; with the exact divergences the sum is exact, and the other direction is smaller."""
    parts = [shifted(noise(9.0), shift) for shift in shifts]
    without, with_record = (reduce(np.multiply.outer, [part[side] for part in parts]).ravel() for side in (0, 1))
    mixed = (1 - rate) * without + rate * with_record
    plain = partial(divergence, with_record, without)
    for order in (2, 3, 8):
        added, removed = divergence(mixed, without, order), divergence(without, mixed, order)
        assert removed <= added * (1 + 1e-9)
        assert sampled_rdp(plain, rate, order) == pytest.approx(added, rel=1e-6)


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_the_stated_skellam_curve_bounds_the_exact_one(rate):
    shift, variance = 2, 16.0
    stated = Skellam(l1=float(shift), l2=float(shift), share_variance=variance, shares=1)
    without, with_record = shifted(skellam(variance), shift)
    mixed = (1 - rate) * without + rate * with_record
    for order in (2, 5, 12):
        bound = sampled_rdp(lambda j: skellam_rdp(stated, j), rate, order)
        assert divergence(mixed, without, order) <= bound
        assert bound <= skellam_rdp(stated, order)


def test_of_a_gaussian_it_is_the_exact_curve():
    for sigma, rate in ((1.0, 0.01), (0.6, 0.5), (4.0, 0.2)):
        for order in (2, 3, 17, 64):
            found = sampled_rdp(lambda j, sigma=sigma: j / (2 * sigma**2), rate, order)
            assert found == pytest.approx(_sampled_gaussian(rate, sigma, (order,))[0], rel=1e-9)


def test_nothing_is_lost_where_little_is_released():
    tiny = sampled_rdp(lambda j: j * 1e-12, 1e-4, 2)
    assert tiny == pytest.approx(2e-20, rel=1e-6)


def zhu_wang(plain, rate, order):
    """Zhu and Wang 2019, theorem 5: for any mechanism; what this package used before."""
    log_q, log_rest = math.log(rate), math.log1p(-rate)
    terms = [
        (order - 1) * log_rest + math.log(order * rate - rate + 1),
        math.log(math.comb(order, 2)) + 2 * log_q + (order - 2) * log_rest + plain(2),
    ]
    terms += [
        math.log(3 * math.comb(order, j)) + (order - j) * log_rest + j * log_q + (j - 1) * plain(j)
        for j in range(3, order + 1)
    ]
    return min(float(np.logaddexp.reduce(np.asarray(terms))) / (order - 1), plain(order))


def fine(z, n=10, dimension=2**15):
    """A sum of n vectors on a grid so fine that rounding costs next to nothing."""
    scale = 20_000.0
    l2 = rounded_l2(scale, dimension, 2.0**-80)
    return l2, rounded_l1(l2, dimension), (z * scale) ** 2 / n, n, dimension


@pytest.mark.parametrize(
    ("z", "rate", "count"), [(2.0, 0.05, 50), (1.0, 0.05, 50), (2.0, 0.1, 200), (4.0, 0.25, 50), (3.0, 0.5, 50)]
)
@pytest.mark.parametrize("kind", ["skellam", "discrete-gaussian"])
def test_it_lies_between_the_exact_gaussian_and_the_former_bound(monkeypatch, z, rate, count, kind):
    l2, l1, variance, n, dimension = fine(z)
    if kind == "skellam":
        mechanism = Skellam(l1, l2, variance, n, rate)
    else:
        mechanism = DiscreteGaussian(l1, l2, math.sqrt(variance), n, dimension, rate)
    found = rdp_epsilon([Repeated(mechanism, count)], DELTA)
    of_gaussian = [Repeated(SampledGaussian(z, rate), count)]
    integers = tuple(order for order in ORDERS if order == int(order))
    assert upper_epsilon(of_gaussian, DELTA) < rdp_epsilon(of_gaussian, DELTA) <= found
    assert found <= 1.01 * rdp_epsilon(of_gaussian, DELTA, orders=integers)
    monkeypatch.setattr("audit.accounting.rdp.sampled_rdp", zhu_wang)
    assert found < rdp_epsilon([Repeated(mechanism, count)], DELTA)


@pytest.mark.parametrize("noise", [skellam, discrete_gaussian])
@pytest.mark.parametrize("shifts", [(1, -1), (3, -3), (2, 1), (0, 3), (-2, -2)])
@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
def test_a_replaced_record_that_is_sampled_costs_no_more_than_one_that_is_not(noise, shifts, rate):
    """Exact sums over outputs: where the record is drawn, the data sets add the first shift and the second."""
    one, other = (np.pad(noise(9.0), (20 + shift, 20 - shift)) for shift in shifts)
    without = np.pad(noise(9.0), 20)
    known = (one > 1e-100) & (other > 1e-100) & (without > 1e-100)
    one, other, without = one[known], other[known], without[known]
    first, second = ((1 - rate) * without + rate * output for output in (one, other))
    for order in (1.5, 2, 5, 12):
        assert divergence(first, second, order) <= divergence(one, other, order) * (1 + 1e-12) + 1e-15


@pytest.mark.parametrize(
    "mechanism",
    [
        Skellam(100.0, 100.0, 40_000.0, 4, 0.1),
        DiscreteGaussian(100.0, 100.0, 200.0, 4, 10, 0.1),
    ],
)
def test_replaced_records_are_accounted_without_sampling_where_no_loss_distribution_exists(mechanism):
    whole = dataclasses.replace(mechanism, sampling_rate=1.0)
    relation = Adjacency.REPLACE_ONE
    found = upper_epsilon([Repeated(mechanism, 5)], DELTA, relation)
    assert upper_epsilon([Repeated(mechanism, 5)], DELTA) < found < math.inf
    assert found == upper_epsilon([Repeated(whole, 5)], DELTA, relation)
    assert found == upper_epsilon([Repeated(mechanism, 5, replaced=True)], DELTA)
    both = [Repeated(mechanism, 5), Repeated(SampledGaussian(4.0, 0.1), 3)]
    dearer = [Repeated(whole, 5), Repeated(SampledGaussian(4.0, 1.0), 3)]
    assert found < upper_epsilon(both, DELTA, relation) == upper_epsilon(dearer, DELTA, relation) < math.inf
    assert account(both, DELTA, relation).upper == upper_epsilon(both, DELTA, relation)


def test_sampled_gaussians_alone_keep_their_loss_distribution_where_a_record_is_replaced():
    sampled = [Repeated(SampledGaussian(1.0, 0.01), 100)]
    assert math.isinf(rdp_epsilon(sampled, DELTA, Adjacency.REPLACE_ONE))
    assert upper_epsilon(sampled, DELTA, Adjacency.REPLACE_ONE) < 5
