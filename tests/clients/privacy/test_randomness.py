"""Noise and samples: their distribution, where they come from, and that no part of a stream is used twice.

Statistical tests fail by chance with a probability below 1e-9 each.
"""

import copy
import pickle

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
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


def test_bulk_and_tails_are_those_of_the_normal_distribution():
    """4,000,000 draws in 1,000 bins of the same probability; how many lie beyond 2 to 5 deviations; four moments."""
    draws = 4_000_000
    drawn = Randomness.of_the_system().gaussian(draws).double().numpy()
    counts = np.bincount((1000 * stats.norm.cdf(drawn)).astype(int), minlength=1000)
    assert stats.chisquare(counts).pvalue > 1e-9
    for deviations in (2, 3, 4, 5):
        expected = draws * stats.norm.sf(deviations)
        for found in ((drawn > deviations).sum(), (drawn < -deviations).sum()):
            assert stats.poisson.cdf(found, expected) > 1e-10
            assert stats.poisson.sf(found - 1, expected) > 1e-10
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((drawn**power).mean() - moment) < 6.5 * (variance / draws) ** 0.5


@pytest.mark.parametrize("sizes", [(5, 4), (1, 3), (3 * randomness._PAIRS_AT_A_TIME + 1, 10)])
def test_numbers_are_those_of_the_transform_in_double_precision_and_no_byte_is_used_twice(sizes):
    """Against Box and Muller's formula on the keystream cut by hand, front to back."""
    key = bytes(range(32))
    source = Randomness(key, reproducible=True)
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    for size in sizes:
        first, second = [], []
        left = (size + 1) // 2
        while left:
            count = min(left, randomness._PAIRS_AT_A_TIME)
            words = np.frombuffer(stream.update(bytes(8 * count)), dtype="<u8")
            angle = np.frombuffer(stream.update(bytes(4 * count)), dtype="<i4") * (2 * np.pi / 2**32)
            radius = np.sqrt(-2 * np.log(((words >> np.uint64(12)).astype(np.float64) + 0.5) / 2**52))
            first.append(radius * np.cos(angle))
            second.append(radius * np.sin(angle))
            left -= count
        expected = np.concatenate([*first, *second])[:size]
        np.testing.assert_allclose(source.gaussian(size).numpy(), expected, rtol=1e-6, atol=3e-6)


class Constant:
    """A keystream whose bytes are all the same."""

    def __init__(self, byte):
        self.byte = byte

    def update(self, given):
        return bytes([self.byte]) * len(given)

    def update_into(self, given, into):
        into[:] = bytes([self.byte]) * len(given)
        return len(given)


@pytest.mark.parametrize(("byte", "smallest", "radius"), [(0, 2.0**-53, 8.5718), (255, 1 - 2.0**-53, 1.49e-8)])
def test_the_ends_of_the_grid_are_where_the_limits_say(byte, smallest, radius):
    """No uniform number is 0 or 1; noise ends at 8.57 deviations."""
    source = Randomness(bytes(32), reproducible=True)
    source._stream = Constant(byte)
    assert source.uniform(1).item() == smallest
    assert source.gaussian(2).double().norm().item() == pytest.approx(radius, rel=1e-3)


def test_numbers_are_written_where_they_are_wanted():
    memory = torch.full((9,), 7.0)
    drawn = Randomness.of_a_seed(1, "a").gaussian(8, memory[:8])
    assert drawn.data_ptr() == memory.data_ptr()
    assert torch.equal(drawn, Randomness.of_a_seed(1, "a").gaussian(8))
    assert memory[8] == 7.0
    with pytest.raises(ValueError, match="not float32"):
        Randomness.of_a_seed(1, "a").gaussian(8, memory)


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


def test_a_stream_that_is_rewound_comes_out_the_same():
    for source in (Randomness.of_the_system(), Randomness.of_a_seed(1)):
        first = source.poisson_sample(50, 0.5), source.gaussian(7), source.uniform(3)
        source.rewind()
        again = source.poisson_sample(50, 0.5), source.gaussian(7), source.uniform(3)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
