import numpy as np
import pytest

from protocols import FixedPointCodec, FrameKind, Stage, ThreatModel, TooFewSurvivorsError

ALL_STAGES = ["AdvertiseKeys", "ShareKeys", "MaskedInputCollection", "ConsistencyCheck", "Unmasking"]
LATE = {"ConsistencyCheck", "Unmasking"}


@pytest.mark.parametrize("threat_model", ThreatModel)
@pytest.mark.parametrize("clients", [3, 4, 5, 10])
def test_total_is_the_plain_sum(cohort, clients, threat_model):
    federation = cohort(clients, threat_model=threat_model)
    result = federation.run()
    assert result.survivors == tuple(federation.names)
    assert np.array_equal(result.total.integers(), federation.expected(federation.names))
    assert not result.dropouts
    assert not result.rejections


@pytest.mark.parametrize("threat_model", ThreatModel)
@pytest.mark.parametrize("stage", ALL_STAGES)
@pytest.mark.parametrize("clients", [4, 5, 10])
def test_one_dropout_at_any_stage_leaves_the_sum_of_the_survivors(cohort, clients, stage, threat_model):
    federation = cohort(clients, threat_model=threat_model)
    lost = federation.names[1]
    result = federation.run(drops={lost: stage})
    survivors = [name for name in federation.names if stage in LATE or name != lost]
    assert result.survivors == tuple(survivors)
    assert list(result.dropouts) == [lost]
    assert np.array_equal(result.total.integers(), federation.expected(survivors))


@pytest.mark.parametrize("stage", ALL_STAGES)
def test_without_secure_aggregation_total_and_survivors_are_the_same(cohort, stage):
    federation = cohort(5, codec=FixedPointCodec([40, 60], [0.5, 0.01], 12))
    drops = {federation.names[3]: stage}
    secure, plain = federation.run(drops=drops), federation.run_plain(drops)
    assert secure.survivors == plain.survivors
    assert np.array_equal(secure.total.lanes, plain.total.lanes)
    decoded = federation.codec.decode_sum(secure.total, len(secure.survivors))
    assert decoded.tobytes() == federation.codec.decode_sum(plain.total, len(plain.survivors)).tobytes()


def test_rounds_follow_each_other_with_the_same_clients(cohort):
    federation = cohort(4)
    for number in (1, 2, 5):
        result = federation.run(number=number)
        assert np.array_equal(result.total.integers(), federation.expected(federation.names, number))


def test_too_many_dropouts_end_the_round_with_the_stage_and_the_numbers(cohort):
    federation = cohort(5)
    with pytest.raises(TooFewSurvivorsError) as caught:
        federation.run(drops=dict.fromkeys(federation.names[:2], "ShareKeys"))
    assert (caught.value.stage, caught.value.survivors, caught.value.required) == ("ShareKeys", 3, 4)


def test_every_byte_of_every_frame_is_recorded_once(cohort):
    federation = cohort(4)
    seen = []
    machines = federation.machines

    class Listening:
        def __init__(self, machine):
            self.machine = machine

        def answer(self, stage, data):
            reply = self.machine.answer(stage, data)
            seen.append((self.machine.name, stage, len(data), len(reply)))
            return reply

    federation.machines = {name: Listening(machine) for name, machine in machines.items()}
    result = federation.run()
    for name, stage, down, up in seen:
        for direction, size in (("down", down), ("up", up)):
            records = [f for f in result.frames if (f.client, f.stage, f.direction) == (name, stage, direction)]
            assert sum(record.bytes for record in records) == size
            assert len({record.kind for record in records}) == len(records)
    assert {record.kind for record in result.frames} == set(FrameKind)
    assert {record.stage for record in result.frames} == {stage.value for stage in federation.parameters().stages}


def test_weighted_mean_and_counters(cohort):
    codec = FixedPointCodec([30], [0.5], 20, max_weight=900, max_counters=(5,))
    names = [f"site-{i:03d}" for i in range(4)]
    weights = dict(zip(names, (1, 900, 161, 870), strict=True))
    federation = cohort(4, codec=codec, weights=weights)
    result = federation.run()
    assert codec.decode_weight(result.total) == sum(weights.values())
    assert codec.decode_counters(result.total) == (4,)
    expected = sum(weights[name] * federation.update(name).astype(np.float64) for name in names)
    step = 2 * 0.5 / (2**20 - 2) * 900
    assert np.abs(codec.decode_sum(result.total, 4) - expected).max() < 4 * step
    mean = codec.decode_mean(result.total, 4)
    assert np.abs(mean - expected / sum(weights.values())).max() < 4 * step / sum(weights.values())


def test_a_k_regular_graph_reveals_nonces_and_survives_dropouts(cohort):
    federation = cohort(30, length=64, choices={"neighbours": 12, "threshold": 8, "corrupt": 1})
    names = federation.names
    assert Stage.REVEAL_NONCES in federation.parameters().stages
    result = federation.run(
        drops={names[2]: "AdvertiseKeys", names[9]: "RevealNonces", names[20]: "MaskedInputCollection"}
    )
    survivors = [name for name in names if name not in (names[2], names[9], names[20])]
    assert result.survivors == tuple(survivors)
    assert np.array_equal(result.total.integers(), federation.expected(survivors))
