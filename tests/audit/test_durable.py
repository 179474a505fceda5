"""Files that are replaced whole, or not at all; lines that are appended whole, or not at all."""

import errno
import os
import resource
import stat
from pathlib import Path

import pytest

from audit import EventLog
from audit.durable import append_line, write_new, write_whole
from audit.errors import KeyFileError
from audit.signing_key import create_secret


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


@pytest.fixture(params=["link", "one name only"])
def naming(request, monkeypatch):
    """File systems on which a file can have two names, and on which it cannot."""
    if request.param != "link":

        def refusing(*_):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refusing)


@pytest.mark.usefixtures("naming")
def test_a_new_file_is_never_written_over_another(tmp_path):
    write_new(tmp_path / "file", [b"one"], 0o600)
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "file", [b"two"])
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"one")]
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


@pytest.mark.usefixtures("naming")
@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("make", [lambda path: write_new(path, [b"new"]), create_secret], ids=["a file", "a key"])
def test_a_new_file_that_a_full_disk_refuses_leaves_nothing(tmp_path, monkeypatch, make, failing):
    """Neither as it is written nor as its name is made durable: what was left would block whoever tries again."""
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr("audit.durable.os.fsync", full)
    with pytest.raises((OSError, KeyFileError), match="No space left"):
        make(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
    make(tmp_path / "file")


@pytest.mark.parametrize("write", [append_line, lambda path, line: write_whole(path, [line])], ids=["line", "file"])
def test_an_error_names_the_file(tmp_path, monkeypatch, write):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("audit.durable.os.fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path / "file", b"new")
    assert caught.value.filename == str(tmp_path / "file")


WRITERS = {
    "a file": lambda folder: write_whole(folder / "file", [b"new"]),
    "a line": lambda folder: append_line(folder / "file", b"new"),
    "a new file": lambda folder: write_new(folder / "file", [b"new"]),
    "a key": lambda folder: create_secret(folder / "file"),
    "a log": lambda folder: EventLog.create(folder / "file", {"run_id": "r1", "operation": "simulation"}).close(),
}


def no_folder_syncs(monkeypatch, code):
    real = os.fsync

    def refusing(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refusing)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_folder_that_no_file_system_can_sync_keeps_its_file(tmp_path, monkeypatch, write, code):
    """Network shares answer so."""
    no_folder_syncs(monkeypatch, code)
    write(tmp_path)
    assert (tmp_path / "file").stat().st_size > 0


def test_a_disk_that_is_broken_is_told(tmp_path, monkeypatch):
    no_folder_syncs(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_whole(tmp_path / "file", [b"new"])
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_folder_that_may_be_written_and_not_listed_keeps_its_file(tmp_path, monkeypatch, write):
    """Root may list every folder: there the system's answer is put in its place."""
    real = os.open

    def unlisted(path, *arguments, **options):
        if Path(path) == tmp_path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", unlisted)
    tmp_path.chmod(0o333)
    try:
        write(tmp_path)
    finally:
        tmp_path.chmod(0o700)
    assert (tmp_path / "file").stat().st_size > 0


def test_a_private_file_is_private_whatever_was_left_of_an_earlier_try(tmp_path):
    left = tmp_path / "file.part"
    left.write_bytes(b"half")
    left.chmod(0o644)
    write_whole(tmp_path / "file", [b"secret"], 0o600)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("before", [b"", b"one\n", b"one\ntw"])
def test_a_line_for_which_the_disk_has_no_room_is_not_begun(tmp_path, before):
    """The system takes a part of it and refuses the rest, as a disk that fills does."""
    path = tmp_path / "lines"
    path.write_bytes(before)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            append_line(path, b"a line that is too long for this disk")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    whole = before[: before.rfind(b"\n") + 1]
    assert path.read_bytes() == whole
    append_line(path, b"a line that is too long for this disk")
    assert path.read_bytes() == whole + b"a line that is too long for this disk\n"


def test_a_line_that_cannot_be_made_durable_is_taken_back(tmp_path, monkeypatch):
    append_line(tmp_path / "lines", b"one")

    def broken(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("audit.durable.os.fsync", broken)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        append_line(tmp_path / "lines", b"two")
    assert (tmp_path / "lines").read_bytes() == b"one\n"
