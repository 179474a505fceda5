"""Rates of a membership attack: known answers, ties, and the order of nothing."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from audit.empirical import membership


def test_the_area_is_that_of_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    members, others = rng.integers(3, 10, 200).astype(float), rng.integers(0, 8, 300).astype(float)
    truth = np.r_[np.ones(200), np.zeros(300)]
    assert membership(members, others).auroc == pytest.approx(roc_auc_score(truth, np.r_[members, others]))


def test_rates_at_few_wrong_accusations():
    others = np.arange(1000.0)
    members = np.r_[np.full(30, 2000.0), np.full(20, 995.0), np.full(50, 0.0)]
    found = membership(members, others).found
    assert found[0.001] == 0.3  # one of the others may be accused, 999; the threshold is 998
    assert found[0.01] == 0.5
    assert found[1.0] == 1.0
    assert list(found.values()) == sorted(found.values())


def test_equal_scores_accuse_nobody_wrongly():
    found = membership(np.zeros(50), np.zeros(50))
    assert found.auroc == 0.5
    assert found.found[0.1] == 0


def test_nobody_to_compare_with_is_refused():
    with pytest.raises(ValueError, match="needed to compare"):
        membership(np.zeros(3), np.zeros(0))
