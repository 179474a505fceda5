import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import FixedPointCodec, ParameterError
from protocols.errors import DtypeError, NonFiniteError, OutOfRangeError, ShapeError, WeightError
from protocols.vectors import Aggregate, EncodedVector


def total_of(encoded, ring_bits=40):
    lanes = sum(vector.lanes(ring_bits).astype(np.uint64) for vector in encoded)
    return Aggregate(lanes, ring_bits, len(encoded))


@given(
    value_bits=st.integers(2, 22),
    clients=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
    limits=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_sums_decode_within_the_stated_error(value_bits, clients, seed, limits):
    rng = np.random.default_rng(seed)
    lengths = [int(rng.integers(1, 20)) for _ in limits]
    codec = FixedPointCodec(lengths, limits, value_bits)
    scale = np.repeat(codec.ranges, lengths)
    updates = [(rng.uniform(-0.999, 0.999, len(scale)) * scale).astype(np.float32) for _ in range(clients)]
    total = total_of([codec.encode(update, rng) for update in updates])
    error = np.abs(codec.decode_sum(total, clients) - sum(update.astype(np.float64) for update in updates))
    assert (error <= clients * 2 * scale / (2**value_bits - 2) * (1 + 1e-9)).all()


def test_rounding_is_unbiased():
    """Mean of 40,000 encodings of one value: off by more than 6 standard errors with probability below 1e-8."""
    codec = FixedPointCodec([40_000], [1.0], 4)
    value = np.full(40_000, 0.123, dtype=np.float32)
    decoded = codec.decode_sum(total_of([codec.encode(value, np.random.default_rng(0))]), 1)
    step = 2 / 14
    assert abs(decoded.mean() - np.float64(np.float32(0.123))) < 6 * step / 2 / 200


@pytest.mark.parametrize("value_bits", [2, 3, 8, 16, 22])
def test_zero_and_the_bounds_encode_exactly(value_bits):
    codec = FixedPointCodec([3], [0.25], value_bits)
    update = np.array([-0.25, 0.0, 0.25], dtype=np.float32)
    for seed in range(20):
        encoded = codec.encode(update, np.random.default_rng(seed)).lanes(32)
        assert encoded.tolist() == [0, 2 ** (value_bits - 1) - 1, 2**value_bits - 2]
    decoded = codec.decode_sum(total_of([codec.encode(update, np.random.default_rng(0))]), 1)
    assert decoded.tolist() == update.tolist()


def test_weighted_sum_at_the_largest_weight_is_the_unweighted_one():
    update = np.array([0.5, -0.125, 0.0], dtype=np.float32)
    codec = FixedPointCodec([3], [0.5], 16, max_weight=1000)
    total = total_of([codec.encode(update, np.random.default_rng(0), weight=1000)])
    assert codec.decode_weight(total) == 1000
    np.testing.assert_allclose(codec.decode_mean(total, 1), update, atol=1 / (2**16 - 2))


def test_saturate_clamps_and_counts():
    codec = FixedPointCodec([2, 2], [0.5, 0.1], 8)
    clamped, count = codec.saturate(np.array([0.6, 0.4, -0.2, 0.1], dtype=np.float32))
    assert clamped.tolist() == np.array([0.5, 0.4, -0.1, 0.1], dtype=np.float32).tolist()
    assert count == 2
    codec.encode(clamped, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("update", "error"),
    [
        (np.array([0.0, np.nan], dtype=np.float32), NonFiniteError),
        (np.array([np.inf, 0.0], dtype=np.float32), NonFiniteError),
        (np.array([0.0, 0.51], dtype=np.float32), OutOfRangeError),
        (np.array([0.0, 0.1]), DtypeError),
        (np.array([0, 1], dtype=np.int32), DtypeError),
        (np.zeros(3, dtype=np.float32), ShapeError),
        (np.zeros((2, 1), dtype=np.float32), ShapeError),
    ],
)
def test_what_cannot_be_encoded_is_refused(update, error):
    """[M-4] A client MUST refuse an update that holds NaN or infinity, a coordinate outside its range, or has another
    shape or type, and MUST NOT adjust it.
    """
    with pytest.raises(error):
        FixedPointCodec([2], [0.5], 8).encode(update, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("weight", "counter"), [(0, 1), (-1, 1), (11, 1), (None, 1), (1.0, 1), (True, 1), (1, -1), (1, 8)]
)
def test_weights_and_counters_outside_their_range_are_refused(weight, counter):
    """[M-5] A client MUST refuse a weight that is not an integer from 1 to W and a counter that is not one from 0 to
    its maximum; weights and counters travel as masked coordinates only.
    """
    codec = FixedPointCodec([2], [0.5], 8, max_weight=10, max_counters=(7,))
    with pytest.raises(WeightError):
        codec.encode(np.zeros(2, dtype=np.float32), np.random.default_rng(0), weight=weight, counters=(counter,))


def test_errors_name_count_and_place_but_no_value():
    with pytest.raises(NonFiniteError) as caught:
        FixedPointCodec([4], [0.5], 8).encode(np.array([0, np.nan, 0, np.inf], np.float32), np.random.default_rng(0))
    assert (caught.value.count, caught.value.first) == (2, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ([], [], 8),
        ([2], [0.5, 0.5], 8),
        ([0], [0.5], 8),
        ([2], [0.0], 8),
        ([2], [np.inf], 8),
        ([2], [0.5], 1),
        ([2], [0.5], 23),
    ],
)
def test_codecs_that_cannot_be_are_refused(arguments):
    with pytest.raises(ParameterError):
        FixedPointCodec(*arguments)


def test_digest_distinguishes_codecs():
    variants = [
        FixedPointCodec([2, 3], [0.5, 0.1], 8),
        FixedPointCodec([3, 2], [0.5, 0.1], 8),
        FixedPointCodec([2, 3], [0.1, 0.5], 8),
        FixedPointCodec([2, 3], [0.5, 0.1], 9),
        FixedPointCodec([2, 3], [0.5, 0.1], 8, max_weight=5),
        FixedPointCodec([2, 3], [0.5, 0.1], 8, max_counters=(5,)),
    ]
    assert len({codec.digest for codec in variants}) == len(variants)


def test_noise_may_take_sums_below_zero():
    total = Aggregate(np.array([5, 1000, 1023, 1014], dtype=np.uint16), 10, 2, noise_tail=10)
    assert total.integers().tolist() == [5, 1000, -1, -10]


def test_an_encoded_vector_keeps_to_itself():
    import copy
    import pickle

    vector = FixedPointCodec([3], [0.5], 8).encode(np.full(3, 0.2, np.float32), np.random.default_rng(0))
    assert repr(vector) == "<EncodedVector of 3>"
    with pytest.raises(TypeError):
        pickle.dumps(vector)
    with pytest.raises(TypeError):
        copy.deepcopy(vector)


def test_an_encoded_vector_holds_to_its_bound():
    with pytest.raises(OutOfRangeError):
        EncodedVector(np.array([3, 8], dtype=np.uint32), 7)
    with pytest.raises(DtypeError):
        EncodedVector(np.array([3, 8]), 8)
    with pytest.raises(ShapeError):
        EncodedVector(np.zeros((2, 2), dtype=np.uint32), 8)


class Always:
    """A generator that always draws the same number."""

    def __init__(self, value):
        self.value = value

    def random(self, size, dtype=np.float64):
        return np.full(size, self.value, dtype=dtype)


def test_grid_points_are_never_rounded_up():
    largest = 1 - 2**-24
    codec = FixedPointCodec([3], [0.1], 22)
    limit = np.float32(0.1)
    encoded = codec.encode(np.array([-limit, 0, limit], dtype=np.float32), Always(largest))
    assert encoded.lanes(32).tolist() == [0, 2**21 - 1, 2**22 - 2]


def test_rounding_keeps_the_expectation_at_22_bits():
    """40,000 draws, standard error 0.0025 of a step; single precision alone would be off by up to 0.25."""
    codec = FixedPointCodec([40_000], [0.3], 22)
    for value in np.random.default_rng(3).uniform(-0.3, 0.3, 5).astype(np.float32):
        encoded = codec.encode(np.full(40_000, value), np.random.default_rng(4)).lanes(32)
        exact = (np.float64(value) / np.float64(np.float32(0.3)) + 1) * (2**21 - 1)
        assert abs(encoded.mean() - exact) < 6 * 0.0025


def test_a_saturated_update_is_always_within_its_range():
    for limit in (0.1, 0.3, 1e-3, 7.7):
        codec = FixedPointCodec([2], [limit], 22)
        clamped, count = codec.saturate(np.array([-10 * limit, 10 * limit], dtype=np.float32))
        assert count == 2
        assert codec.encode(clamped, np.random.default_rng(0)).lanes(32).tolist() == [0, 2**22 - 2]
