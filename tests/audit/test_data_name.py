"""What a record calls data: under a key, and so that whoever lacks the key can confirm nothing."""

import hashlib
import hmac

import pytest

from audit.data_name import create_data_key, named_data
from audit.errors import KeyFileError

FINGERPRINT = hashlib.sha256(b"some images").hexdigest()


def test_the_name_is_the_keyed_digest_that_the_specification_gives(tmp_path):
    create_data_key(tmp_path / "data.key")
    key = (tmp_path / "data.key").read_bytes()
    text = b"securefed-data/1\n\n" + FINGERPRINT.encode() + b"\n"
    assert named_data(tmp_path / "data.key", FINGERPRINT) == hmac.new(key, text, "sha256").hexdigest()
    text = b"securefed-data/1\nab12\n" + FINGERPRINT.encode() + b"\n"
    assert named_data(tmp_path / "data.key", FINGERPRINT, "ab12") == hmac.new(key, text, "sha256").hexdigest()


def test_two_keys_two_studies_and_two_data_sets_have_names_of_their_own(tmp_path):
    for name in ("one", "two"):
        create_data_key(tmp_path / name)
    names = {
        named_data(tmp_path / key, fingerprint, study)
        for key in ("one", "two")
        for fingerprint in (FINGERPRINT, "0" * 64)
        for study in ("", "1" * 64)
    }
    assert len(names) == 8
    assert FINGERPRINT not in names


def test_a_key_is_its_owners_alone_and_is_never_replaced(tmp_path):
    path = tmp_path / "data.key"
    create_data_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyFileError, match="never overwritten"):
        create_data_key(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="read by others"):
        named_data(path, FINGERPRINT)
    with pytest.raises(KeyFileError, match="cannot be read"):
        named_data(tmp_path / "gone", FINGERPRINT)
