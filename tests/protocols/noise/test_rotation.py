"""The rotation: orthonormal, invertible, flat, and without padding in any dimension."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import ParameterError, ShapeError
from protocols.noise.rotation import Rotation, walsh_hadamard

SEED = bytes(range(32))


def slow_transform(vector):
    """The matrix, entry by entry."""
    index = np.arange(len(vector))
    parity = np.array([[bin(i & j).count("1") & 1 for j in index] for i in index])
    return ((-1.0) ** parity) @ vector


@pytest.mark.parametrize("bits", range(10))
def test_the_transform_is_the_matrix(bits):
    vector = np.random.default_rng(bits).standard_normal(1 << bits)
    kept = vector.copy()
    np.testing.assert_allclose(walsh_hadamard(vector), slow_transform(vector), atol=1e-10)
    assert np.array_equal(vector, kept)


@given(dimension=st.integers(1, 3000), seed=st.binary(min_size=32, max_size=32))
def test_norms_are_kept_and_the_inverse_is_exact_in_any_dimension(dimension, seed):
    rotation = Rotation(dimension, seed)
    vector = np.random.default_rng(dimension).standard_normal(dimension)
    rotated = rotation.apply(vector)
    assert rotated.shape == vector.shape
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(vector), rel=1e-12)
    np.testing.assert_allclose(rotation.invert(rotated), vector, atol=1e-12)


def test_the_fam_of_the_paper_takes_two_blocks_and_no_padding():
    rotation = Rotation(526_336, SEED)
    vector = np.random.default_rng(0).standard_normal(526_336).astype(np.float32)
    rotated = rotation.apply(vector)
    assert (rotation.block, rotated.size) == (1 << 19, 526_336)
    np.testing.assert_allclose(rotation.invert(rotated), vector, atol=1e-12)


@pytest.mark.parametrize("dimension", [1 << 12, (1 << 12) + 1, 526_336 >> 6, (1 << 13) - 1])
@pytest.mark.parametrize("place", ["first", "last", "middle"])
def test_a_vector_of_one_coordinate_is_spread_over_all_blocks(dimension, place):
    """Worst case of disjoint blocks: the last coordinate alone. Here nothing exceeds 8.5 / sqrt(p)."""
    vector = np.zeros(dimension)
    vector[{"first": 0, "last": -1, "middle": dimension // 2}[place]] = 1
    rotation = Rotation(dimension, SEED)
    assert np.abs(rotation.apply(vector)).max() < 8.5 / np.sqrt(rotation.block)


def test_another_seed_is_another_rotation_and_the_same_seed_the_same():
    vector = np.ones(100)
    first, again, other = (Rotation(100, seed).apply(vector) for seed in (SEED, SEED, bytes(32)))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_impossible_arguments_are_refused():
    with pytest.raises(ParameterError):
        Rotation(0, SEED)
    with pytest.raises(ParameterError):
        Rotation(4, b"short")
    with pytest.raises(ShapeError):
        Rotation(4, SEED).apply(np.zeros(5))
