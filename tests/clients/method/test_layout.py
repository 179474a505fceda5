"""The shared vector: its order, its start and the way back."""

import numpy as np
import pytest
import torch

from clients.method.fam import FeatureAdaptationModule
from clients.method.layout import flatten, initial_vector, seeded_generator, shared_parameters, unflatten, vector_layout
from clients.method.settings import SettingsError, TrainingSettings

SETTINGS = TrainingSettings.default()


def length(layout):
    return sum(int(np.prod(shape)) for _, shape in layout)


def test_initial_vector_fits_the_layout_and_depends_on_the_seed_alone():
    first, again, other = (initial_vector(16, SETTINGS, seed) for seed in (0, 0, 1))
    assert first.dtype == np.float32
    assert first.shape == (length(vector_layout(16, SETTINGS)),)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_both_profiles_share_the_same_fam():
    assert vector_layout(512, SETTINGS) == vector_layout(512, TrainingSettings.paper())


@pytest.mark.parametrize("method", ["local", "zero-shot", "linear-probe"])
def test_methods_that_share_nothing_have_no_vector(method):
    assert vector_layout(16, SETTINGS, method) == ()
    assert initial_vector(16, SETTINGS, 0, method).shape == (0,)


def test_fedavg_mlp_adds_the_mlp_behind_the_fam():
    fam = vector_layout(16, SETTINGS)
    both = vector_layout(16, TrainingSettings.paper(), "fedavg-mlp", num_classes=3)
    assert both[: len(fam)] == fam
    assert all(name.startswith("mlp.") for name, _ in both[len(fam) :])
    assert not any("running" in name for name, _ in both)
    with pytest.raises(SettingsError, match="num_classes"):
        vector_layout(16, SETTINGS, "fedavg-mlp")


def test_there_and_back():
    parameters = shared_parameters(FeatureAdaptationModule(8, SETTINGS, torch.Generator().manual_seed(0)), None)
    vector = np.random.default_rng(0).normal(size=2 * (64 + 8 + 8)).astype(np.float32)
    unflatten(vector, parameters)
    np.testing.assert_array_equal(flatten(parameters), vector)
    for wrong in (vector[1:], vector[None]):
        with pytest.raises(ValueError, match="shape"):
            unflatten(wrong, parameters)


def test_generators_differ_by_purpose_seed_and_parts():
    def draw(*arguments):
        return torch.rand(4, generator=seeded_generator(*arguments)).tolist()

    draws = [
        draw("a", 0),
        draw("b", 0),
        draw("a", 1),
        draw("a", 0, "x", 1),
        draw("a", 0, "x", 11),
        draw("a", 0, "x1", 1),
    ]
    assert len({tuple(d) for d in draws}) == len(draws)
    assert draw("a", 0, "x", 1) == draws[3]
