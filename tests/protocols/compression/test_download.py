import dataclasses
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.compression import (
    Bases,
    CompressionState,
    Download,
    DownloadHistory,
    PackedStep,
    Replica,
    Step,
    decode_download,
    encode_download,
    parse_scheme,
)
from protocols.compression.download import deflate, inflate, model_digest
from protocols.compression.replica import _write_whole
from protocols.errors import DecodeError, ProtocolError, SessionMismatchError

SHAPES = ((16, 12), (16,))
DIMENSION = 208
SITES = ("a", "b", "c", "d")


def federation(text="ring:4,subspace:0.25"):
    initial = np.linspace(-1, 1, DIMENSION, dtype=np.float32)
    state = CompressionState.start(SHAPES, parse_scheme(text), len(SITES))
    server = DownloadHistory(Replica(initial, state), SITES)
    return server, {site: Replica(initial, state) for site in SITES}


def opened(server, rng, survivors=SITES):
    codec = server.replica.state.codec()
    public = rng.integers(0, len(survivors) * codec.levels, codec.public_length, endpoint=True)
    server.opened(Step(len(survivors), public), tuple(survivors))


steps = st.builds(
    lambda survivors, numbers: Step(survivors, np.array(numbers, dtype=np.int64)),
    st.integers(1, 100),
    st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=40),
)


@given(base=st.integers(0, 2**32 - 1), content=st.lists(steps, max_size=4))
@settings(max_examples=60, deadline=None)
def test_downloads_come_back_exactly(base, content):
    download = Download(base, bytes(range(32)), tuple(map(PackedStep.of, content)))
    back = decode_download(encode_download(download))
    assert (back.base, back.model_digest, back.whole) == (base, bytes(range(32)), None)
    assert [step.survivors for step in back.steps] == [step.survivors for step in content]
    for packed, step in zip(back.steps, content, strict=True):
        assert np.array_equal(packed.unpack(len(step.public), step.survivors).public, step.public)
        for length, clients in ((len(step.public) + 1, step.survivors), (len(step.public), step.survivors - 1)):
            with pytest.raises(DecodeError, match="this federation"):
                packed.unpack(length, clients)


@given(data=st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_raise_one_error(data):
    for prefix in (b"", b"SFD1\x00", b"SFD1\x01"):
        try:
            decode_download(prefix + data)
        except DecodeError:
            continue


def test_every_truncation_and_every_flipped_byte_is_refused_or_leads_to_no_other_model():
    server, clients = federation()
    opened(server, np.random.default_rng(0))
    payload = server.payload()
    for cut in range(0, len(payload), 7):
        with pytest.raises(DecodeError):
            clients["a"].receive(payload[:cut])
    for place in range(0, len(payload), 5):
        changed = bytearray(payload)
        changed[place] ^= 0x41
        before = clients["a"].step
        with pytest.raises(ProtocolError):
            clients["a"].receive(bytes(changed))
        assert clients["a"].step == before == 0
    assert np.array_equal(clients["a"].receive(payload), server.replica.vector)


def test_a_bomb_is_not_inflated():
    bomb = zlib.compress(bytes(1 << 24), 9)
    with pytest.raises(DecodeError, match="another size"):
        inflate(bomb, "<u1", 100)
    assert inflate(deflate(np.arange(5, dtype="<u2")), "<u2", 5).tolist() == [0, 1, 2, 3, 4]


def test_clients_follow_to_the_same_bits_and_a_client_that_missed_rounds_catches_up():
    server, clients = federation()
    rng = np.random.default_rng(1)
    for number in range(6):
        payload = server.payload()
        present = [site for site in SITES if site != "d" or number in (0, 5)]
        for site in present:
            assert clients[site].receive(payload).tobytes() == server.replica.vector.tobytes()
            assert clients[site].state.codec().digest == server.replica.state.codec().digest
        opened(server, rng, present)
    assert len(decode_download(server.payload()).steps) == 1


def test_the_whole_model_is_sent_where_it_is_shorter_than_the_sums():
    server, clients = federation("ring:12")
    rng = np.random.default_rng(2)
    for _ in range(8):
        opened(server, rng, SITES[:3])
    payload = server.payload()
    assert decode_download(payload).whole is not None
    for site in SITES:
        assert np.array_equal(clients[site].receive(payload), server.replica.vector)
        assert clients[site].state.codec().digest == server.replica.state.codec().digest
    with pytest.raises(DecodeError):
        clients["a"].receive(payload[:-1])


def test_a_whole_model_with_bases_that_are_not_orthonormal_is_refused():
    """A basis of large numbers, or of one column twice, would make more of an update than it is."""
    server, clients = federation("ring:12,subspace:0.5")
    for _ in range(3):
        opened(server, np.random.default_rng(4))
    honest = server.replica

    def whole(change):
        bases = tuple(sides and Bases(change(sides.left), sides.right) for sides in honest.state.bases)
        state = dataclasses.replace(honest.state, bases=bases)
        written = _write_whole(Replica(honest.vector, state))
        return encode_download(Download(honest.step, model_digest(honest.vector), (), written))

    changes = (lambda left: np.full_like(left, 32767), lambda left: left[:, [0, 0, *range(2, left.shape[1])]])
    for change in changes:
        with pytest.raises(DecodeError, match="not orthonormal"):
            clients["a"].receive(whole(change))
        assert clients["a"].step == 0
    assert clients["a"].receive(whole(lambda left: left)).tobytes() == honest.vector.tobytes()


def test_a_payload_that_leads_to_another_model_than_it_names_is_refused():
    server, clients = federation()
    opened(server, np.random.default_rng(3))
    download = decode_download(server.payload())
    forged = encode_download(Download(download.base, model_digest(np.zeros(DIMENSION, np.float32)), download.steps))
    with pytest.raises(SessionMismatchError):
        clients["a"].receive(forged)
    ahead = encode_download(Download(3, download.model_digest, download.steps))
    with pytest.raises(DecodeError, match="continue"):
        clients["a"].receive(ahead)
