"""Nothing that leaves a hospital, and nothing that it keeps, hangs on what lay in memory before it was written.

What lies there was features, gradients or clipped sums before: where it moved an update, no noise would be over it.
Torch and numpy give memory here that is full of NaN (of the largest number, where there is none).
"""

import dataclasses

import numpy as np
import pytest
import torch

from clients.method.settings import METHODS, TrainingSettings
from clients.privacy import PrivacySettings, Randomness
from tests.clients.method.test_hospital import make_hospital
from tests.clients.method.test_hospital import start as start_of
from tests.clients.privacy.test_private_hospital import SETTINGS, make, start


@pytest.fixture
def used_memory(monkeypatch):
    """Have fresh memory of torch and numpy hold what shows in everything that it gets into; return how to begin."""
    empty, empty_like = np.empty, np.empty_like

    def filled(array):
        array[...] = np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1
        return array

    def begin():
        torch.use_deterministic_algorithms(True)
        monkeypatch.setattr(np, "empty", lambda *args, **more: filled(empty(*args, **more)))
        monkeypatch.setattr(np, "empty_like", lambda *args, **more: filled(empty_like(*args, **more)))
        assert torch.empty(3).isnan().all()
        assert np.isnan(np.empty(3)).all()

    yield begin
    torch.use_deterministic_algorithms(False)


def released(hospital, vector, rounds):
    """Return the updates of some rounds, what the hospital keeps after them, and its answers."""
    updates = [rounds(hospital, vector, number) for number in (1, 2)]
    return [*updates, *hospital.private_state().values(), *hospital.predict(vector, "test").values()]


def check_same(make_one, vector, rounds, begin):
    found = released(make_one(), vector, rounds)
    begin()
    again = released(make_one(), vector, rounds)
    assert len(found) == len(again)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        assert np.isfinite(np.asarray(one)).all()


@pytest.mark.parametrize(
    ("coupling", "norms"), [("one-way", (1.0,)), ("joint", (1.0,)), ("joint", (0.5, 2.0))], ids=str
)
@pytest.mark.parametrize(("learned", "layers"), [(False, 0), (False, 1), (True, 0), (True, 1)])
def test_of_a_private_hospital(coupling, norms, learned, layers, used_memory):
    settings = dataclasses.replace(SETTINGS, learn_thresholds=learned, mlp_layers=layers, mlp_width=8)
    privacy = PrivacySettings(coupling=coupling, clip_norms=norms, noise_multipliers=(1.0,) * len(norms))
    check_same(
        lambda: make(privacy, settings=settings),
        start(settings),
        lambda hospital, vector, number: hospital.train_round(vector, number, Randomness.of_a_seed(number)),
        used_memory,
    )


@pytest.mark.parametrize("profile", ["default", "paper"])
@pytest.mark.parametrize("method", METHODS)
def test_of_every_method(method, profile, used_memory):
    settings = getattr(TrainingSettings, profile)()
    check_same(
        lambda: make_hospital(settings, method),
        start_of(settings, method),
        lambda hospital, vector, number: hospital.train_round(vector, number),
        used_memory,
    )
