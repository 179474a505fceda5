"""Baselines: zero-shot by the equation, the probe against scikit-learn's own answers."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from clients.method.baselines import PROBE_STRENGTHS, LinearProbe, fit_linear_probe, zero_shot


def sample(classes, count=90, width=8, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.array(classes)[np.arange(count) % len(classes)]
    centres = np.random.default_rng(1).normal(size=(10, width))
    return (centres[labels] + 1.5 * rng.normal(size=(count, width))).astype(np.float32), labels


def test_zero_shot_by_hand():
    image = np.array([[0.6, 0.8]], np.float32)
    expected = np.exp([6.0, 8.0]) / np.exp([6.0, 8.0]).sum()
    np.testing.assert_allclose(zero_shot(image, np.eye(2, dtype=np.float32), 10.0)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("classes", [(0, 1, 2), (0, 2), (1, 3, 4)])
def test_the_probe_is_scikit_learns_best_on_validation(classes):
    train, val = sample(classes), sample(classes, seed=1)
    probe = fit_linear_probe(train, val, 5)
    scaler = StandardScaler().fit(train[0].astype(float))
    models = [LogisticRegression(C=c, max_iter=2000).fit(scaler.transform(train[0]), train[1]) for c in PROBE_STRENGTHS]
    accuracies = [m.score(scaler.transform(val[0]), val[1]) for m in models]
    best = models[int(np.argmax(accuracies))]
    expected = np.zeros((len(val[0]), 5))
    expected[:, best.classes_] = best.predict_proba(scaler.transform(val[0]))
    np.testing.assert_allclose(probe.predict(val[0]), expected, atol=1e-4)


def test_one_class_is_all_the_probe_can_say():
    probe = fit_linear_probe(sample((3,)), sample((3,)), 5)
    np.testing.assert_array_equal(probe.predict(sample((0,))[0]).argmax(1), 3)


def test_the_probe_survives_storage():
    train = sample((0, 2))
    probe = fit_linear_probe(train, (train[0][:0], train[1][:0]), 3)
    again = LinearProbe.from_state(probe.state())
    np.testing.assert_array_equal(again.predict(train[0]), probe.predict(train[0]))
    assert LinearProbe.from_state({}) is None
