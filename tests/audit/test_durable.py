"""Files that are replaced whole, or not at all."""

import errno
import os

import pytest

from audit.durable import write_whole


def test_a_file_is_on_disk_before_its_name_is(tmp_path, monkeypatch):
    done = []
    real = {"fsync": os.fsync, "replace": os.replace}
    monkeypatch.setattr(os, "fsync", lambda descriptor: (done.append("fsync"), real["fsync"](descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), real["replace"](*paths)))
    write_whole(tmp_path / "file", [b"one ", b"two"])
    assert (tmp_path / "file").read_bytes() == b"one two"
    assert done == ["fsync", "replace", "fsync"]


def test_a_full_disk_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("audit.durable.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, [b"new"])
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"old")]


@pytest.mark.parametrize(("code", "refused"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_folder_that_no_file_system_can_sync_keeps_its_file(tmp_path, monkeypatch, code, refused):
    """Network shares answer so; a disk that is broken does not."""

    def no_folder(folder):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("audit.durable.sync_folder", no_folder)
    if refused:
        with pytest.raises(OSError, match=os.strerror(code)):
            write_whole(tmp_path / "file", [b"new"])
    else:
        write_whole(tmp_path / "file", [b"new"])
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_private_file_is_private_whatever_was_left_of_an_earlier_try(tmp_path):
    left = tmp_path / "file.part"
    left.write_bytes(b"half")
    left.chmod(0o644)
    write_whole(tmp_path / "file", [b"secret"], 0o600)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
