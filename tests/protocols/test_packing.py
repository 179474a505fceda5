import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import DecodeError, ParameterError, RingOverflowError
from protocols.packing import pack, packed_bytes, unpack
from protocols.ring import lane_dtype, required_ring_bits


def slow_pack(values, width):
    number = sum(int(value) << (i * width) for i, value in enumerate(values))
    return number.to_bytes(packed_bytes(len(values), width), "little")


@given(width=st.integers(1, 62), length=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_packing_equals_the_slow_definition_and_comes_back(width, length, seed):
    values = np.random.default_rng(seed).integers(0, 1 << width, length, dtype=np.uint64).astype(lane_dtype(width))
    packed = pack(values, width)
    assert packed == slow_pack(values, width)
    assert np.array_equal(unpack(packed, length, width), values)


@pytest.mark.parametrize("width", [1, 7, 16, 17, 23, 32, 33, 62])
def test_long_vectors_come_back(width):
    length = 64 * 1024 + 77
    values = np.random.default_rng(1).integers(0, 1 << width, length, dtype=np.uint64).astype(lane_dtype(width))
    assert np.array_equal(unpack(pack(values, width), length, width), values)


@given(data=st.binary(max_size=60), length=st.integers(1, 64), width=st.integers(1, 62))
@settings(max_examples=300, deadline=None)
def test_any_bytes_unpack_or_are_refused_and_repack_to_themselves(data, length, width):
    try:
        values = unpack(data, length, width)
    except DecodeError:
        return
    assert pack(values, width) == data


def test_padding_bits_must_be_zero():
    assert unpack(b"\xff\x7f", 3, 5).tolist() == [31, 31, 31]
    with pytest.raises(DecodeError, match="padding"):
        unpack(b"\xff\xff", 3, 5)


@pytest.mark.parametrize(("bits", "size"), [(1, 2), (16, 2), (17, 4), (32, 4), (33, 8), (62, 8)])
def test_lanes_are_the_narrowest_words(bits, size):
    assert lane_dtype(bits).itemsize == size


@pytest.mark.parametrize("bits", [0, 63])
def test_other_rings_are_refused(bits):
    with pytest.raises(ParameterError):
        lane_dtype(bits)


@given(clients=st.integers(1, 10_000), max_coordinate=st.integers(1, 2**32), noise_tail=st.integers(0, 2**32))
def test_the_ring_is_the_narrowest_in_which_nothing_wraps(clients, max_coordinate, noise_tail):
    bits = required_ring_bits(clients, max_coordinate, noise_tail)
    values = clients * max_coordinate + 2 * noise_tail + 1
    assert values <= 1 << bits
    assert bits == 1 or values > 1 << (bits - 1)


def test_more_than_62_bits_are_refused():
    with pytest.raises(RingOverflowError) as caught:
        required_ring_bits(4, 1 << 61)
    assert caught.value.required == 64
