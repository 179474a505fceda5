"""Noisy sums through the protocol: the same integers under masks and in clear, losses, vectors that forgot noise."""

from collections.abc import Mapping

import numpy as np
import pytest

from protocols import TooFewSurvivorsError
from protocols.client.session import RoundContext
from protocols.errors import NoiseError, RefusedError
from protocols.stages import Stage
from protocols.vectors import EncodedVector, NoisyVector
from tests.protocols.noise.checks import check_deviation
from tests.protocols.noise.federation import NoisyFederation, noisy_federation

DIMENSION = 3000
CLIENTS = 6
MIN_SURVIVORS = 4


@pytest.fixture
def federation() -> NoisyFederation:
    return noisy_federation(CLIENTS, MIN_SURVIVORS, dimension=DIMENSION)


DROPS: list[Mapping[int, str]] = [{}, {1: "MaskedInputCollection"}, {0: "ShareKeys", 5: "Unmasking"}]


@pytest.mark.parametrize("drops", DROPS)
def test_the_same_integers_with_and_without_masks(federation, drops):
    """Given the same noise, the opened totals are equal bit for bit."""
    lost = {federation.names[place]: stage for place, stage in drops.items()}
    masked = federation.run(drops=lost)
    absent = {name: Stage.PLAIN_INPUT_COLLECTION.value for name, stage in lost.items() if stage != "Unmasking"}
    plain = federation.run_plain(drops=absent)
    assert masked.survivors == plain.survivors
    assert np.array_equal(masked.total.integers(), plain.total.integers())
    survivors = len(masked.survivors)
    true = sum(federation.vector(name) for name in masked.survivors)
    residual = federation.codec.decode_sum(masked.total, survivors) - true
    check_deviation(residual, federation.codec.plan.deviation(survivors), 0.09)


def test_a_noisy_sum_is_used_modulo_the_ring(federation):
    """Noise takes values below zero; the ring is as wide as the plan says and no wider."""
    assert federation.parameters().ring_bits == federation.codec.plan.ring_bits
    assert federation.run().total.integers().min() < CLIENTS * federation.codec.plan.limit


def test_below_the_fewest_survivors_nothing_is_opened(federation):
    lost = dict.fromkeys(federation.names[:3], "MaskedInputCollection")
    with pytest.raises(TooFewSurvivorsError):
        federation.run(drops=lost)


def test_a_vector_that_forgot_its_noise_is_not_masked(federation):
    """[M-38] A client MUST NOT mask a vector without noise where noise_tail is not 0, nor one with noise where it is
    0.
    """
    codec, name = federation.codec, federation.names[0]
    bare = EncodedVector(np.zeros(DIMENSION, np.uint32), codec.max_coordinate)
    noisy = NoisyVector(np.zeros(DIMENSION, np.uint32), codec.max_coordinate, np.zeros(DIMENSION, np.int64))
    for number, vector, tail, needed in ((2, bare, codec.plan.noise_tail, True), (3, noisy, 0, False)):
        federation.machines[name] = federation.machine(name, contribute=lambda _, vector=vector: vector)
        server = federation.server(number=number, noise_tail=tail)
        request = federation.run_until(Stage.MASKED_INPUT_COLLECTION, server=server)[name]
        with pytest.raises(NoiseError) as refusal:
            federation.machines[name].handle(Stage.MASKED_INPUT_COLLECTION.value, request)
        assert refusal.value.needed is needed


def test_a_vector_that_forgot_its_noise_is_not_sent_in_clear_either(federation):
    bare = EncodedVector(np.zeros(DIMENSION, np.uint32), federation.codec.max_coordinate)
    federation.contribute = lambda context: bare
    with pytest.raises(TooFewSurvivorsError):
        federation.run_plain()


def test_a_refusal_to_mask_without_noise_reaches_the_server_by_its_class_only(federation):
    name = federation.names[0]
    bare = EncodedVector(np.zeros(DIMENSION, np.uint32), federation.codec.max_coordinate)
    federation.machines[name] = federation.machine(name, contribute=lambda _: bare)
    result = federation.run()
    assert name not in result.survivors
    (rejection,) = result.rejections
    assert isinstance(rejection.error, RefusedError)


def test_a_noisy_vector_never_prints_or_pickles():
    import pickle

    vector = NoisyVector(np.full(3, 7, np.uint32), 7, np.full(3, -5, np.int64))
    assert repr(vector) == "<NoisyVector of 3>"
    assert vector.lanes(8).tolist() == [2, 2, 2]
    with pytest.raises(TypeError):
        pickle.dumps(vector)


def test_every_vector_of_the_codec_has_noise(federation):
    """[N-4] A client MUST add its noise to its encoded vector before it is masked, and MUST NOT send a vector
    without.
    """
    context = RoundContext(1, b"", federation.parameters(), federation.names[0])
    assert isinstance(federation.contribute(context), NoisyVector)
    result = federation.run()
    assert len(result.survivors) == CLIENTS
