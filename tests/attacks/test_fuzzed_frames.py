"""Frames that are mutated, spliced, cut, or made of noise: a message or `DecodeError`, nothing else, and little memory.

The generators are seeded: a failure shows the frame that caused it, and comes again.
"""

import random
import struct
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.attacks.scene import Scene
from protocols.client.machine import ClientMachine
from protocols.errors import DecodeError, ParameterError, ProtocolError, TooFewSurvivorsError
from protocols.messages import (
    AdvertiseKeysReply,
    AdvertiseKeysRequest,
    ConsistencyCheckReply,
    ConsistencyCheckRequest,
    MaskedInputReply,
    MaskedInputRequest,
    PlainInputReply,
    PlainInputRequest,
    Refusal,
    RevealNoncesReply,
    RevealNoncesRequest,
    ShareKeysReply,
    ShareKeysRequest,
    UnmaskingReply,
    UnmaskingRequest,
    decode_message,
    encode_message,
)
from protocols.parameters import RoundParameters
from protocols.participation import Participation
from protocols.policy import ClientPolicy
from protocols.stages import ThreatModel
from protocols.wire import Reader

KINDS = (
    AdvertiseKeysRequest, AdvertiseKeysReply, RevealNoncesRequest, RevealNoncesReply, ShareKeysRequest, ShareKeysReply,
    MaskedInputRequest, MaskedInputReply, ConsistencyCheckRequest, ConsistencyCheckReply, UnmaskingRequest,
    UnmaskingReply, PlainInputRequest, PlainInputReply, Refusal,
)  # fmt: skip
BY_TYPE = {int(kind.TYPE): kind for kind in KINDS}
LIMIT = 1 << 20
ALLOCATED_AT_MOST = 1 << 16, 48
"""A decoder may allocate 64 KiB and 48 times the frame: Python objects for the entries that the frame really holds."""
HEADER = struct.Struct("<2sBBI32sI")


def corpus():
    """Real frames of every type: complete and k-regular graphs, both threat models, plain replies and refusals."""
    wide = ClientPolicy(threat_models=frozenset(ThreatModel), min_corrupt=0, complete_up_to=2, min_sigma=None)
    ring = {"neighbours": 6, "threshold": 4, "corrupt": 1, "min_survivors": 8}
    frames = []
    for scene in (Scene(5), Scene(5, ThreatModel.SEMI_HONEST, policy=wide), Scene(10, policy=wide, choices=ring)):
        scene.play()
        for name in scene.names[:2]:
            for stage in scene.server.stages:
                frames.extend(scene.transcript[stage, name])
    plain = PlainInputRequest(Scene(5).parameters.encode(), b"model"), PlainInputReply(16, 3, bytes(6)), Refusal(7, 3)
    frames.extend(encode_message(message, 1, bytes(32)) for message in plain)
    assert {frame[3] for frame in frames} == set(BY_TYPE)
    return frames


class Mutator:
    """An endless source of frames that were once right."""

    def __init__(self, frames, seed):
        self.frames, self.random = frames, random.Random(seed)
        self.steps = (self.flip, self.put, self.cut, self.extend, self.splice, self.repeat, self.number)

    def next(self):
        draw = self.random
        frame = bytearray(draw.choice(self.frames))
        for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
            frame = draw.choice(self.steps)(frame)
        if draw.random() < 0.8 and len(frame) >= 44:
            frame[40:44] = struct.pack("<I", len(frame) - 44)  # so that the body is read
        if draw.random() < 0.1 and len(frame) > 3:
            frame[3] = draw.randrange(18)
        return bytes(frame)

    def place(self, frame):
        """Anywhere, but often where counts and lengths stand."""
        return self.random.choice(
            (self.random.randrange(len(frame)), min(44 + self.random.randrange(12), len(frame) - 1))
        )

    def flip(self, frame):
        if frame:
            frame[self.place(frame)] ^= 1 << self.random.randrange(8)
        return frame

    def put(self, frame):
        if frame:
            frame[self.place(frame)] = self.random.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))
        return frame

    def cut(self, frame):
        return frame[: self.random.randrange(len(frame) + 1)]

    def extend(self, frame):
        return frame + self.random.randbytes(self.random.randrange(1, 40))

    def splice(self, frame):
        other = self.random.choice(self.frames)
        at = self.random.randrange(len(frame) + 1)
        return frame[:at] + other[self.random.randrange(len(other)) :]

    def repeat(self, frame):
        at, size = self.random.randrange(len(frame) + 1), self.random.randrange(1, 80)
        return frame[: at + size] + frame[at:]

    def number(self, frame):
        if len(frame) > 48:
            at = min(44 + self.random.randrange(len(frame) - 44), len(frame) - 4)
            value = self.random.choice((0, 1, 2, 0x3FFF, 0x4000, 0x4001, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF))
            struct.pack_into("<I", frame, at, value)
        return frame


def decode(data):
    """Read a frame as what its type byte says, or as anything at all."""
    kind = BY_TYPE.get(data[3] if len(data) > 3 else 0, Refusal)
    try:
        message = decode_message(kind, data, LIMIT)[1]
    except DecodeError:
        return None
    if isinstance(message, (AdvertiseKeysRequest, PlainInputRequest)):
        try:
            RoundParameters.decode(message.parameters)
        except (DecodeError, ParameterError, TooFewSurvivorsError):
            return None
    return message


def fuzz(count, seconds, seed, measured_every):
    mutator, decoded, started = Mutator(corpus(), seed), 0, time.monotonic()
    for i in range(count):
        data = mutator.next()
        measure = i % measured_every == 0
        if measure:
            tracemalloc.start()
        try:
            message = decode(data)
            if measure:
                peak = tracemalloc.get_traced_memory()[1]
                assert peak <= ALLOCATED_AT_MOST[0] + ALLOCATED_AT_MOST[1] * len(data), data.hex()
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} from {data.hex()}") from error
        finally:
            tracemalloc.stop()
        decoded += message is not None
        if i % 1000 == 0 and time.monotonic() - started > seconds:
            pytest.fail(f"only {i} of {count} frames in {seconds} s")
    return decoded


def test_twenty_thousand_mutated_frames_give_a_message_or_the_named_error():
    decoded = fuzz(20_000, seconds=60, seed=1, measured_every=20)
    assert 500 < decoded < 19_000  # the mutations reach both endings


@pytest.mark.slow
def test_a_million_mutated_frames_give_a_message_or_the_named_error():
    fuzz(1_000_000, seconds=540, seed=2, measured_every=200)


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(kind=st.sampled_from(KINDS), body=st.binary(max_size=600), head=st.binary(max_size=44) | st.none())
def test_noise_gives_a_message_or_the_named_error(kind, body, head):
    data = HEADER.pack(b"SF", 1, kind.TYPE, 1, bytes(32), len(body)) + body if head is None else head + body
    try:
        message = decode_message(kind, data, LIMIT)[1]
    except DecodeError:
        return
    assert encode_message(message, 1, bytes(32)) == data  # one message has one encoding only


def test_whatever_decodes_encodes_to_the_same_bytes():
    mutator = Mutator(corpus(), 3)
    for _ in range(5_000):
        data = mutator.next()
        kind = BY_TYPE.get(data[3] if len(data) > 3 else 0, Refusal)
        try:
            header, message = decode_message(kind, data, LIMIT)
        except DecodeError:
            continue
        assert encode_message(message, header.round, header.session_id) == data


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_frame_above_the_limit_is_refused_before_anything_is_read(kind):
    data = HEADER.pack(b"SF", 1, kind.TYPE, 1, bytes(32), LIMIT) + bytes(LIMIT)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="larger"):
            decode_message(kind, data, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 1 << 14
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [1, 0x3FFF, 0x4000, 0xFFFF])
@pytest.mark.parametrize("kind", [RevealNoncesRequest, MaskedInputRequest, ShareKeysRequest, UnmaskingReply])
def test_a_count_without_its_items_allocates_nothing(kind, count):
    body = struct.pack("<H", count) + bytes(10)
    data = HEADER.pack(b"SF", 1, kind.TYPE, 1, bytes(32), len(body)) + body
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode_message(kind, data, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 1 << 14
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("stage", list(Scene(5).server.stages), ids=lambda stage: stage.value)
def test_clients_answer_mutated_requests_with_a_frame(stage):
    """Whatever a server sends, a client refuses or replies; it never fails in any other way."""
    scene = Scene(5)
    scene.play(stage)
    name = scene.names[0]
    mutator = Mutator([scene.server.requests(stage.value)[name]], 4)
    for _ in range(60):
        fresh = Scene(5)
        fresh.play(stage)
        for _ in range(8):
            reply = fresh.federation.machines[name].answer(stage.value, mutator.next())
            assert reply[:2] == b"SF"


@pytest.mark.parametrize("stage", list(Scene(5).server.stages), ids=lambda stage: stage.value)
def test_the_server_takes_mutated_replies_without_failing(stage):
    scene = Scene(5)
    scene.play(stage)
    requests = scene.server.requests(stage.value)
    replies = {name: scene.federation.machines[name].answer(stage.value, frame) for name, frame in requests.items()}
    mutator = Mutator([replies[scene.names[4]]], 5)
    for _ in range(400):
        scene.server.absorb(stage.value, {scene.names[4]: mutator.next()})
    scene.server.absorb(stage.value, {name: replies[name] for name in scene.names[:4]})
    scene.server.conclude(stage.value)


@pytest.mark.parametrize("stage", list(Scene(5).server.stages)[1:], ids=lambda stage: stage.value)
def test_mutated_dumps_are_a_machine_or_a_named_error(stage):
    scene = Scene(5)
    scene.play(stage)
    federation, name = scene.federation, scene.names[0]
    mutator = Mutator([federation.machines[name].dump()], 6)
    arguments = federation.identities[name], federation.roster, federation.policy, federation.contribute
    for _ in range(1500):
        data = mutator.next()
        try:
            ClientMachine.load(data, *arguments)
        except ProtocolError:
            continue


def test_mutated_records_of_participation_are_records_or_the_named_error():
    scene = Scene(5)
    scene.play()
    record = scene.federation.machines[scene.names[0]].participation
    mutator = Mutator([record.encode(scene.federation.roster)], 7)
    for _ in range(2000):
        try:
            Participation.decode(mutator.next(), 3, scene.federation.roster)
        except DecodeError:
            continue


def test_another_exception_than_the_named_one_is_caught_by_the_fuzzer(monkeypatch):
    done = Reader.done

    def careless(reader):
        left = len(reader._data) - reader._offset
        if left:
            struct.unpack("<I", bytes(left % 4))
        done(reader)

    monkeypatch.setattr(Reader, "done", careless)
    with pytest.raises(AssertionError, match="error from"):
        fuzz(2_000, seconds=60, seed=1, measured_every=100)


def test_memory_for_items_that_are_not_there_is_caught_by_the_fuzzer(monkeypatch):
    u16 = Reader.u16
    monkeypatch.setattr(Reader, "u16", lambda reader: len([None] * (value := u16(reader))) and value)
    with pytest.raises(AssertionError, match=r"^[0-9a-f]+$|assert"):
        fuzz(2_000, seconds=60, seed=1, measured_every=1)
