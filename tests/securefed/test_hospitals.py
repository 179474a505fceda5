"""The hospitals of a simulation: alone, in threads, or a round for all of them in one computation."""

import numpy as np
import pytest

from clients.method.layout import initial_vector
from clients.method.settings import METHODS, TrainingSettings
from securefed.hospitals import Hospitals
from tests.securefed.conftest import CLASSES, WIDTH, bundle

PROFILES = {"default": TrainingSettings.default(), "paper": TrainingSettings.paper()}
FAST = {"fast": TrainingSettings(fam_learning_rate=0.02, mlp_learning_rate=0.02)}


def make(method, profile="default", **how):
    return Hospitals(bundle(sites=3), (PROFILES | FAST)[profile], method, 0, "cpu", **how)


def start(method, profile="default"):
    return initial_vector(WIDTH, (PROFILES | FAST)[profile], 0, method, len(CLASSES))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("method", METHODS)
def test_a_round_in_one_computation_is_a_round_of_each(method, profile):
    """But for the biases before a batch norm (paper's MLP), which nothing but rounding moves."""
    alone, together = make(method, profile), make(method, profile, together=True)
    vector = start(method, profile)
    fam = start("fedclip", profile).size
    for site in alone.sites:
        expected, got = (way.train(site, vector, 1)[:fam] for way in (alone, together))
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    a, b = (way.validation_accuracy(vector) for way in (alone, together))
    assert a.keys() == b.keys()
    assert all(abs(a[site][part] - b[site][part]) < 0.1 for site in a for part in a[site])


def test_a_site_that_received_another_model_trains_from_that_one():
    alone, together = make("fedmedclip"), make("fedmedclip", together=True)
    vector = start("fedmedclip")
    other = vector + np.float32(1e-3)
    together.train("site0", vector, 1)
    np.testing.assert_array_equal(together.train("site1", other, 1), alone.train("site1", other, 1))


def test_a_site_that_is_lost_keeps_what_it_had():
    together = make("fedmedclip", together=True)
    before = together.private_states()["site1"]
    vector = start("fedmedclip")
    together.train("site0", vector, 1)
    after = together.private_states()["site1"]
    assert all(np.array_equal(before[name], after[name]) for name in before)
    alone = make("fedmedclip")
    np.testing.assert_allclose(together.train("site1", vector, 2), alone.train("site1", vector, 2), rtol=0, atol=1e-5)


def test_a_score_is_that_of_the_present_model():
    hospitals, vector = make("fedmedclip", "fast"), start("fedmedclip", "fast")
    scores = [hospitals.score("site0", vector)]
    for number in range(1, 5):
        vector = vector + hospitals.train("site0", vector, number)
        scores.append(hospitals.score("site0", vector))
        assert scores[-1] == hospitals.validation_accuracy(vector)["site0"]["ensemble"]
        assert scores[-1] == score_of_fresh_ones(number)
    assert len(set(scores)) > 1
    assert hospitals.seconds > 0


def score_of_fresh_ones(rounds):
    """The score of hospitals that remember nothing of the rounds before."""
    fresh, vector = make("fedmedclip", "fast"), start("fedmedclip", "fast")
    for number in range(1, rounds + 1):
        vector = vector + fresh.train("site0", vector, number)
    return fresh.score("site0", vector.copy())
