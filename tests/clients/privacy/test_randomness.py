"""Noise and samples: their distribution, where they come from, and that no part of a stream is used twice.

Statistical tests fail by chance with a probability below 1e-9 each.
"""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from clients.privacy import randomness
from clients.privacy.randomness import Randomness

DRAWS = 400_000


def test_gaussian_numbers_have_the_distribution_they_claim():
    drawn = Randomness.of_the_system().gaussian(DRAWS).double().numpy()
    assert stats.kstest(drawn, "norm").pvalue > 1e-9
    assert abs(drawn.mean()) < 6.5 / DRAWS**0.5
    assert abs(drawn.std() - 1) < 6.5 / (2 * DRAWS) ** 0.5
    tail = (np.abs(drawn) > 4).sum()  # expected 25
    assert 3 <= tail <= 70


def test_the_halves_of_a_pair_are_uncorrelated():
    drawn = Randomness.of_the_system().gaussian(DRAWS).double().numpy()
    first, second = drawn[: DRAWS // 2], drawn[DRAWS // 2 :]
    for a, b in ((first, second), (first**2, second**2), (first[1:], first[:-1])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 6.5 / (DRAWS // 2) ** 0.5


@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_any_number_can_be_drawn(size):
    assert Randomness.of_the_system().gaussian(size).shape == (size,)


def test_uniform_numbers_never_reach_0_or_1():
    assert randomness.Randomness(bytes(32), reproducible=True).uniform(1).item() not in (0.0, 1.0)
    drawn = Randomness.of_the_system().uniform(DRAWS)
    assert 0 < drawn.min() < drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > 1e-9


@pytest.mark.parametrize("rate", [0.01, 0.5, 1.0])
def test_each_unit_is_sampled_with_the_rate_and_for_itself(rate):
    source = Randomness.of_the_system()
    samples = np.stack([source.poisson_sample(50, rate) for _ in range(4000)])
    spread = (rate * (1 - rate)) ** 0.5
    assert abs(samples.mean() - rate) <= 6.5 * spread / samples.size**0.5
    sizes = samples.sum(1)
    assert abs(sizes.var() - 50 * rate * (1 - rate)) <= 0.2 * 50 * rate * (1 - rate) + 1e-12
    if rate < 1:
        assert abs(np.corrcoef(samples[:, 0], samples[:, 1])[0, 1]) < 6.5 / 4000**0.5


def test_two_sources_of_the_system_share_nothing():
    drawn = [Randomness.of_the_system().gaussian(1000) for _ in range(3)]
    assert not any(torch.equal(a, b) for a, b in ((drawn[0], drawn[1]), (drawn[0], drawn[2]), (drawn[1], drawn[2])))


def test_a_stream_never_repeats():
    source = Randomness.of_a_seed(1, "a")
    drawn = [tuple(source.gaussian(4).tolist()) for _ in range(200)]
    assert len(set(drawn)) == 200


def test_the_key_has_256_bits_of_the_operating_system(monkeypatch):
    asked = []

    def urandom(count):
        asked.append(count)
        return bytes(range(count))

    monkeypatch.setattr(randomness.os, "urandom", urandom)
    source = Randomness.of_the_system()
    assert asked == [32]
    assert not source.reproducible
    with pytest.raises(ValueError, match="32 bytes"):
        Randomness(bytes(4), reproducible=False)


def test_a_seed_decides_everything_and_says_so():
    one, same, other = (Randomness.of_a_seed(7, *parts) for parts in (("a", 1), ("a", 1), ("a", 2)))
    assert one.reproducible
    assert torch.equal(one.gaussian(100), same.gaussian(100))
    assert not torch.equal(Randomness.of_a_seed(7, "a", 1).gaussian(100), other.gaussian(100))


def test_a_source_cannot_be_copied_or_shown():
    source = Randomness.of_the_system()
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="not copied"):
            attempt(source)
    assert repr(source) == "Randomness(reproducible=False)"


def test_torch_generators_have_no_say(monkeypatch):
    torch.manual_seed(0)
    first = Randomness.of_the_system().gaussian(10)
    torch.manual_seed(0)
    assert not torch.equal(first, Randomness.of_the_system().gaussian(10))
