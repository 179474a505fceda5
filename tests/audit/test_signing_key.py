"""Signing keys lie in files of their owner."""

import os

import pytest

from audit.errors import KeyFileError
from audit.signing_key import create_key, load_key


def test_a_key_is_kept_for_its_owner_only(tmp_path):
    key = create_key(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert load_key(tmp_path / "key").public_key() == key.public_key()
    with pytest.raises(KeyFileError, match="never overwritten"):
        create_key(tmp_path / "key")


def test_a_key_that_others_may_read_is_refused(tmp_path):
    create_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(KeyFileError, match="others"):
        load_key(tmp_path / "key")


def test_a_missing_or_short_key_is_named(tmp_path):
    with pytest.raises(KeyFileError, match="cannot be read"):
        load_key(tmp_path / "key")
    (tmp_path / "key").write_bytes(b"QzXyW")
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(KeyFileError, match="5 bytes") as caught:
        load_key(tmp_path / "key")
    assert "QzXyW" not in str(caught.value)


@pytest.mark.timeout(20)  # who reads a pipe waits for ever
def test_a_key_is_read_from_no_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyFileError, match="it is no regular file"):
        load_key(tmp_path / "pipe")
