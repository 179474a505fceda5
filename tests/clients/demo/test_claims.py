"""What docs/demo.md claims about the demo, on the cohort and the encoder as they are shipped."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from clients.method import Hospital, TrainingSettings, initial_vector

ROUNDS = 30

pytestmark = pytest.mark.slow


def mean_test_accuracy(bundle, method):
    settings = TrainingSettings.default()
    hospitals = [Hospital(s, bundle.text_features, bundle.logit_scale, settings, method, 0) for s in bundle.sites]
    shared = method == "fedmedclip"
    vector = initial_vector(bundle.embed_dim, settings, 0) if shared else np.zeros(0, np.float32)
    for number in range(1, ROUNDS + 1 if method != "zero-shot" else 1):
        updates = [hospital.train_round(vector, number) for hospital in hospitals]
        if shared:
            vector = (vector + np.mean(updates, axis=0)).astype(np.float32)
    return float(np.mean([h.evaluate(vector, "test")["ensemble"].accuracy for h in hospitals]))


def test_fedmedclip_is_above_local_training_and_above_zero_shot(bundle):
    accuracy = {method: mean_test_accuracy(bundle, method) for method in ("zero-shot", "local", "fedmedclip")}
    assert accuracy["fedmedclip"] > accuracy["local"] + 0.02
    assert accuracy["fedmedclip"] > accuracy["zero-shot"] + 0.06


def test_a_probe_on_all_hospitals_is_far_above_one_at_each(bundle):
    def probe(sites):
        features = np.concatenate([site.train.features for site in sites])
        labels = np.concatenate([site.train.labels for site in sites])
        return LogisticRegression(C=250.0, max_iter=2000).fit(features, labels)

    pooled = probe(bundle.sites)
    tests = [(site, site.test.features, site.test.labels) for site in bundle.sites]
    alone = np.mean([probe([site]).score(features, labels) for site, features, labels in tests])
    together = np.mean([pooled.score(features, labels) for _, features, labels in tests])
    assert together > alone + 0.15
