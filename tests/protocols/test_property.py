"""For random cohorts, graphs, thresholds, rings, weights and losses: the opened sum is the survivors' plain sum."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols import FixedPointCodec, Stage, ThreatModel, TooFewSurvivorsError
from protocols.parameters import default_corrupt, least_threshold
from protocols.simulator import SimulatedFederation

ORDER = [
    Stage.ADVERTISE_KEYS,
    Stage.REVEAL_NONCES,
    Stage.SHARE_KEYS,
    Stage.MASKED_INPUT_COLLECTION,
    Stage.CONSISTENCY_CHECK,
    Stage.UNMASKING,
]
PROFILE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def codecs(draw):
    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=3))
    ranges = draw(st.lists(st.floats(1e-3, 10), min_size=len(lengths), max_size=len(lengths)))
    value_bits = draw(st.integers(2, 22))
    max_weight = draw(st.none() | st.integers(1, 2**32 - 1))
    counters = draw(st.lists(st.integers(1, 2**32 - 1), max_size=2))
    return FixedPointCodec(lengths, ranges, value_bits, max_weight=max_weight, max_counters=counters)


@st.composite
def losses(draw, names):
    chosen = draw(st.lists(st.sampled_from(names), unique=True, max_size=len(names) - 1))
    return {name: draw(st.sampled_from(ORDER)).value for name in chosen}


def weights_of(draw, codec, names):
    if codec.max_weight is None:
        return None
    return {name: draw(st.integers(1, codec.max_weight)) for name in names}


def left_at(federation, drops, stage):
    rank = ORDER.index(stage)
    return [name for name in federation.names if name not in drops or ORDER.index(Stage(drops[name])) > rank]


def check(federation, result, drops):
    survivors = left_at(federation, drops, Stage.MASKED_INPUT_COLLECTION)
    assert list(result.survivors) == survivors
    assert np.array_equal(result.total.integers(), federation.expected(survivors))
    assert set(result.dropouts) == set(drops)
    assert not result.rejections
    plain = federation.run_plain(drops)
    assert plain.survivors == result.survivors
    assert np.array_equal(plain.total.lanes, result.total.lanes)
    if federation.weights is not None:
        assert federation.codec.decode_weight(result.total) == sum(federation.weights[name] for name in survivors)


@given(data=st.data(), clients=st.integers(3, 12), codec=codecs(), threat_model=st.sampled_from(list(ThreatModel)))
@PROFILE
def test_complete_graphs_open_exactly_what_the_losses_leave(data, clients, codec, threat_model):
    corrupt = data.draw(st.integers(0, min(default_corrupt(clients), clients - 3)))
    least = least_threshold(clients, corrupt, threat_model)
    threshold = data.draw(st.integers(least, clients))
    names = [f"site-{i:03d}" for i in range(clients)]
    federation = SimulatedFederation(
        clients,
        codec,
        threat_model,
        weights=weights_of(data.draw, codec, names),
        choices={"corrupt": corrupt, "threshold": threshold},
    )
    drops = data.draw(losses(names))
    parameters = federation.parameters()
    needed = {
        stage: threshold if stage in (Stage.CONSISTENCY_CHECK, Stage.UNMASKING) else parameters.min_survivors
        for stage in parameters.stages
    }
    fails = next((stage for stage in parameters.stages if len(left_at(federation, drops, stage)) < needed[stage]), None)
    if fails is None:
        check(federation, federation.run(drops=drops), drops)
        return
    with pytest.raises(TooFewSurvivorsError) as caught:
        federation.run(drops=drops)
    assert caught.value.stage == fails.value


@given(data=st.data(), clients=st.integers(8, 20), threat_model=st.sampled_from(list(ThreatModel)))
@PROFILE
def test_rings_open_exactly_what_the_losses_leave_or_nothing(data, clients, threat_model):
    neighbours = 2 * data.draw(st.integers(2, (clients - 2) // 2))
    threshold = data.draw(st.integers(max(3, neighbours // 2 + 1), neighbours))
    codec = data.draw(codecs())
    names = [f"site-{i:03d}" for i in range(clients)]
    federation = SimulatedFederation(
        clients,
        codec,
        threat_model,
        weights=weights_of(data.draw, codec, names),
        choices={"corrupt": 0, "neighbours": neighbours, "threshold": threshold},
    )
    drops = data.draw(losses(names))
    try:
        result = federation.run(drops=drops)
    except TooFewSurvivorsError:
        # k - t losses leave every client t holders, and min_survivors is 3.
        assert len(drops) > neighbours - threshold or clients - len(drops) < 3
        return
    check(federation, result, drops)


@pytest.mark.parametrize("ring_bits_of", [(2, 12), (4, 12), (13, 8), (22, 8), (22, 3)])
def test_all_inputs_at_the_bound_do_not_wrap(ring_bits_of):
    value_bits, clients = ring_bits_of
    codec = FixedPointCodec([70], [1.0], value_bits)
    federation = SimulatedFederation(clients, codec)
    top = np.ones(70, dtype=np.float32)
    federation.update = lambda name, number=1: top
    result = federation.run()
    assert result.total.integers().tolist() == [clients * (2**value_bits - 2)] * 70
