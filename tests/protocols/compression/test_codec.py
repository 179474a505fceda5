import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.compression import Bases, CompressedCodec, CompressionState, Part, parse_scheme
from protocols.compression.basis import BASIS_BITS, LIFT_BITS, first_basis
from protocols.compression.state import levels_for
from protocols.errors import DtypeError, NonFiniteError, ParameterError, ShapeError, WeightError
from protocols.vectors import Aggregate

SHAPES = ((24, 16), (24,), (16, 24), (3,))
DIMENSION = sum(int(np.prod(shape)) for shape in SHAPES)


def state(text, clients=4, **more):
    return CompressionState.start(SHAPES, parse_scheme(text), clients, **more)


def total_of(vectors, ring_bits=40):
    lanes = sum(vector.lanes(ring_bits).astype(np.uint64) for vector in vectors)
    return Aggregate(lanes, ring_bits, len(vectors))


def opened_step(state, rng, clients):
    """A state after a sum of random numbers."""
    codec = state.codec()
    public = rng.integers(0, clients * codec.levels, codec.public_length, endpoint=True)
    public[codec.num_values :] = 0
    return state.advance(codec, public, clients, codec.lifts(public, clients))


def expected(codec, update, lifts):
    """What the sum says of an update without rounding and clamping, and how far an error of 1 in each coefficient

    can move each coordinate, by group: the slow obvious way.
    """
    out, spread, start = [], [], 0
    for part, lifted in zip(codec.parts, lifts, strict=True):
        tensor = update[start : start + part.size].astype(np.float64)
        start += part.size
        if part.bases is None:
            spread.append(np.ones((1, part.size)))
        else:
            left, right = part.bases.left * 2.0**-BASIS_BITS, part.bases.right * 2.0**-BASIS_BITS
            lifted, matrix = lifted * 2.0**-LIFT_BITS, tensor.reshape(part.shape)
            seen = matrix @ right
            rest = left.T @ matrix - left.T @ seen @ right.T
            tensor = (seen @ right.T + lifted @ rest).reshape(-1)
            by_right = np.broadcast_to(np.abs(right).sum(axis=1), part.shape).reshape(-1)
            by_left = np.broadcast_to(np.abs(lifted).sum(axis=1)[:, None], part.shape).reshape(-1)
            spread.append(np.stack([by_right, by_left]))
        out.append(tensor)
    return out, spread


@given(
    bits=st.integers(2, 22),
    subspace=st.sampled_from(["", ",subspace:0.5", ",subspace:0.25", ",subspace:0.1"]),
    clients=st.integers(1, 5),
    steps=st.integers(0, 2),
    nearest=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=80, deadline=None)
def test_the_sum_of_encodings_decodes_to_the_sum_within_the_stated_bound(bits, subspace, clients, steps, nearest, seed):
    rng = np.random.default_rng(seed)
    current = state(f"ring:{bits}{subspace}", clients)
    for _ in range(steps):
        current = opened_step(current, rng, clients)
    codec = current.codec()
    # small enough that nothing is clamped: |M B| and |A^T M| are at most |M|
    updates = [(0.05 * min(codec.ranges) * rng.uniform(-1, 1, DIMENSION)).astype(np.float32) for _ in range(clients)]
    quantised = [codec.quantise(update, None if nearest else rng) for update in updates]
    assert all(sum(q.clamped) == 0 for q in quantised)
    total = total_of([codec.encode(q) for q in quantised])
    decoded = codec.decode_sum(total, clients)
    lifts = codec.lifts(total.integers(), clients)
    exact, spread = expected(codec, sum(update.astype(np.float64) for update in updates), lifts)
    start = 0
    for part, tensor, reach in zip(codec.parts, exact, spread, strict=True):
        steps_of = [
            clients * (1 if nearest else 2) * codec.ranges[part.group + i] / codec.levels for i in range(len(reach))
        ]
        bound = sum(step * by for step, by in zip(steps_of, reach, strict=True))
        error = np.abs(decoded[start : start + part.size] - tensor)
        assert (error <= bound * 1.001 + 1e-6).all()
        start += part.size
    given = [codec.contribution(q) for q in quantised]
    alone = sum(direct.astype(np.float64) + codec.lifted(rest, lifts) for direct, rest in given)
    np.testing.assert_allclose(decoded, alone, atol=1e-5 * max(codec.ranges) * clients * DIMENSION)
    np.testing.assert_allclose(codec.decode_mean(total, clients), decoded / clients, atol=1e-6 * np.abs(decoded).max())


@pytest.mark.parametrize("text", ["ring:2", "ring:3,subspace:0.25", "ring:4,subspace:0.5", "ring:12"])
def test_rounding_is_unbiased(text):
    """Mean of 4,000 encodings; off by more than 6.5 standard errors anywhere in 800 values: below 1e-7."""
    codec, rng = state(text).codec(), np.random.default_rng(1)
    update = (0.3 * min(codec.ranges) * rng.uniform(-1, 1, DIMENSION)).astype(np.float32)
    draws = [codec.quantise(update, rng) for _ in range(4000)]
    assert sum(sum(q.clamped) for q in draws) == 0
    levels = np.mean([q.levels for q in draws], axis=0)
    sent = np.concatenate(
        [
            projected * codec.levels / 2 / codec.ranges[group] + codec.levels / 2
            for group, _, _, projected in codec._sent_of(update)
        ]
    )
    assert np.abs(levels - sent).max() < 6.5 * 0.5 / np.sqrt(4000)


def test_a_weighted_sum_is_a_sum_of_scaled_updates_and_a_counter():
    codec = state("ring:12", 3, max_counters=(1000,)).codec()
    rng = np.random.default_rng(2)
    weights = (1, 250, 1000)
    updates = [(0.5 * codec.ranges[0] * rng.uniform(-1, 1, DIMENSION)).astype(np.float32) for _ in weights]
    sent = [codec.quantise(u * np.float32(w / 1000), rng) for u, w in zip(updates, weights, strict=True)]
    total = total_of([codec.encode(q, (w,)) for q, w in zip(sent, weights, strict=True)])
    (weight,) = codec.decode_counters(total)
    assert weight == 1251
    mean = codec.decode_sum(total, 3) * 1000 / weight
    exact = sum(w * u.astype(np.float64) for u, w in zip(updates, weights, strict=True)) / 1251
    assert np.abs(mean - exact).max() <= 3 * 2 * codec.ranges[0] / codec.levels * 1000 / 1251


def test_clamped_coordinates_are_counted_by_group_and_stay_under_the_masks():
    codec, rng = state("ring:3,subspace:0.25", 2, max_counters=(16383,)).codec(), np.random.default_rng(3)
    update = np.zeros(DIMENSION, np.float32)
    update[-3:] = 10.0  # the last vector: all of it beyond the range
    quantised = codec.quantise(update, rng)
    assert quantised.clamped == (0, 0, 0, 0, 3)
    encoded = [codec.encode(quantised, (16383,)), codec.encode(quantised, (5,))]
    assert all(int(vector.lanes(16).max()) <= codec.levels for vector in encoded)
    total = total_of(encoded)
    assert codec.decode_counters(total) == (16388,)
    assert codec.clamped_of(total.integers()[: codec.public_length]) == (0, 0, 0, 0, 6)


@pytest.mark.parametrize("clients", [3, 4, 10, 100])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_levels_fill_the_ring_and_never_wrap(bits, clients):
    levels = levels_for(bits, clients)
    ring = (clients * ((1 << bits) - 2)).bit_length()
    assert levels % 2 == 0
    assert levels >= (1 << bits) - 2
    assert clients * levels < 1 << ring <= clients * (levels + 2)
    tail = 1000
    noisy = levels_for(bits, clients, tail)
    assert clients * noisy + 2 * tail < 1 << (clients * ((1 << bits) - 2) + 2 * tail).bit_length()


def test_the_digest_differs_for_any_difference_of_the_description():
    left, right = first_basis(6, 2, b"x"), first_basis(8, 2, b"y")
    other = right.copy()
    other[0, 0] += 1

    both = Bases(left, right)

    def made_of(shape=(6, 8), group=0, bases=both, rest=(4, 2), ranges=(1.0, 2.0, 3.0), levels=6, most=9):
        parts = [Part(shape, group, bases), Part((rest[0], 1), rest[1], None)]
        return CompressedCodec(parts, ranges, levels, max_counters=(most,))

    made = [
        made_of(),
        made_of(bases=Bases(left, other)),
        made_of(bases=Bases(first_basis(6, 2, b"z"), right)),
        made_of(shape=(8, 6), bases=Bases(right, left)),
        made_of(group=1),
        made_of(rest=(4, 0)),
        made_of(rest=(5, 2)),
        made_of(ranges=(1.0, 2.0, 4.0)),
        made_of(levels=8),
        made_of(most=8),
        made_of(bases=None),
    ]
    assert len({codec.digest for codec in made}) == len(made)
    assert made[0].digest == made_of(ranges=[1, 2, 3]).digest


@pytest.mark.parametrize("text", ["ring:4,subspace:0.25", "ring:16,subspace:0.25", "ring:4"])
@pytest.mark.parametrize("nearest", [True, False])
def test_finite_updates_of_any_size_are_clamped_and_counted(text, nearest):
    """Partial sums of a projection may leave float32 on both sides: infinity minus infinity is no number."""
    codec, rng = state(text).codec(), np.random.default_rng(5)
    spike = np.zeros(DIMENSION, np.float32)
    spike[0], spike[1:11] = 3e38, -3e38
    signs = rng.choice(np.array([-1, 1], np.float32), DIMENSION)
    for update in (
        spike,
        signs * np.float32(3e38),
        signs * np.float32(2.0**96),
        np.full(DIMENSION, 3.4e38, np.float32),
    ):
        quantised = codec.quantise(update, None if nearest else rng)
        assert quantised.levels.max() <= codec.levels
        assert sum(quantised.clamped) > 0
        codec.encode(quantised)
    small = signs * np.float32(1e-3)
    for part, start in ((part, sum(p.size for p in codec.parts[:i])) for i, part in enumerate(codec.parts)):
        tensor = small[start : start + part.size]
        huge = part.project(tensor * np.float32(2.0**110))
        assert all(np.array_equal(a * np.float32(2.0**110), b) for a, b in zip(part.project(tensor), huge, strict=True))


def test_inputs_that_are_no_update_are_refused():
    codec, rng = state("ring:4").codec(), np.random.default_rng(0)
    good = np.zeros(DIMENSION, np.float32)
    with pytest.raises(ShapeError):
        codec.quantise(good[1:], rng)
    with pytest.raises(DtypeError):
        codec.quantise(good.astype(np.float64), rng)
    for bad in (np.nan, np.inf):
        broken = good.copy()
        broken[5] = bad
        with pytest.raises(NonFiniteError):
            codec.quantise(broken, rng)
    counted = state("ring:4", max_counters=(7,)).codec()
    for counters in ((), (8,), (-1,), (1.0,)):
        with pytest.raises(WeightError):
            counted.encode(counted.quantise(good, rng), counters)
    with pytest.raises(ShapeError):
        codec.encode(state("ring:4,subspace:0.25").codec().quantise(good, rng))
    with pytest.raises(ShapeError):
        codec.decode_sum(Aggregate(np.zeros(3, np.uint16), 16, 3), 3)


@pytest.mark.parametrize(
    ("text", "bits", "fraction"),
    [("ring:2", 2, 1.0), ("ring:22,subspace:0.125", 22, 0.125), ("ring:3,subspace:.5", 3, 0.5)],
)
def test_schemes_read_and_print_the_same(text, bits, fraction):
    scheme = parse_scheme(text)
    assert (scheme.value_bits, scheme.fraction) == (bits, fraction)
    assert parse_scheme(str(scheme)) == scheme


@pytest.mark.parametrize(
    "text", ["", "ring", "ring:1", "ring:23", "ring:4,subspace:0", "ring:4,subspace:2", "zip", "ring:4,"]
)
def test_what_is_no_scheme_is_refused(text):
    with pytest.raises(ParameterError):
        parse_scheme(text)
