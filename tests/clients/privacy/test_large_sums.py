"""A clipped sum over many images moves by one of them no further than the sensitivity that is accounted for."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from clients.method.layout import initial_vector
from clients.privacy import PrivacySettings, PrivateHospital, Randomness
from clients.privacy import hospital as hospital_module
from protocols.noise.plan import LEEWAY
from tests.clients.privacy.test_private_hospital import SETTINGS, TEXT, WIDTH, make_site

MANY = 20_000
"""Images that all point one way: a float32 sum over them rounds by more than LEEWAY leaves room for."""

EVERYBODY = PrivacySettings(
    sampling_rate=1.0, clip_norms=(1.0,), noise_multipliers=(0.0,), coupling="one-way", steps=1, normaliser=1.0
)


def summed(features, labels):
    """The clipped sum over images."""
    site = make_site()
    site.train = SimpleNamespace(features=features, labels=labels)
    settings = dataclasses.replace(SETTINGS, fam_width=64)
    hospital = PrivateHospital(site, TEXT, 30.0, settings, EVERYBODY)
    return hospital.clipped_sum(initial_vector(WIDTH, settings, 0), 1, Randomness.of_a_seed(1))


def moved_by_one(count):
    """By how much the sum over so many images moves, in clip norms, if the first or the last is taken away."""
    rng = np.random.default_rng(1)
    features = (rng.standard_normal((1, WIDTH)) + 0.01 * rng.standard_normal((count, WIDTH))).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = np.zeros(count, np.int64)
    whole = summed(features, labels)
    others = (summed(features[kept], labels[kept]) for kept in (slice(1, None), slice(None, -1)))
    distances = [float(np.linalg.norm(whole.vector.astype(float) - other.vector)) for other in others]
    assert float(np.linalg.norm(whole.vector.astype(float))) > count / 3  # they do point one way, and are clipped
    return max(distances) / whole.clip_norm, whole.vector.dtype


def test_a_sum_over_many_images_is_as_insensitive_as_it_is_accounted_for():
    moved, kind = moved_by_one(MANY)
    assert kind == np.float64
    assert 0.9 < moved <= LEEWAY


def test_a_sum_over_few_images_stays_in_single_precision():
    moved, kind = moved_by_one(1000)
    assert kind == np.float32
    assert 0.9 < moved <= LEEWAY


def test_in_single_precision_many_images_would_be_too_sensitive(monkeypatch):
    monkeypatch.setattr(hospital_module, "ROWS_AT_A_TIME", MANY)
    moved, kind = moved_by_one(MANY)
    assert kind == np.float32
    assert moved > LEEWAY


@pytest.mark.parametrize("count", [1025, 2500])
def test_both_precisions_give_the_same_sum(monkeypatch, count):
    rng = np.random.default_rng(2)
    features = rng.standard_normal((count, WIDTH)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = rng.integers(0, len(TEXT), count)
    exact = summed(features, labels).vector
    monkeypatch.setattr(hospital_module, "ROWS_AT_A_TIME", count)
    np.testing.assert_allclose(summed(features, labels).vector, exact, rtol=1e-4, atol=1e-4)
