"""One-run auditing: the bounds follow the papers, hold for honest noise, and notice noise that was cut."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from audit.accounting import Gaussian, Repeated, SampledGaussian, upper_epsilon
from audit.empirical import GaussianCurve, ProfileCurve, audit_scores, curve_of
from audit.empirical.one_run import curve_is_refuted, p_value

DELTA = 1e-5


def scores_of(rng, canaries, sigma, steps, rate=1.0):
    """Canaries on a coordinate each in `steps` noisy sums: what a white-box auditor of DP-SGD sees."""
    included = rng.random(canaries) < 0.5
    scores = np.zeros(canaries)
    for _ in range(steps):
        scores += (included & (rng.random(canaries) < rate)) + sigma * rng.normal(size=canaries)
    return scores, included


def slow_p_value(canaries, guesses, correct, epsilon, delta):
    """The theorem term by term."""
    accuracy = 1 / (1 + math.exp(-epsilon))
    tail = sum(binom.pmf(k, guesses, accuracy) for k in range(correct, guesses + 1))
    alpha, below = 0.0, 0.0
    for step in range(1, correct + 1):
        below += binom.pmf(correct - step, guesses, accuracy)
        alpha = max(alpha, below / step)
    return min(1.0, tail + 2 * canaries * delta * alpha)


@given(
    guesses=st.integers(1, 60),
    share=st.floats(0, 1),
    epsilon=st.floats(0, 6),
    delta=st.sampled_from([0.0, 1e-6, 1e-3]),
)
@settings(max_examples=100, deadline=None)
def test_the_p_value_is_that_of_the_theorem(guesses, share, epsilon, delta):
    correct = round(share * guesses)
    found = p_value(100, guesses, correct, epsilon, delta)
    assert found == pytest.approx(slow_p_value(100, guesses, correct, epsilon, delta), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("noise", "epsilon"), [(1, 54.38), (4, 8.60), (8, 3.80), (20, 1.36)])
def test_the_gaussian_curve_has_the_known_epsilons(noise, epsilon):
    assert GaussianCurve(math.sqrt(50) / noise).epsilon(DELTA) == pytest.approx(epsilon, abs=0.006)


def test_a_gaussian_curve_without_signal_is_guessing():
    curve = GaussianCurve(0.0)
    assert curve.epsilon(DELTA) == 0
    assert curve.found(0.3) == pytest.approx(0.3)
    assert GaussianCurve(2.0).found(0.0) == 0
    assert GaussianCurve(2.0).wrong(1.0) == 1


@given(st.floats(0.001, 0.999), st.floats(0.05, 3.0))
@settings(max_examples=50, deadline=None)
def test_found_and_wrong_are_inverses(rate, mu):
    gaussian = GaussianCurve(mu)
    assert gaussian.found(rate) == pytest.approx(norm.cdf(norm.ppf(rate) + mu), abs=1e-9)
    assert gaussian.wrong(gaussian.found(rate)) == pytest.approx(rate, abs=1e-6)
    profile = ProfileCurve(tuple((gaussian.epsilon(delta), delta) for delta in (1e-1, 1e-3, 1e-5)))
    assert profile.wrong(profile.found(rate)) <= rate + 1e-6


def test_an_accounted_curve_is_never_better_than_the_true_one():
    """Upper bounds on epsilon give a curve that allows more than the mechanism does: refuting it refutes the claim."""
    curve, truth = curve_of([Repeated(Gaussian(4.0), 50)]), GaussianCurve(math.sqrt(50) / 4)
    for wrong in (1e-4, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.9):
        assert truth.found(wrong) - 1e-9 <= curve.found(wrong) <= truth.found(wrong) + 0.06


def test_honest_noise_is_bounded_below_the_claim_and_noise_cut_tenfold_is_not():
    """The reference case: 50 uses at multiplier 4, claimed epsilon 8.60."""
    composition = [Repeated(Gaussian(4.0), 50)]
    claimed, curve = upper_epsilon(composition, DELTA), curve_of(composition)
    rng = np.random.default_rng(5)
    honest = audit_scores(*scores_of(rng, 5000, 4.0, 50), DELTA, curve)
    assert not honest.refuted
    assert 2 < honest.epsilon < claimed
    assert 3 < honest.epsilon_gaussian < claimed
    for factor in (10, 3.3):
        cut = audit_scores(*scores_of(rng, 5000, 4.0 / factor, 50), DELTA, curve)
        assert cut.refuted
        assert cut.epsilon_gaussian > 10.9 > claimed
        assert (cut.canaries, cut.correct) == (5000, cut.guesses)


def test_sampled_noise_cut_tenfold_is_noticed_too():
    composition = [Repeated(SampledGaussian(1.0, 0.016), 1000)]
    rng = np.random.default_rng(6)
    curve = curve_of(composition)
    assert not audit_scores(*scores_of(rng, 5000, 1.0, 1000, 0.016), DELTA, curve).refuted
    assert audit_scores(*scores_of(rng, 5000, 0.1, 1000, 0.016), DELTA, curve).refuted


def test_bounds_of_true_claims_hold_in_every_one_of_many_runs():
    """400 audits at 95 %, of which bounds too conservative to ever fail on these seeds none fails."""
    rng = np.random.default_rng(7)
    composition = [Repeated(Gaussian(2.0))]
    claimed, curve = upper_epsilon(composition, DELTA), curve_of(composition)
    failures = 0
    for _ in range(400):
        found = audit_scores(*scores_of(rng, 300, 2.0, 1), DELTA, curve)
        failures += found.epsilon > claimed or found.epsilon_gaussian > claimed or bool(found.refuted)
    assert failures <= 20


def test_guessing_shows_nothing():
    rng = np.random.default_rng(8)
    included = rng.random(5000) < 0.5
    found = audit_scores(rng.normal(size=5000), included, DELTA)
    assert found.epsilon < 0.1
    assert found.refuted is None


def test_more_right_guesses_never_weaken_a_bound():
    refuted = [curve_is_refuted(GaussianCurve(0.5), 500, 400, correct, 0.05) for correct in range(200, 401, 10)]
    assert refuted == sorted(refuted)
    assert refuted[0] is False
    assert refuted[-1] is True


@pytest.mark.parametrize("shape", [(3, 2), (0, 0)])
def test_scores_without_truths_are_refused(shape):
    with pytest.raises(ValueError, match="one score and one truth"):
        audit_scores(np.zeros(shape[0]), np.zeros(shape[1], dtype=bool), DELTA)
