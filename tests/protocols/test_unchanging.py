import numpy as np
import pytest

from protocols.session import RememberingDigest, payload_digest
from protocols.unchanging import place_of


def test_views_of_the_same_bytes_are_at_the_same_place():
    frame = bytes(range(64))
    view = memoryview(frame)[8:40]
    array = np.frombuffer(frame, "<f4", 8, 8)
    assert place_of(view) == place_of(memoryview(frame)[4:][4:36]) == place_of(array)
    assert place_of(view) not in (place_of(memoryview(frame)[8:36]), place_of(memoryview(frame)[12:44]))
    assert place_of(view) != place_of(bytes(view))


@pytest.mark.parametrize(
    "changeable",
    [
        bytearray(8),
        memoryview(bytearray(8)),
        memoryview(bytearray(8)).toreadonly(),
        np.zeros(2, np.float32),
        np.frombuffer(bytes(16), np.float32)[::2],
    ],
    ids=["bytearray", "view", "read-only view", "array", "strided"],
)
def test_what_somebody_can_change_or_is_in_pieces_has_no_place(changeable):
    assert place_of(changeable) is None


def test_a_remembered_digest_is_that_of_what_arrived():
    digest, frame = RememberingDigest(), bytes(range(200))
    payloads = [memoryview(frame)[:100], memoryview(frame)[:100], memoryview(frame)[100:], frame, b"", bytes(100)]
    assert [digest(payload) for payload in payloads] == [payload_digest(payload) for payload in payloads]


def test_a_payload_that_changes_is_hashed_each_time():
    digest, payload = RememberingDigest(), bytearray(100)
    before = digest(memoryview(payload))
    payload[0] = 1
    assert digest(memoryview(payload)) == payload_digest(bytes(payload)) != before


def test_the_same_bytes_are_hashed_once(monkeypatch):
    hashed = []
    monkeypatch.setattr("protocols.session.payload_digest", lambda payload: hashed.append(payload) or bytes(32))
    digest, frame = RememberingDigest(), bytes(100)
    for _ in range(3):
        digest(memoryview(frame)[10:])
    assert len(hashed) == 1
