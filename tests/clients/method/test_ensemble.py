"""Ensemble weights against the equations, and the pool's fit against a plain search."""

import numpy as np
import pytest

from clients.method.ensemble import Pool, entropy_ensemble, fit_pool


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def sample(count=60, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    signal = np.eye(classes)[labels]
    good = log_softmax(8 * signal + 6 * rng.normal(size=(count, classes)))
    bad = log_softmax(6 * rng.normal(size=(count, classes)))
    return good, bad, labels


def test_entropy_ensemble_by_the_equation():
    fam, mlp, _ = sample()
    p_fam, p_mlp = np.exp(fam), np.exp(mlp)
    h_fam, h_mlp = -(p_fam * fam).sum(1), -(p_mlp * mlp).sum(1)
    w = (h_fam / (h_mlp + h_fam))[:, None]
    np.testing.assert_allclose(entropy_ensemble(fam, mlp), w * p_mlp + (1 - w) * p_fam, rtol=1e-5)


def test_entropy_ensemble_of_two_certain_parts_is_their_mean():
    certain = np.array([[0.0, -2000.0]]), np.array([[-2000.0, 0.0]])
    np.testing.assert_allclose(entropy_ensemble(*certain), [[0.5, 0.5]])


def test_pool_is_the_normalised_product_of_powers():
    good, bad, _ = sample(5)
    product = np.exp(good) ** 0.7 * np.exp(bad) ** 0.2
    np.testing.assert_allclose(Pool((0.7, 0.2))(good, bad), product / product.sum(1, keepdims=True), rtol=1e-5)


def objective(members, labels, exponents, start):
    pooled = Pool(tuple(exponents))(*members).astype(float)
    fit = -np.log(pooled[np.arange(len(labels)), labels]).sum()
    return fit + 0.5 * ((np.array(exponents) - np.array(start)) ** 2).sum()


def test_fit_finds_the_minimum_of_likelihood_and_ridge():
    good, bad, labels = sample()
    pool = fit_pool([good, bad], labels, (0.5, 0.5))
    least = min(
        objective([good, bad], labels, (a, b), (0.5, 0.5))
        for a in np.linspace(0, 1, 101)
        for b in np.linspace(0, 1, 101)
    )
    assert objective([good, bad], labels, pool.exponents, (0.5, 0.5)) <= least + 1e-4
    assert all(e >= 0 for e in pool.exponents)


def test_a_member_that_misleads_is_left_out():
    good, _, labels = sample()
    wrong = log_softmax(-8 * np.eye(3)[labels] + 6 * np.random.default_rng(1).normal(size=good.shape))
    pool = fit_pool([good, wrong], labels, (0.5, 0.5))
    assert pool.exponents[1] == 0
    alone = fit_pool([good], labels, (0.5,))
    assert pool.exponents[0] == pytest.approx(alone.exponents[0])


def test_without_images_the_start_stays():
    none = np.zeros((0, 3))
    assert fit_pool([none, none], np.zeros(0, np.int64), (0.5, 0.25)).exponents == (0.5, 0.25)


def test_separable_images_give_finite_exponents():
    labels = np.arange(6) % 3
    certain = log_softmax(100.0 * np.eye(3)[labels])
    assert 0 < fit_pool([certain], labels, (1.0,)).exponents[0] < 10


def test_an_only_member_that_misleads_keeps_its_order():
    labels = np.arange(30) % 3
    wrong = log_softmax(-10.0 * np.eye(3)[labels])
    pool = fit_pool([wrong], labels, (1.0,))
    assert 0 < pool.exponents[0] <= 0.01
    np.testing.assert_array_equal(pool(wrong).argmax(1), wrong.argmax(1))
