"""The bytes are those of AES-256-CTR whichever instructions make them, and in whatever pieces they are asked for."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import keystream
from protocols.keystream import MOST_AT_ONCE, Keystream, gcm_is_faster
from protocols.pads import Pad, apply_pads
from protocols.secret_values import PairwiseSeed

KEY = bytes(range(32))
LONG = 3 * MOST_AT_ONCE + 77
CTR = Cipher(algorithms.AES256(KEY), modes.CTR(bytes(16))).encryptor().update(bytes(LONG))


@pytest.fixture(params=[False, True], ids=["ctr", "gcm"])
def way(request, monkeypatch):
    monkeypatch.setattr(keystream, "gcm_is_faster", lambda: request.param)
    return request.param


def stream_in_pieces(pieces, length=LONG):
    stream, made = Keystream(KEY, length), bytearray(sum(pieces))
    start = 0
    for size in pieces:
        stream.fill(memoryview(made)[start : start + size])
        start += size
    return bytes(made)


@pytest.mark.parametrize(
    "pieces", [[MOST_AT_ONCE] * 3 + [77], [32, 1, 0, 15], [1] * 100, [31, 2, 70000], [5, 26, 1, 1]]
)
def test_it_is_ctr_in_any_pieces(way, pieces):
    assert stream_in_pieces(pieces) == CTR[: sum(pieces)]


@settings(deadline=None, max_examples=50)
@given(pieces=st.lists(st.integers(0, 3000), max_size=8))
def test_it_is_ctr_in_pieces_that_nobody_chose(pieces):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keystream, "gcm_is_faster", lambda: True)
        assert stream_in_pieces(pieces) == CTR[: sum(pieces)]


def test_the_fast_way_is_taken_for_long_keystreams_only(way):
    assert (Keystream(KEY, LONG)._gcm is not None) is way
    assert Keystream(KEY, 1000)._gcm is None


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<u8"])
def test_pads_made_either_way_cancel(monkeypatch, dtype):
    lanes = np.zeros(90_001, dtype)
    monkeypatch.setattr(keystream, "gcm_is_faster", lambda: True)
    apply_pads(lanes, [Pad(PairwiseSeed(KEY), negative=False)])
    assert lanes.tobytes() == CTR[: lanes.nbytes]
    monkeypatch.setattr(keystream, "gcm_is_faster", lambda: False)
    apply_pads(lanes, [Pad(PairwiseSeed(KEY), negative=True)])
    assert not lanes.any()


@pytest.mark.parametrize(
    ("said", "faster"),
    [
        ({"SIMD Extensions": {"baseline": ["X86_V2"], "found": ["X86_V3", "AVX512_ICL"]}}, True),
        ({"SIMD Extensions": {"baseline": ["NEON"], "found": ["ASIMDHP"]}}, False),
        ({"SIMD Extensions": {"baseline": []}}, False),
        ({}, False),
    ],
)
def test_the_fast_way_is_taken_where_numpy_says_that_the_instructions_are_there(monkeypatch, said, faster):
    monkeypatch.setattr(np, "show_config", lambda mode: said)
    gcm_is_faster.cache_clear()
    try:
        assert gcm_is_faster() is faster
    finally:
        gcm_is_faster.cache_clear()


def test_it_shows_nothing_of_its_key():
    assert repr(Keystream(KEY, LONG)) == "<Keystream>"
