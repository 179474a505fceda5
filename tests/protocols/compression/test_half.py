import struct
import zlib

import numpy as np
import pytest

from protocols import IdentityKey, InProcessTransport, Roster, RoundParameters, TooFewSurvivorsError, system_entropy
from protocols.compression.half import HalfClient, HalfCodec, run_half_round
from protocols.errors import (
    AuthenticationError,
    DecodeError,
    DtypeError,
    NonFiniteError,
    SessionMismatchError,
    ShapeError,
    StageOrderError,
)
from protocols.result import Direction
from tests.protocols.test_transport import Repeating

NAMES = ("a", "b", "c", "d")


def federation(updates):
    identities = {name: IdentityKey.generate(system_entropy) for name in NAMES}
    roster, codec = Roster.of(identities), HalfCodec(len(updates["a"]))
    parameters = RoundParameters.choose(round=1, roster=roster, codec=codec, config_digest=bytes(32))

    def contribute(context):
        return codec.encode(updates[context.client], 7)

    return codec, parameters, roster, {name: HalfClient(name, pytest.fail, codec, contribute) for name in NAMES}


@pytest.mark.parametrize("lost", [(), ("b",), ("a", "d")])
def test_the_sum_is_that_of_the_float16_updates_exactly(lost):
    rng = np.random.default_rng(0)
    updates = {name: (rng.normal(size=300) * 10.0 ** rng.integers(-7, 4, 300)).astype(np.float32) for name in NAMES}
    codec, parameters, roster, clients = federation(updates)
    transport = InProcessTransport(clients, {(name, 1): "PlainInputCollection" for name in lost})
    result = run_half_round(codec, parameters, roster, b"model", transport)
    assert result.survivors == tuple(name for name in NAMES if name not in lost)
    halves = [updates[name].astype(np.float16).astype(np.float64) for name in result.survivors]
    assert np.array_equal(codec.decode_sum(result.total, len(halves)), sum(halves))
    assert codec.decode_counter(result.total) == 7 * len(halves)
    up = [frame.bytes for frame in result.frames if frame.client == "c" and frame.direction is Direction.UP]
    assert sum(up) == 44 + len(codec.encode(updates["c"], 7))


def test_nobody_answers():
    codec, parameters, roster, clients = federation(dict.fromkeys(NAMES, np.zeros(4, np.float32)))
    drops = {(name, 1): "PlainInputCollection" for name in NAMES}
    with pytest.raises(TooFewSurvivorsError):
        run_half_round(codec, parameters, roster, b"", InProcessTransport(clients, drops))


def test_a_client_that_sends_something_else_is_left_out():
    codec, parameters, roster, clients = federation(dict.fromkeys(NAMES, np.ones(4, np.float32)))

    class Liar:
        def answer(self, stage, data):
            return clients["b"].answer(stage, data)[:-1]

    class Another:
        def answer(self, stage, data):
            return b"SF"

    result = run_half_round(
        codec, parameters, roster, b"", InProcessTransport({**clients, "b": Liar(), "d": Another()})
    )
    assert result.survivors == ("a", "c")
    assert {rejection.client for rejection in result.rejections} == {"b", "d"}


def test_one_reply_of_each_client_that_was_asked_is_summed():
    codec, parameters, roster, clients = federation(dict.fromkeys(NAMES, np.ones(4, np.float32)))

    class OfAnotherSession:
        def answer(self, stage, data):
            frame = clients["d"].answer(stage, data)
            return frame[:8] + b"\1" * 32 + frame[40:]

    class Silent:
        def answer(self, stage, data):
            return b""

    transport = Repeating({**clients, "c": Silent(), "d": OfAnotherSession()})
    result = run_half_round(codec, parameters, roster, b"", transport)
    assert result.survivors == ("a", "b")
    assert codec.decode_sum(result.total, 2).tolist() == [2.0] * 4
    assert codec.decode_counter(result.total) == 14
    errors = {(rejection.client, type(rejection.error)) for rejection in result.rejections}
    assert errors == {
        *((name, StageOrderError) for name in NAMES),
        ("c", DecodeError),
        ("d", SessionMismatchError),
        ("stranger", AuthenticationError),
    }
    assert all(frame.bytes > 0 for frame in result.frames)
    assert "stranger" not in {frame.client for frame in result.frames}


def test_a_body_is_what_the_specification_says():
    """SPEC.md, section 10, by hand: both byte planes of the float16 coordinates, the low bytes first."""
    update = np.array([1, -2.5, 3e-5, 0, 65504], np.float32)
    low, high = np.frombuffer(update.astype("<f2").tobytes(), np.uint8).reshape(-1, 2).T
    packed = zlib.compress(low.tobytes() + high.tobytes())
    codec, body = HalfCodec(5), struct.pack("<HI", 7, len(packed)) + packed
    expected = [*(update.astype(np.float16).astype(np.float64) * 2**24), 7]
    assert codec.decode(body).tolist() == codec.decode(codec.encode(update, 7)).tolist() == expected
    sent = codec.encode(update, 7)
    assert zlib.decompress(sent[6:]) == low.tobytes() + high.tobytes()


def test_what_float16_cannot_hold_is_refused():
    codec = HalfCodec(3)
    for bad in (np.nan, np.inf, 70_000.0):
        with pytest.raises(NonFiniteError):
            codec.encode(np.array([0, bad, 0], np.float32), 0)
    with pytest.raises(ShapeError):
        codec.encode(np.zeros(4, np.float32), 0)
    with pytest.raises(DtypeError):
        codec.encode(np.zeros(3), 0)
    with pytest.raises(DecodeError):
        codec.decode(HalfCodec(4).encode(np.zeros(4, np.float32), 0))
    assert codec.digest != HalfCodec(4).digest
