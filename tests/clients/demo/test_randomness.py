import numpy as np
import pytest

from clients.demo.randomness import Stream


def test_numbers_are_those_of_philox_on_every_machine():
    stream = Stream("a word", 7)
    expected = np.random.Philox(key=stream_key("a word", 7)).random_raw(3)
    assert [stream.unit() for _ in range(3)] == [(int(raw) >> 11) / 2**53 for raw in expected]


def stream_key(*words):
    import hashlib

    name = "/".join(("securefed/demo/v1", *map(str, words)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big")


def test_known_values():
    stream = Stream(0, "test")
    assert [stream.unit(), stream.unit()] == [0.10083291205781886, 0.09501718365145573]


def test_other_words_give_other_numbers():
    assert Stream("a", 1).unit() != Stream("a", 2).unit()
    assert Stream("a", "b").unit() == Stream("a", "b").unit()


def test_ranges():
    stream = Stream("ranges")
    units = [stream.unit() for _ in range(2000)]
    assert min(units) >= 0.0
    assert max(units) < 1.0
    assert {stream.below(5) for _ in range(200)} == set(range(5))
    assert all(2.0 <= stream.between(2.0, 3.0) < 3.0 for _ in range(100))
    assert stream.chance(1.0)
    assert not stream.chance(0.0)


def test_directions_have_unit_length_and_go_everywhere():
    directions = np.array([Stream("d", index).direction() for index in range(400)])
    assert np.allclose((directions**2).sum(axis=1), 1.0)
    quadrants = {(x > 0, y > 0) for x, y in directions}
    assert len(quadrants) == 4


def test_grain_has_mean_zero_and_variance_one():
    grain = Stream("grain").grain(200, 300)
    assert grain.shape == (200, 300)
    assert grain.dtype == np.float32
    # 60,000 numbers: the mean's standard deviation is 0.004, the variance's 0.006.
    assert float(grain.mean(dtype=np.float64)) == pytest.approx(0.0, abs=0.03)
    assert float(grain.var(dtype=np.float64)) == pytest.approx(1.0, abs=0.04)
    assert float(np.abs(grain).max()) < 3.5


def test_units_fill_the_interval():
    units = Stream("units").units(100, 100)
    assert units.dtype == np.float32
    assert 0.0 <= float(units.min()) < 0.01
    assert 0.99 < float(units.max()) < 1.0
