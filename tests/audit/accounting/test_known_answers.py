"""Known answers of the accountants, to the digits they are known to (delta 1e-5 unless said)."""

import math

import pytest

from audit.accounting import (
    Adjacency,
    DiscreteGaussian,
    Gaussian,
    GroupedSampledGaussian,
    Repeated,
    SampledGaussian,
    Skellam,
    account,
    rdp_epsilon,
    upper_epsilon,
)
from audit.accounting.pld import pld_epsilon
from audit.accounting.prv import prv_interval
from protocols.noise.rounding import rounded_l1, rounded_l2

DELTA = 1e-5
INTEGER_ORDERS = (*range(2, 129), 256)


def steps(sigma, q, count):
    return [Repeated(SampledGaussian(sigma, q), count)]


@pytest.mark.parametrize(
    ("sigma", "q", "count", "pld", "prv", "rdp"),
    [
        (1, 0.01, 1000, "1.82824", "1.83837", "2.10137"),
        (1.1, 256 / 60000, 14040, "2.3796", "2.3897", "2.5944"),
        (1, 0.05, 500, "7.5237", "7.5341", "8.2967"),
        (2, 0.1, 1000, "8.2793", "8.2897", "8.9439"),
    ],
)
def test_sampled_gaussian(sigma, q, count, pld, prv, rdp):
    found = account(steps(sigma, q, count), DELTA)
    digits = len(pld.split(".")[1])
    assert found.accountant == "PLD"
    assert f"{found.upper:.{digits}f}" == pld
    assert f"{found.cross_checks['PRV']:.{digits}f}" == prv
    assert f"{found.cross_checks['RDP']:.{digits}f}" == rdp
    assert found.lower < found.upper
    assert found.contradictions == ()


def test_brackets_of_the_first_setting():
    composition = steps(1, 0.01, 1000)
    assert f"{prv_interval(composition, DELTA, 0.001).upper:.5f}" == "1.82937"
    assert f"{pld_epsilon(composition, DELTA, pessimistic=False):.5f}" == "1.77824"
    assert f"{pld_epsilon(composition, DELTA, pessimistic=False, interval=1e-5):.5f}" == "1.82324"
    assert f"{pld_epsilon(composition, DELTA, Adjacency.REPLACE_ONE):.5f}" == "2.84345"


def test_rdp_as_opacus_has_it():
    orders = (*(1 + x / 10 for x in range(1, 100)), *range(12, 64))
    assert rdp_epsilon(steps(1.5, 0.04, 2250), DELTA, orders=orders) == pytest.approx(7.32911117143, abs=1e-10)


def test_linear_curve():
    """RDP of 1.1 at every order is that of a Gaussian only in name: the conversion at order 32 is the known one."""
    order = 32
    converted = 1.1 + math.log1p(-1 / order) - (math.log(DELTA) + math.log(order)) / (order - 1)
    composition = [Repeated(Gaussian(math.sqrt(order / 2 / 1.1)))]
    assert rdp_epsilon(composition, DELTA, orders=(order,)) == pytest.approx(converted)
    assert f"{converted:.8f}" == "1.32783806"


def test_two_runs_compose_below_their_sum():
    one, two = steps(1.2, 0.016, 3100), steps(1.2, 0.016, 6200)
    assert f"{upper_epsilon(one, DELTA):.2f}" == "3.99"
    assert f"{upper_epsilon([*one, *one], DELTA):.2f}" == "5.89"
    assert upper_epsilon([*one, *one], DELTA) == upper_epsilon(two, DELTA)


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [(0.6, "19.99"), (0.8, "9.00"), (1.0, "5.53"), (1.2, "3.99"), (1.5, "2.83"), (2, "1.92"), (3, "1.17")],
)
def test_local_runs(sigma, expected):
    assert f"{upper_epsilon(steps(sigma, 0.016, 3100), DELTA):.2f}" == expected


@pytest.mark.parametrize(
    ("z", "expected"), [(1, "54.38"), (2, "20.68"), (4, "8.60"), (8, "3.80"), (20, "1.36"), (30, "0.868")]
)
def test_whole_cohort(z, expected):
    digits = len(expected.split(".")[1])
    for mechanism in (Gaussian(z), SampledGaussian(z, 1.0)):
        assert f"{upper_epsilon([Repeated(mechanism, 50)], DELTA):.{digits}f}" == expected


def test_single_gaussian():
    assert rdp_epsilon([Repeated(Gaussian(4.530877117))], 1e-6) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("multipliers", "q", "count", "expected"),
    [
        ((1, 1), 0.01, 1000, "4.48"),
        ((1, 1), 0.016, 3100, "12.40"),
        ((1, 2), 0.016, 3100, "6.96"),
        ((1, 4), 0.016, 3100, "5.87"),
    ],
)
def test_groups_on_one_sample_are_one_mechanism(multipliers, q, count, expected):
    grouped = [Repeated(GroupedSampledGaussian(multipliers, q), count)]
    assert f"{upper_epsilon(grouped, DELTA):.2f}" == expected


def test_groups_as_independent_mechanisms_would_state_too_little():
    grouped = upper_epsilon([Repeated(GroupedSampledGaussian((1.0, 1.0), 0.01), 1000)], DELTA)
    independent = prv_interval(steps(1, 0.01, 2000), DELTA).upper
    assert f"{independent:.2f}" == "2.59"
    assert grouped > independent * 1.7


def test_ten_shares_against_one():
    whole, share = steps(2, 0.05, 50), steps(2 / math.sqrt(10), 0.05, 50)
    assert f"{upper_epsilon(whole, DELTA):.2f}" == "0.78"
    assert f"{upper_epsilon(share, DELTA):.1f}" == "7.8"


def on_the_grid(z, bits, k=4, beta=0.6065306597126334, n=10, dimension=2**19):
    """The grid of a sum of n clipped vectors of norm 1 with total noise z in a ring of so many bits."""
    scale = math.sqrt(4**bits - n * k**2) / (2 * k * math.sqrt(n**2 / dimension + z**2))
    l2 = rounded_l2(scale, dimension, beta)
    l1 = rounded_l1(l2, dimension)
    sigma = z * scale / math.sqrt(n)
    return Skellam(l1, l2, sigma**2, n), DiscreteGaussian(l1, l2, sigma, n, dimension)


@pytest.mark.parametrize(("z", "bits", "expected"), [(4, 16, "9.536768"), (8, 20, "4.106952")])
def test_discrete_mechanisms_at_integer_orders(z, bits, expected):
    for mechanism in on_the_grid(z, bits):
        assert f"{rdp_epsilon([Repeated(mechanism, 50)], DELTA, orders=INTEGER_ORDERS):.6f}" == expected


@pytest.mark.parametrize(
    ("z", "bits", "beta", "expected"),
    [
        (1, 16, math.exp(-0.5), "57.35"),
        (4, 16, math.exp(-0.5), "9.41"),
        (8, 16, math.exp(-0.5), "4.39"),
        (20, 16, math.exp(-0.5), "2.03"),
        (4, 20, math.exp(-0.5), "9.24"),
        (4, 16, 0, "13.38"),
        (8, 16, 0, "7.64"),
        (20, 16, 0, "4.61"),
    ],
)
def test_discrete_gaussian_by_bits(z, bits, beta, expected):
    _, mechanism = on_the_grid(z, bits, beta=beta)
    assert rdp_epsilon([Repeated(mechanism, 50)], DELTA) == pytest.approx(float(expected), abs=0.055)


@pytest.mark.parametrize(("z", "expected"), [(0.8, 11.98), (1, 7.31), (2, 2.92), (4, 1.96)])
def test_sampled_discrete_gaussian(z, expected):
    """The values of the bound for any mechanism (Zhu and Wang 2019), below which the one for symmetric noise lies."""
    _, plain = on_the_grid(z, 16, n=100)
    mechanism = DiscreteGaussian(plain.l1, plain.l2, plain.share_sigma, 100, 2**19, 0.1)
    gaussian = upper_epsilon([Repeated(SampledGaussian(z, 0.1), 50)], DELTA)
    assert gaussian < rdp_epsilon([Repeated(mechanism, 50)], DELTA) < 1.03 * expected
