"""A hospital trains, resumes, predicts, and gives nothing away but its update."""

from types import SimpleNamespace

import numpy as np
import pytest

from clients.method.hospital import Hospital
from clients.method.layout import initial_vector, vector_layout
from clients.method.predictor import SitePredictor
from clients.method.settings import METHODS, SettingsError, TrainingSettings

CLASSES, WIDTH = 3, 16
PROFILES = {"default": TrainingSettings.default(), "paper": TrainingSettings.paper()}


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_site(name="a", seed=0, count=70):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(CLASSES, WIDTH))

    def rows(n):
        labels = np.arange(n) % CLASSES
        return SimpleNamespace(features=unit(centres[labels] + 0.5 * rng.normal(size=(n, WIDTH))), labels=labels)

    return SimpleNamespace(site=name, train=rows(count), val=rows(21), test=rows(21))


TEXT = unit(np.random.default_rng(5).normal(size=(CLASSES, WIDTH)))


def make_hospital(settings=PROFILES["default"], method="fedmedclip", name="a", seed=0, count=70):
    return Hospital(make_site(name, count=count), TEXT, 100.0, settings, method, seed)


def start(settings=PROFILES["default"], method="fedmedclip", seed=0):
    return initial_vector(WIDTH, settings, seed, method, CLASSES)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_predicts(method, profile):
    settings = PROFILES[profile]
    hospital, vector = make_hospital(settings, method), start(settings, method)
    for number in (1, 2):
        update = hospital.train_round(vector, number)
        assert update.dtype == np.float32
        assert update.shape == vector.shape
        vector = vector + update
    parts = hospital.predict(vector, "test")
    assert "ensemble" in parts
    for probabilities in parts.values():
        assert probabilities.shape == (21, CLASSES)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    stored = SitePredictor(TEXT, 100.0, settings, method, vector, hospital.private_state())
    for part, probabilities in stored.predict(hospital.site.test.features).items():
        np.testing.assert_array_equal(probabilities, parts[part])


@pytest.mark.parametrize("profile", PROFILES)
def test_a_resumed_run_equals_an_uninterrupted_one(profile):
    settings = PROFILES[profile]
    whole, vector = make_hospital(settings), start(settings)
    vector = vector + whole.train_round(vector, 1)
    resumed = make_hospital(settings)
    resumed.load_private_state(whole.private_state())
    np.testing.assert_array_equal(resumed.train_round(vector, 2), whole.train_round(vector, 2))
    np.testing.assert_array_equal(resumed.predict(vector)["ensemble"], whole.predict(vector)["ensemble"])


def test_the_vector_is_the_fam_and_nothing_else():
    names = [name for name, _ in vector_layout(512, TrainingSettings.paper())]
    assert names == [f"fam.{layer}.{part}" for layer in ("first", "second") for part in ("weight", "bias", "threshold")]
    assert len(initial_vector(512, TrainingSettings.paper(), 0)) == 526_336
    assert all(name.startswith("mlp.") for name in make_hospital().private_state() if "calibration" not in name)


def test_an_unknown_method_is_refused():
    with pytest.raises(SettingsError, match="fedsgd"):
        make_hospital(method="fedsgd")
