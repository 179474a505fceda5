"""Metrics by hand on small cases, and where they are undefined."""

import numpy as np
import pytest

from clients.metrics import (
    METRIC_NAMES,
    ClassificationMetrics,
    as_mapping,
    confusion,
    evaluate,
    mean_metrics,
    reliability_curve,
    worst_metrics,
)

P = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.2, 0.3, 0.5]], np.float32)
LABELS = np.array([0, 1, 1, 0])


def test_values_by_hand():
    metrics = evaluate(P, LABELS)
    assert metrics.num_images == 4
    assert metrics.accuracy == 0.5
    assert metrics.balanced_accuracy == 0.5  # recalls 1/2 and 1/2; class 2 is absent and does not count
    # Class 0: precision 1/2, recall 1/2. Class 1: precision 1, recall 1/2.
    assert metrics.macro_f1 == pytest.approx((1 / 2 + 2 / 3) / 2)
    # Class 0: scores .9 .2 against .6 .3, two of four pairs right. Class 1: .4 .7 against .1 .3, all four right.
    assert metrics.auroc == pytest.approx((2 / 4 + 1) / 2)
    assert metrics.ece == pytest.approx((abs(1 - 0.9) + abs(0 - 0.6) + abs(1 - 0.7) + abs(0 - 0.5)) / 4, abs=1e-6)


def test_the_calibration_error_is_that_of_the_reliability_curve_with_images_that_are_certain():
    rng = np.random.default_rng(1)
    odds = rng.normal(0, 12, (400, 3))
    probabilities = np.exp(odds - odds.max(1, keepdims=True)).astype(np.float32)
    probabilities /= probabilities.sum(1, keepdims=True)
    labels = rng.integers(0, 3, 400)
    assert (probabilities.max(1) == 1).sum() > 20
    bins = reliability_curve(probabilities, labels)
    by_hand = sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / 400
    assert evaluate(probabilities, labels).ece == pytest.approx(by_hand, abs=1e-12)
    # Two images in the last bin, right with 0.98 and wrong with 1.0: one bin of accuracy 1/2, not two bins.
    pair = np.array([[0.98, 0.02], [1.0, 0.0]], np.float32)
    assert evaluate(pair, np.array([0, 1])).ece == pytest.approx(0.99 - 0.5, abs=1e-6)


def test_one_class_has_no_auroc():
    metrics = evaluate(P, np.zeros(4, np.int64))
    assert metrics.auroc is None
    assert metrics.balanced_accuracy == metrics.accuracy == 0.5


def test_no_images_no_metrics():
    metrics = evaluate(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    assert metrics == ClassificationMetrics(0, None, None, None, None, None)
    assert reliability_curve(np.zeros((0, 3)), np.zeros(0, np.int64)) == ()
    assert not confusion(np.zeros((0, 3)), np.zeros(0, np.int64)).any()


def test_mean_counts_sites_alike_and_skips_what_is_undefined():
    one, other = evaluate(P, LABELS), evaluate(P[:1], LABELS[:1])
    mean = mean_metrics([one, other])
    assert mean.num_images == 5
    assert mean.accuracy == pytest.approx((0.5 + 1) / 2)
    assert mean.auroc == one.auroc
    assert mean_metrics([]).accuracy is None


def test_worst_is_the_largest_error_and_the_least_accuracy():
    one, other = evaluate(P, LABELS), evaluate(P[:1], LABELS[:1])
    worst = worst_metrics([one, other])
    assert worst.accuracy == 0.5
    assert worst.ece == max(one.ece, other.ece)


def test_confusion_has_truth_in_rows():
    np.testing.assert_array_equal(confusion(P, LABELS), [[1, 0, 1], [1, 1, 0], [0, 0, 0]])


def test_reliability_bins_by_hand():
    bins = reliability_curve(P, LABELS, bins=2)
    assert [(b.confidence, b.accuracy, b.count) for b in bins] == [(pytest.approx((0.9 + 0.6 + 0.7 + 0.5) / 4), 0.5, 4)]
    assert [b.count for b in reliability_curve(P, LABELS)] == [1, 1, 1, 1]
    certain = reliability_curve(np.array([[1.0, 0.0]]), np.array([0]))
    assert (certain[0].confidence, certain[0].count) == (1.0, 1)


def test_by_name():
    assert list(as_mapping(evaluate(P, LABELS))) == ["num_images", *METRIC_NAMES]


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (P, LABELS[:2], "do not fit"),
        (P * np.nan, LABELS, "not finite"),
        (P, np.array([0, 1, 2, 3]), "must be in"),
        (P, np.array([0, 1, 2, -1]), "must be in"),
    ],
)
def test_nonsense_is_refused(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate(probabilities, labels)
