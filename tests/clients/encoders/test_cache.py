"""The feature cache: what is written comes back, and nothing else ever does."""

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from clients.encoders import FeatureCacheError, default_cache_dir
from clients.encoders.cache import FeatureCache
from clients.encoders.card import EncoderCard, files_key, read_card, write_card

WIDTH = 6
DESCRIPTION = {"encoder": "ab" * 32, "input": "image/v1", "precision": "fp32 cpu"}


def digest(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def rows(*numbers):
    return {digest(n): np.random.default_rng(n).normal(size=WIDTH).astype(np.float32) for n in numbers}


def shards(cache):
    return sorted(cache.folder.glob("*.safetensors"))


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path, DESCRIPTION, WIDTH)


def same(found, expected):
    return set(found) == set(expected) and all(np.array_equal(found[name], expected[name]) for name in expected)


def test_what_is_written_comes_back_bit_by_bit(cache, tmp_path):
    cache.add(rows(1, 2, 3))
    cache.add(rows(4))
    cache.add({})
    assert len(shards(cache)) == 2
    again = FeatureCache(tmp_path, DESCRIPTION, WIDTH)
    found = again.read([digest(n) for n in (1, 3, 4, 9)])
    assert same(found.rows, rows(1, 3, 4))
    assert found.damaged == 0
    assert not list(cache.folder.glob(".*"))


def test_what_a_killed_writer_left_is_removed_by_a_later_one_and_what_another_writes_now_is_not(cache):
    cache.add(rows(1))
    left, written = cache.folder / ".left.part", cache.folder / ".written.part"
    for part in (left, written):
        part.write_bytes(b"features")
    two_hours_ago = time.time() - 7200
    os.utime(left, (two_hours_ago, two_hours_ago))
    cache.add(rows(2))
    assert not left.exists()
    assert written.exists()


def test_an_empty_cache_is_empty(cache):
    assert cache.read([digest(1)]).rows == {}


@pytest.mark.parametrize("change", [{"encoder": "cd" * 32}, {"input": "text/v1"}, {"precision": "bf16 cuda"}])
def test_another_encoder_input_or_precision_is_another_cache(cache, tmp_path, change):
    cache.add(rows(1))
    other = FeatureCache(tmp_path, {**DESCRIPTION, **change}, WIDTH)
    assert other.read([digest(1)]).rows == {}
    assert FeatureCache(tmp_path, DESCRIPTION, WIDTH + 1).read([digest(1)]).rows == {}


def test_features_of_images_that_were_read_otherwise_are_in_another_cache(cache):
    """Version 1 had DICOM images whose tables, padding or rescale were read otherwise: nothing of it is taken."""
    assert (
        cache.key
        == hashlib.sha256(
            json.dumps(["securefed/features/v2", DESCRIPTION, WIDTH], sort_keys=True).encode()
        ).hexdigest()
    )


def test_entries_copied_from_another_encoder_are_detected(cache, tmp_path):
    cache.add(rows(1, 2))
    other = FeatureCache(tmp_path, {**DESCRIPTION, "encoder": "cd" * 32}, WIDTH)
    other.folder.mkdir(parents=True)
    (other.folder / "stale.safetensors").write_bytes(shards(cache)[0].read_bytes())
    found = other.read([digest(1), digest(2)])
    assert found.rows == {}
    assert found.damaged == 2
    assert shards(other) == []


def test_every_damaged_byte_is_detected_and_the_rest_is_kept(cache):
    cache.add(rows(1, 2, 3))
    path = shards(cache)[0]
    content = path.read_bytes()
    expected = rows(1, 2, 3)
    data_start = 8 + int.from_bytes(content[:8], "little")
    for position in range(0, len(content), 3):
        for shard in shards(cache):
            shard.unlink()
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        path.write_bytes(bytes(damaged))
        found = cache.read(expected)
        assert all(np.array_equal(row, expected[name]) for name, row in found.rows.items())
        if position >= data_start:
            assert found.damaged >= 1
            assert len(found.rows) == 2
        again = FeatureCache(cache.folder.parents[1], DESCRIPTION, WIDTH).read(expected)
        assert same(again.rows, found.rows)
        assert again.damaged == 0


def test_files_without_a_wanted_entry_are_not_read(cache):
    cache.add(rows(1))
    path = shards(cache)[0]
    content = bytearray(path.read_bytes())
    content[8 + int.from_bytes(content[:8], "little")] ^= 1  # the first byte of the features
    path.write_bytes(bytes(content))
    assert cache.read([digest(2)]).damaged == 0
    assert path.exists()
    assert cache.read([digest(1)]).damaged == 1
    assert not path.exists()


def test_truncated_and_foreign_files_are_removed_and_counted(cache):
    cache.add(rows(1))
    path = shards(cache)[0]
    content = path.read_bytes()
    for length in (0, 7, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        found = cache.read([digest(1)])
        assert (found.rows, found.damaged) == ({}, 1)
        assert not path.exists()
    names = np.frombuffer(bytes.fromhex(digest(1)) * 2, np.uint8).reshape(2, 32)
    arrays = {"digests": names, "features": np.zeros((2, WIDTH), np.float16)}
    path.write_bytes(safetensors.numpy.save(arrays))
    assert cache.read([digest(1)]).damaged == 1
    arrays["checksums"] = np.zeros((2, 16), np.uint8)
    path.write_bytes(safetensors.numpy.save(arrays))
    assert cache.read([digest(1)]).damaged == 1
    arrays["features"] = np.zeros((2, WIDTH), np.float32)
    path.write_bytes(safetensors.numpy.save(arrays))
    assert cache.read([digest(1)]).damaged == 2


def test_writers_side_by_side_lose_nothing(cache):
    def work(worker):
        own = FeatureCache(cache.folder.parents[1], DESCRIPTION, WIDTH)
        for start in range(0, 40, 10):
            own.add(rows(*range(start, start + 10)))
            assert own.read([digest(start)]).damaged == 0
        return worker

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(work, range(8)))) == 8
    found = cache.read([digest(n) for n in range(40)])
    assert same(found.rows, rows(*range(40)))
    assert found.damaged == 0


def test_a_place_that_cannot_be_written_is_a_named_error(tmp_path):
    (tmp_path / "file").write_text("x")
    cache = FeatureCache(tmp_path / "file", DESCRIPTION, WIDTH)
    with pytest.raises(FeatureCacheError, match="SECUREFED_CACHE") as caught:
        cache.add(rows(1))
    assert "\n" not in str(caught.value)


CARD = EncoderCard("ab" * 32, 512, 100.00000762939453)


def test_without_a_home_folder_the_way_out_is_named(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in ("SECUREFED_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(FeatureCacheError, match=r"no home folder.*--cache-dir or SECUREFED_CACHE"):
        default_cache_dir()


def test_a_card_is_remembered_for_the_state_of_its_files(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    key = files_key("model", [file])
    write_card(tmp_path / "cache", key, CARD)
    assert read_card(tmp_path / "cache", key) == CARD
    assert files_key("model", [file]) == key
    assert files_key("other", [file]) != key
    file.write_bytes(b"another")
    assert files_key("model", [file]) != key
    assert read_card(tmp_path / "cache", files_key("model", [file])) is None


def test_a_damaged_or_foreign_card_is_no_card(tmp_path):
    write_card(tmp_path, "k", CARD)
    path = tmp_path / "encoders" / "k.json"
    text = path.read_text()
    for changed in ("", "{", "[]", "{}", text.replace("512", "511"), text.replace("100.0", "101.0")):
        path.write_text(changed)
        assert read_card(tmp_path, "k") is None
    (tmp_path / "encoders" / "other.json").write_text(text)
    assert read_card(tmp_path, "other") is None
