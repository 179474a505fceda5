import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.compression import CompressionState, ErrorFeedback, Step, parse_scheme
from protocols.compression.basis import (
    BASIS_BITS,
    LIFT_BITS,
    bases_of,
    first_basis,
    is_orthonormal,
    lifts_of,
    seen_from_both_sides,
)
from protocols.compression.limbs import from_limbs, limb_count, to_limbs
from protocols.compression.ranges import next_range
from protocols.compression.replica import Replica

VECTORS = Path(__file__).with_name("vectors.json")


@given(maximum=st.integers(1, 2**32 - 1), base=st.integers(2, 300), data=st.data())
def test_limbs_of_many_add_up_exactly(maximum, base, data):
    numbers = data.draw(st.lists(st.integers(0, maximum), min_size=1, max_size=8))
    count = limb_count(maximum, base)
    digits = np.array([to_limbs(number, base, count) for number in numbers])
    assert digits.max() < base
    assert from_limbs(digits.sum(axis=0).tolist(), base) == sum(numbers)


@pytest.mark.parametrize(("side", "rank"), [(16, 1), (24, 4), (512, 32), (100, 32)])
def test_bases_are_orthonormal(side, rank):
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(side, rank)) * 1e-7
    for basis in (first_basis(side, rank, b"a"), *bases_of([columns, 0 * columns], [b"a", b"b"])):
        scaled = basis * 2.0**-BASIS_BITS
        np.testing.assert_allclose(scaled.T @ scaled, np.eye(rank), atol=0.01)
        assert is_orthonormal(basis)
        assert not is_orthonormal((basis * 1.05).astype(np.int16))


def test_a_basis_spans_the_columns_of_the_sum_and_all_its_columns_matter():
    rng = np.random.default_rng(1)
    columns = rng.normal(size=(64, 8)) * np.array([500, 400, 300, 200, 100, 50, 20, 10])
    basis = bases_of([columns], [b"c"])[0] * 2.0**-BASIS_BITS
    rest = columns - basis @ (basis.T @ columns)
    assert np.linalg.norm(rest) < 0.02 * np.linalg.norm(columns)
    strength = np.linalg.norm(basis.T @ columns, axis=1)
    assert strength.max() < 4 * strength.min()


def seen(rng, rank=8, rows=40, columns=56, scale=30):
    """Integer sums of both kinds of a matrix of rank 3 with noise, and the bases."""
    matrix = 50 * rng.normal(size=(rows, 3)) @ rng.normal(size=(3, columns)) + rng.normal(size=(rows, columns))
    left, right = first_basis(rows, rank, b"l"), first_basis(columns, rank, b"r")
    a, b = left * 2.0**-BASIS_BITS, right * 2.0**-BASIS_BITS
    y = np.rint(scale * matrix @ b).astype(np.int64)
    w = np.rint(scale * (a.T @ matrix - a.T @ matrix @ b @ b.T)).astype(np.int64)
    return matrix, y, w, left, right


@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.01, 1.0, 30.0, 3e5]))
@settings(max_examples=30, deadline=None)
def test_a_lift_is_the_stated_estimate(seed, scale):
    """Against the formula in floating point: the same map within the rounding of its entries and of what it is from."""
    _, y, _, left, _ = seen(np.random.default_rng(seed), scale=scale)
    bound = int(np.abs(y).max())
    found = lifts_of([y], bound, [left])[0] * 2.0**-LIFT_BITS
    a = left * 2.0**-BASIS_BITS
    kept = (y >> max(0, bound.bit_length() - 10)).astype(np.float64)
    wide = kept @ kept.T + ((kept**2).sum() + len(kept)) / (4 * len(kept)) * np.eye(len(kept))
    exact = wide @ a @ np.linalg.inv(a.T @ wide @ a)
    np.testing.assert_allclose(found, exact, atol=2e-3 * max(1, np.abs(exact).max()))
    np.testing.assert_allclose(a.T @ found, np.eye(a.shape[1]), atol=0.02 * max(1, np.abs(exact).max()))


def test_random_bases_find_a_matrix_of_low_rank_in_one_sum():
    matrix, y, w, left, right = seen(np.random.default_rng(4))
    decoded = y @ (right * 2.0**-BASIS_BITS).T + lifts_of([y], int(np.abs(y).max()), [left])[0] * 2.0**-LIFT_BITS @ w
    projected = y @ (right * 2.0**-BASIS_BITS).T + left * 2.0**-BASIS_BITS @ w
    energy = np.square(matrix).sum()
    assert np.square(matrix - decoded / 30).sum() < 0.2 * energy
    assert np.square(matrix - projected / 30).sum() > 0.6 * energy


def test_the_next_bases_see_the_decoded_matrix_from_both_sides():
    _, y, w, left, right = seen(np.random.default_rng(5), scale=1)
    bound = int(np.abs(y).max())
    a, b = left * 2.0**-BASIS_BITS, right * 2.0**-BASIS_BITS
    to_right, to_left = seen_from_both_sides(y, w, 0.5, bound, right, left)
    shift = max(0, bound.bit_length() - 10)
    decoded = 0.5 * (y >> shift) @ b.T + lifts_of([y], bound, [left])[0] * 2.0**-LIFT_BITS @ (w >> shift)
    np.testing.assert_allclose(to_right, decoded.T @ a, atol=0.02 * np.abs(to_right).max())
    assert np.array_equal(to_left, y >> shift)


def test_bases_and_lifts_do_not_depend_on_a_librarys_order_of_summation():
    """All reductions are of integers below 2**53: another memory order, and so another order of sums, no other bit."""
    _, y, w, left, right = seen(np.random.default_rng(2))
    bound = int(np.abs(y).max())

    def turned(array):
        return array.copy(order="F")

    assert np.array_equal(lifts_of([y], bound, [left])[0], lifts_of([turned(y)], bound, [turned(left)])[0])
    once = seen_from_both_sides(y, w, 0.37, bound, right, left)
    again = seen_from_both_sides(turned(y), turned(w), 0.37, bound, turned(right), turned(left))
    for first, second in zip(once, again, strict=True):
        assert np.array_equal(first, second)
        assert np.array_equal(*bases_of([first, turned(second)], [b"d", b"d"]))
    assert ((1 << 17) + 1) ** 2 * 65_536 < 2**53  # entries of a basis before it is orthonormal, sides
    assert (1 << 10) * (1 << 11) * 65_536 < 2**53  # sums, basis, sides
    assert (1 << 19) ** 2 * 16_384 < 2**53  # correlations, ranks


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
        server = server.advance(codec, public, 5, codec.lifts(public, 5))
        client = client.advance(client.codec(), public, 5, client.codec().lifts(public, 5))
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
        for part, digests in zip(codec.parts, step["bases_sha256"], strict=True):
            sides = () if part.bases is None else (part.bases.left, part.bases.right)
            assert [hashlib.sha256(side.astype("<i2").tobytes()).hexdigest() for side in sides] == digests
        public = np.array(step["public"], dtype=np.int64)
        mean, lifts = codec.mean_and_lifts(public, step["survivors"])
        assert hashlib.sha256(mean.astype("<f4").tobytes()).hexdigest() == step["mean_sha256"]
        flat = b"".join(lifted.astype("<i4").tobytes() for lifted in lifts if lifted is not None)
        assert hashlib.sha256(flat).hexdigest() == step["lifts_sha256"]
        state = state.advance(codec, public, step["survivors"], lifts)


@pytest.mark.parametrize(("scheme", "gain"), [("ring:4,subspace:0.25", 1.05), ("ring:4", 1.0)])
def test_a_projected_sum_moves_the_model_by_more_than_its_mean(scheme, gain):
    state = CompressionState.start(((32, 24), (24,)), parse_scheme(scheme), 5)
    codec, rng = state.codec(), np.random.default_rng(6)
    public = rng.integers(0, 5 * codec.levels, codec.public_length, endpoint=True)
    start = rng.normal(size=codec.dimension).astype(np.float32)
    replica = Replica(start, state)
    moved = replica.apply(Step(5, public))
    assert np.array_equal(moved, codec.mean_of(public, 5) * np.float32(gain))
    assert np.array_equal(replica.vector, start + moved)
    assert replica.vector.dtype == np.float32


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
        direct, rest = (np.where(rng.random(20) < 0.3, offered, 0).astype(np.float32) for _ in range(2))
        feedback.sent(direct, rest)
        if ending == "delivered":
            feedback.delivered(lambda sent: 2 * sent)
            received += direct + 2 * rest
        else:
            getattr(feedback, ending)()
        if ending != "withdrawn":
            owed += update
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
        ErrorFeedback(3, 1.0).sent(np.zeros(3, np.float32), np.zeros(2, np.float32))
