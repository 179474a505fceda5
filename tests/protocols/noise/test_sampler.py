"""Tables and draws, against independent arithmetic and against an exact sampler. False alarms below 1e-9 a test."""

import math
from decimal import Context, Decimal, localcontext

import numpy as np
import pytest
from scipy import stats

from protocols.errors import ParameterError, SpentError
from protocols.noise.sampler import draw
from protocols.noise.tables import MAX_SIGMA, NoiseKind, NoiseTable, noise_table
from protocols.secret_values import NoiseSeed
from tests.protocols.noise.checks import ALARM, DEVIATIONS, chi_square

SIGMAS = [0.5, 1.5, 20.0]
DRAWS = 300_000


def seed(number: int = 0) -> NoiseSeed:
    return NoiseSeed(number.to_bytes(32, "little"))


def series(kind: NoiseKind, variance: float, magnitude: int) -> Decimal:
    """The weight of a magnitude by another way than the code's: the power series of I_k, or the exponential itself."""
    v = Decimal(variance)
    if kind is NoiseKind.DISCRETE_GAUSSIAN:
        return (-(Decimal(magnitude) ** 2) / (2 * v)).exp()
    term = (v / 2) ** magnitude / math.factorial(magnitude)
    total, m = Decimal(0), 0
    while term > Decimal("1e-90") * (total + 1) or m < v:
        total += term
        m += 1
        term *= (v / 2) ** 2 / (m * (m + magnitude))
    return total


def probabilities(kind: NoiseKind, sigma: float, reach: int) -> np.ndarray:
    """P(-reach) ... P(reach) by scipy."""
    k = np.arange(-reach, reach + 1)
    if kind is NoiseKind.SKELLAM:
        return stats.skellam.pmf(k, sigma**2 / 2, sigma**2 / 2)
    weights = np.exp(-(k**2) / (2 * sigma**2))
    return weights / weights.sum()


def p_value(noise: np.ndarray, kind: NoiseKind, sigma: float) -> float:
    reach = max(math.ceil(12 * sigma), 15)
    inside = np.clip(noise, -reach, reach) + reach
    chances = probabilities(kind, sigma, reach)
    return chi_square(np.bincount(inside, minlength=2 * reach + 1), chances / chances.sum())


@pytest.mark.parametrize("kind", NoiseKind)
@pytest.mark.parametrize("variance", [0.0001, 0.09, 0.25, 2.25, 100.0, 987.654])
def test_rows_are_exact_to_the_last_of_128_bits(kind, variance):
    table = noise_table(kind, variance)
    with localcontext(Context(prec=100, Emin=-999_999, Emax=999_999)):
        reach = 13 * math.ceil(math.sqrt(variance)) + 40
        weights = [series(kind, variance, k) for k in range(reach + 1)]
        total = 2 * sum(reversed(weights)) - weights[0]
        cumulated = Decimal(0)
        for magnitude, weight in enumerate(weights):
            cumulated += weight if magnitude == 0 else 2 * weight
            if magnitude % max(1, reach // 60) and magnitude > 5:
                continue
            expected = int(cumulated / total * (1 << 128))
            assert abs(table.row(magnitude) - min(expected, table.row(magnitude) | 1)) <= 1
            if magnitude < len(table.high):
                assert abs(table.row(magnitude) - expected) <= 1


@pytest.mark.parametrize("kind", NoiseKind)
def test_the_table_reaches_to_the_last_of_128_bits(kind):
    """One magnitude beyond the last row, less than 2**-127 is left."""
    for variance in (0.01, 1.0, 400.0):
        table = noise_table(kind, variance)
        with localcontext(Context(prec=100, Emin=-999_999, Emax=999_999)):
            weights = [series(kind, variance, k) for k in range(len(table.high) + 40)]
            total = 2 * sum(reversed(weights)) - weights[0]
            assert 2 * sum(weights[len(table.high) + 1 :]) / total * (1 << 128) < 2
            assert 2 * sum(weights[len(table.high) :]) / total * (1 << 128) > 1
        assert all(table.row(k) <= table.row(k + 1) for k in range(len(table.high)))


@pytest.mark.parametrize("kind", NoiseKind)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_draws_follow_the_distribution(kind, sigma):
    """Chi-square; rejects a right sampler once in 10^10 times."""
    noise = draw(noise_table(kind, sigma**2), seed(1), DRAWS)
    assert p_value(noise, kind, sigma) > ALARM


def test_a_rounded_gaussian_is_rejected_at_a_small_deviation():
    """The test has teeth: the most common mistake fails it, and so does the other distribution."""
    rng = np.random.default_rng(0)
    rounded = np.rint(rng.normal(0, 1.5, DRAWS)).astype(np.int64)
    assert p_value(rounded, NoiseKind.DISCRETE_GAUSSIAN, 1.5) < ALARM
    skellam = draw(noise_table(NoiseKind.SKELLAM, 2.25), seed(2), DRAWS)
    assert p_value(skellam, NoiseKind.DISCRETE_GAUSSIAN, 1.5) < ALARM


@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_draws_agree_with_the_exact_sampler_of_opendp(sigma):
    """OpenDP draws discrete Gaussians with exact rational arithmetic. Two-sample chi-square, 1e-10."""
    dp = pytest.importorskip("opendp.prelude")
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    exact = np.asarray(dp.m.make_gaussian(*space, scale=sigma)([0] * 20_000))
    ours = draw(noise_table(NoiseKind.DISCRETE_GAUSSIAN, sigma**2), seed(3), 200_000)
    reach = 12
    bins = 2 * reach + 1
    counts = np.stack([np.bincount(np.clip(n, -reach, reach) + reach, minlength=bins) for n in (exact, ours)])
    counts = counts[:, counts.sum(axis=0) > 20]
    assert stats.chi2_contingency(counts).pvalue > ALARM
    assert p_value(exact, NoiseKind.DISCRETE_GAUSSIAN, sigma) > ALARM


@pytest.mark.parametrize("kind", NoiseKind)
@pytest.mark.parametrize("sigma", [0.5, 300.0, 9000.0])
def test_moments_and_symmetry(kind, sigma):
    noise = draw(noise_table(kind, sigma**2), seed(4), DRAWS).astype(float)
    variance = (
        sigma**2
        if kind is NoiseKind.SKELLAM or sigma > 3
        else float(probabilities(kind, sigma, 15) @ np.arange(-15, 16) ** 2)
    )
    assert abs(noise.mean()) < DEVIATIONS * math.sqrt(variance / DRAWS)
    kurtosis = 3 + 1 / variance
    assert abs(noise.var() / variance - 1) < DEVIATIONS * math.sqrt((kurtosis - 1) / DRAWS)


def test_skellam_noise_is_closed_under_sums():
    """Three shares of a third of the variance are one share: what makes losses and removal exact."""
    shares = sum(draw(noise_table(NoiseKind.SKELLAM, 0.75), seed(10 + i), DRAWS) for i in range(3))
    assert p_value(shares, NoiseKind.SKELLAM, 1.5) > ALARM


def test_the_lower_words_decide_where_the_upper_are_equal():
    """A table in which every draw is a tie: the lower word must choose, and with the right probabilities."""
    number = seed(5)
    from protocols.noise.keystream import Use, expand, words

    upper = int(words(expand(number, Use.MAGNITUDES, 8))[0])
    quarter = 1 << 62
    table = NoiseTable(np.full(3, upper, np.uint64), np.array([quarter, 2 * quarter, 3 * quarter], np.uint64))
    lower = int(words(expand(number, Use.TIES, 8))[0])
    assert abs(int(draw(table, seed(5), 1)[0])) == lower // quarter


def test_draws_are_a_function_of_the_seed():
    table = noise_table(NoiseKind.SKELLAM, 9.0)
    assert np.array_equal(draw(table, seed(6), 1000), draw(table, seed(6), 1000))
    assert not np.array_equal(draw(table, seed(6), 1000), draw(table, seed(7), 1000))
    assert np.array_equal(draw(table, seed(6), 1000)[:400], draw(table, seed(6), 400))


def test_a_spent_seed_and_an_impossible_variance_are_refused():
    spent = seed(8)
    spent.erase()
    with pytest.raises(SpentError):
        draw(noise_table(NoiseKind.SKELLAM, 9.0), spent, 10)
    for variance in (0.0, -1.0, math.nan, math.inf, MAX_SIGMA**2 * 1.01):
        with pytest.raises(ParameterError):
            noise_table(NoiseKind.SKELLAM, variance)
