import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.compression import CompressionState, ErrorFeedback, parse_scheme
from protocols.compression.basis import BASIS_BITS, first_basis, next_basis
from protocols.compression.limbs import from_limbs, limb_count, to_limbs
from protocols.compression.ranges import next_range

VECTORS = Path(__file__).with_name("vectors.json")


@given(maximum=st.integers(1, 2**32 - 1), base=st.integers(2, 300), data=st.data())
def test_limbs_of_many_add_up_exactly(maximum, base, data):
    numbers = data.draw(st.lists(st.integers(0, maximum), min_size=1, max_size=8))
    count = limb_count(maximum, base)
    digits = np.array([to_limbs(number, base, count) for number in numbers])
    assert digits.max() < base
    assert from_limbs(digits.sum(axis=0).tolist(), base) == sum(numbers)


@pytest.mark.parametrize(("side", "rank"), [(16, 1), (24, 4), (512, 64), (100, 32)])
def test_bases_are_orthonormal(side, rank):
    rng = np.random.default_rng(0)
    sums = rng.integers(-60, 61, (side, rank))
    for basis in (first_basis(side, rank, b"a"), next_basis(sums, 60, b"a"), next_basis(0 * sums, 60, b"b")):
        scaled = basis * 2.0**-BASIS_BITS
        np.testing.assert_allclose(scaled.T @ scaled, np.eye(rank), atol=0.01)


def test_a_basis_spans_the_columns_of_the_sum_and_all_its_columns_matter():
    rng = np.random.default_rng(1)
    columns = rng.normal(size=(64, 8)) * np.array([500, 400, 300, 200, 100, 50, 20, 10])
    sums = np.rint(columns).astype(np.int64)
    basis = next_basis(sums, int(np.abs(sums).max()), b"c") * 2.0**-BASIS_BITS
    rest = sums - basis @ (basis.T @ sums)
    assert np.linalg.norm(rest) < 0.02 * np.linalg.norm(sums)
    strength = np.linalg.norm(basis.T @ sums, axis=1)
    assert strength.max() < 4 * strength.min()


def test_bases_do_not_depend_on_a_librarys_order_of_summation():
    """The only reduction, the Gram matrix, is one of integers below 2**53: reversing its order changes no bit."""
    rng = np.random.default_rng(2)
    sums = rng.integers(-4095, 4096, (96, 16))
    assert np.array_equal(next_basis(sums, 4095, b"d"), next_basis(sums.copy(order="F"), 4095, b"d"))
    assert int((np.abs(sums) * 64 + 1).max()) ** 2 * 65_536 < 2**53


def test_two_parties_that_see_the_same_sums_agree_on_every_bit():
    shapes, scheme = ((32, 24), (24,)), parse_scheme("ring:4,subspace:0.25")
    server, client = (CompressionState.start(shapes, scheme, 5) for _ in range(2))
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(6):
        codec = server.codec()
        assert codec.digest == client.codec().digest
        seen.add(codec.digest)
        public = rng.integers(0, 5 * codec.levels, codec.public_length, endpoint=True)
        server, client = server.advance(codec, public, 5), client.advance(client.codec(), public, 5)
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("clamped", "factor"),
    [(0, 0.5), (9, 0.5), (10, 0.8), (149, 0.8), (150, 1), (400, 1), (401, 1.2), (801, 1.4), (2001, 2)],
)
def test_ranges_follow_the_clamped_share(clamped, factor):
    assert next_range(0.25, clamped, 10_000) == 0.25 * factor


def test_ranges_stay_finite_whatever_happens():
    low = high = 1.0
    for _ in range(500):
        low, high = next_range(low, 0, 10), next_range(high, 10, 10)
    assert (low, high) == (2.0**-40, 2.0**40)


def test_known_answers():
    """The file has what another implementation must arrive at from the specification alone."""
    known = json.loads(VECTORS.read_text())
    state = CompressionState.start([tuple(s) for s in known["shapes"]], parse_scheme(known["scheme"]), known["clients"])
    for step in known["steps"]:
        codec = state.codec()
        assert codec.levels == known["levels"]
        assert codec.digest.hex() == step["encoding_digest"]
        assert list(codec.ranges) == step["ranges"]
        for part, digest in zip(codec.parts, step["basis_sha256"], strict=True):
            found = None if part.basis is None else hashlib.sha256(part.basis.astype("<i2").tobytes()).hexdigest()
            assert found == digest
        public = np.array(step["public"], dtype=np.int64)
        mean = codec.mean_of(public, step["survivors"])
        assert hashlib.sha256(mean.astype("<f8").tobytes()).hexdigest() == step["mean_sha256"]
        state = state.advance(codec, public, step["survivors"])


@given(
    rounds=st.lists(st.sampled_from(["delivered", "lost", "withdrawn"]), min_size=1, max_size=12),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_feedback_keeps_exactly_what_was_not_delivered(rounds, seed):
    """Updates are small integers, so that every sum in float32 is exact."""
    rng = np.random.default_rng(seed)
    feedback, owed, received = ErrorFeedback(20, 1.0), np.zeros(20), np.zeros(20)
    for ending in rounds:
        update = rng.integers(-50, 51, 20).astype(np.float32)
        offered = feedback.offer(update)
        on_its_way = np.where(rng.random(20) < 0.3, offered, 0.0).astype(np.float64)
        feedback.sent(on_its_way)
        getattr(feedback, ending)()
        if ending != "withdrawn":
            owed += update
        if ending == "delivered":
            received += on_its_way
        assert np.array_equal(feedback.memory, owed - received)


def test_feedback_is_private():
    feedback = ErrorFeedback(3, 1.0)
    feedback.memory = np.array([1.5, 2.5, 3.5], np.float32)
    assert "1.5" not in repr(feedback)
    with pytest.raises(TypeError):
        feedback.__reduce_ex__(2)
    feedback.clear()
    assert not feedback.memory.any()
    with pytest.raises(ValueError, match="shape"):
        feedback.memory = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="offered"):
        ErrorFeedback(3, 1.0).sent(np.zeros(3))
