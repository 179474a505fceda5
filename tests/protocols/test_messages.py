import random
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import protocols.messages as messages
from protocols import DecodeError, ThreatModel
from protocols.messages import Message, decode_message, encode_message
from protocols.messages.limits import FIRST_REQUEST_LIMIT, reply_limit, request_limit
from protocols.simulator import Recorder, SimulatedFederation
from protocols.stages import Stage
from protocols.wire import HEADER_BYTES, MAX_CLIENTS, FrameType, Header, Reader, decode_frame, encode_frame
from tests.protocols.noise.federation import excess_federation

KINDS: dict[FrameType, type[Message]] = {
    kind.TYPE: kind for kind in vars(messages).values() if isinstance(kind, type) and hasattr(kind, "TYPE")
}
LIMIT = 1 << 20


def transcript():
    """Frames of every type, from a complete and a k-regular round, a refusal and a plain round."""
    frames = []
    for choices, threat_model in (
        ({}, ThreatModel.ACTIVE),
        ({}, ThreatModel.SEMI_HONEST),
        ({"neighbours": 6, "threshold": 4, "corrupt": 0}, ThreatModel.ACTIVE),
    ):
        recorder = Recorder()
        federation = SimulatedFederation(9, choices=choices, threat_model=threat_model)
        federation.run(recorder, drops={"site-001": "MaskedInputCollection"})
        frames += [frame for _, _, _, frame in recorder.transcript]
        assert len(federation.parameters().encode()) == 132 + 2 * 9
    frames += excess_transcript()
    frames.append(encode_message(messages.Refusal(7, 2), 1, bytes(32)))
    parameters = federation.parameters()
    frames.append(encode_message(messages.PlainInputRequest(parameters.encode(), b"model"), 1, bytes(32)))
    frames.append(encode_message(messages.PlainInputReply(16, 3, bytes(6)), 1, bytes(32)))
    by_type = {}
    for frame in frames:
        by_type.setdefault(frame[3], []).append(frame)
    return [examples[i] for examples in by_type.values() for i in (0, len(examples) // 2, -1)]


def excess_transcript():
    """A round from which excess noise is removed."""
    federation = excess_federation(6)
    recorder = Recorder()
    federation.run(recorder, drops={"site-001": "MaskedInputCollection"})
    parameters = federation.parameters()
    assert len(parameters.encode()) == 132 + 2 * 6 + 1
    assert type(parameters).decode(parameters.encode()) == parameters
    return [frame for _, _, _, frame in recorder.transcript]


FRAMES = transcript()


def test_every_type_occurs():
    assert {frame[3] for frame in FRAMES} == {int(kind) for kind in FrameType} == {int(kind) for kind in KINDS}


def test_every_frame_decodes_and_encodes_to_itself():
    for frame in FRAMES:
        header, message = decode_message(KINDS[FrameType(frame[3])], frame, LIMIT)
        assert encode_message(message, header.round, header.session_id) == frame
        assert sum(message.parts().values()) <= len(frame) - HEADER_BYTES


def outcome(kind, data):
    """The message, or None where the one named error is raised; anything else fails the test."""
    try:
        return decode_message(kind, data, LIMIT)
    except DecodeError:
        return None


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: FrameType(frame[3]).name)
def test_every_truncation_and_extension_is_refused(frame):
    """[M-14] A receiver MUST refuse a body with bytes missing or left over, unknown flags, padding bits that are not
    zero, or positions that do not strictly ascend.
    """
    kind = KINDS[FrameType(frame[3])]
    step = max(1, len(frame) // 300)
    for length in range(0, len(frame), step):
        assert outcome(kind, frame[:length]) is None
        if length >= HEADER_BYTES:
            assert outcome(kind, frame[:40] + struct.pack("<I", length - HEADER_BYTES) + frame[44:length]) is None
    for extra in (b"\0", bytes(100)):
        length = struct.pack("<I", len(frame) - HEADER_BYTES + len(extra))
        assert outcome(kind, frame[:40] + length + frame[44:] + extra) is None


@given(data=st.data(), frame=st.sampled_from(FRAMES))
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_frames_give_a_message_or_the_one_error(data, frame):
    mutated = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(mutated) - 1, 400)))
        mutated[place] = data.draw(st.integers(0, 255))
    for kind in (KINDS[FrameType(frame[3])], data.draw(st.sampled_from(list(KINDS.values())))):
        result = outcome(kind, bytes(mutated))
        if result is not None:
            header, message = result
            assert encode_message(message, header.round, header.session_id) == bytes(mutated)


@given(kind=st.sampled_from(list(KINDS.values())), body=st.binary(max_size=300))
@settings(max_examples=1500, deadline=None)
def test_arbitrary_bodies_give_a_message_or_the_one_error(kind, body):
    frame = encode_frame(Header(kind.TYPE, 1, bytes(32)), body)
    result = outcome(kind, frame)
    if result is not None:
        assert encode_message(result[1], 1, bytes(32)) == frame


@given(data=st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_arbitrary_bytes_give_the_one_error(data):
    for kind in KINDS.values():
        assert outcome(kind, data) is None


@pytest.mark.parametrize(
    ("place", "value"), [(0, b"X"), (1, b"X"), (2, b"\x00"), (2, b"\x02"), (3, b"\x00"), (3, b"\x0f"), (40, b"\xff")]
)
def test_headers_are_checked(place, value):
    """[M-12] A receiver MUST refuse a frame whose magic, version, type or body length is not the expected one."""
    for frame in FRAMES:
        broken = frame[:place] + value + frame[place + 1 :]
        assert outcome(KINDS[FrameType(frame[3])], broken) is None
        other = KINDS[FrameType.REFUSAL if frame[3] != FrameType.REFUSAL else FrameType.UNMASKING_REPLY]
        assert outcome(other, frame) is None


def test_size_is_checked_before_anything_is_read():
    """[M-13] A receiver MUST check the size of a frame against the largest that its stage allows before it reads
    anything of it, and never allocate more than the frame holds because a count in it says so.
    """

    class Unreadable(bytes):
        def __getitem__(self, key):
            raise AssertionError("read")

    with pytest.raises(DecodeError, match="larger"):
        decode_frame(Unreadable(bytes(101)), 100)
    for kind in KINDS.values():
        for count in (0xFFFF, MAX_CLIENTS, 2):
            body = struct.pack("<H", count)
            for padding in (b"", bytes(3), bytes(33)):
                assert outcome(kind, encode_frame(Header(kind.TYPE, 1, bytes(32)), padding + body)) is None
    with pytest.raises(DecodeError, match="more items"):
        Reader(struct.pack("<H", 5) + bytes(9)).count(2)
    with pytest.raises(DecodeError, match="truncated"):
        Reader(bytes(3)).view(4)


def test_frames_of_a_round_are_within_the_limits_of_their_stage():
    for choices in ({}, {"neighbours": 8, "threshold": 5, "corrupt": 0}):
        recorder, federation = Recorder(), SimulatedFederation(12, choices=choices)
        federation.run(recorder)
        parameters = federation.parameters()
        for stage, _, way, frame in recorder.transcript:
            limit = (request_limit if way == "down" else reply_limit)(Stage(stage), parameters)
            assert len(frame) <= limit <= FIRST_REQUEST_LIMIT
            if (stage, way) not in (("AdvertiseKeys", "down"), ("MaskedInputCollection", "up")):
                assert limit < 44 + 40_000


@pytest.mark.slow
def test_a_million_mutated_frames_give_a_message_or_the_one_error():
    """One to three bytes changed, cut or repeated somewhere in a real frame; what decodes must encode to itself."""
    rng = random.Random(0)
    short = [frame for frame in FRAMES if len(frame) < 3000]
    decoded = 0
    for _ in range(1_000_000):
        frame = rng.choice(short)
        mutated = bytearray(frame)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(2, min(len(mutated), 300))
            action = rng.randrange(8)
            if action == 0:
                del mutated[place]
            elif action == 1:
                mutated.insert(place, rng.randrange(256))
            else:
                mutated[place] = rng.choice((0, 1, 2, 0xFF, rng.randrange(256)))
        if len(mutated) != len(frame):
            mutated[40:44] = struct.pack("<I", len(mutated) - HEADER_BYTES)
        kind = KINDS[FrameType(frame[3])]
        result = outcome(kind, bytes(mutated))
        if result is not None:
            decoded += 1
            assert encode_message(result[1], result[0].round, result[0].session_id) == bytes(mutated)
    assert 100_000 < decoded < 900_000
