"""Lines and files that survive a crash: appended whole, or cut before the next one is; written whole, or not."""

import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)
"""What file systems answer that keep names durable in their own way, or not at all: network shares.

And what a folder that may be written and not listed answers to whoever opens it.
"""


_NO_SECOND_NAMES = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)
"""What file systems answer that give a file one name only: FAT, some network shares."""


def append_line(path: Path, line: bytes) -> None:
    """Append a line, without line end and holding none; the rest is as of `append_lines`."""
    append_lines(path, line + b"\n")


def append_lines(path: Path, lines: bytes, head: bytes = b"") -> None:
    """Append lines and return once they are on disk; an incomplete last line of a crash is cut first.

    Args:
        path: The file, made where it is new.
        lines: Each with its line end.
        head: What the file begins with, written where it holds no whole line yet.

    Raises:
        OSError: The system refuses, and it names the file; that holds what it held, less an incomplete last line.
    """
    new = not path.exists()
    with _naming(path), path.open("ab", buffering=0) as stream:
        cut_incomplete(path)
        whole = stream.seek(0, os.SEEK_END)
        try:
            _write_all(stream, lines if whole else head + lines)
            os.fsync(stream.fileno())
        except OSError:
            with suppress(OSError):
                stream.truncate(whole)
            raise
    if new:
        sync_folder(path.parent)


def cut_incomplete(path: Path) -> None:
    """Cut what a crash left of a last line, as the next `append_line` would."""
    with path.open("rb+") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 1))
        if stream.read(1) not in (b"\n", b""):
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)


def write_whole(path: Path, content: Iterable[bytes | memoryview], mode: int | None = None) -> None:
    """Write a file and return once it is on disk; whoever reads it, after a crash too, finds the old or the new one.

    Args:
        path: The file, in a folder that exists.
        content: What is in it, in pieces.
        mode: Who may read it, from its first byte on; None for what the process gives new files.

    Raises:
        OSError: The system refuses, and it names the file; nothing is left beside what was there.
    """
    temporary = path.with_name(path.name + ".part")
    with _naming(path):
        try:
            _write_synced(temporary, content, mode)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def write_new(path: Path, content: Iterable[bytes | memoryview], mode: int | None = None) -> None:
    """Write a file that is not there yet and return once it is on disk; a crash leaves it whole, or not at all.

    Where a file can have one name only, a kill between two calls of the system may leave an empty one.

    Args:
        path: The file, in a folder that exists.
        content: What is in it, in pieces.
        mode: Who may read it, from its first byte on; None for what the process gives new files.

    Raises:
        FileExistsError: It is there already, and stays as it is.
        OSError: The system refuses, and it names the file; nothing is left.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")  # another process may make the same file
    with _naming(path):
        try:
            _write_synced(part, content, mode)
            _name_first(part, path)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    try:
        sync_folder(path.parent)
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable where that can be done (_CANNOT_SYNC); an OSError names the folder."""
    try:
        with _naming(folder):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Have an OSError name the file: the system names none that is open, and parts that nobody knows."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def _write_synced(path: Path, content: Iterable[bytes | memoryview], mode: int | None) -> None:
    """Write a file and have it on disk, in whatever state an error leaves it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666 if mode is None else mode)
    with os.fdopen(descriptor, "wb") as stream:
        if mode is not None:
            os.fchmod(descriptor, mode)
        stream.writelines(content)
        stream.flush()
        os.fsync(descriptor)


def _name_first(part: Path, path: Path) -> None:
    """Give a file the name that it is to have, unless there is one of that name; raises FileExistsError then."""
    try:
        os.link(part, path)
    except OSError as error:
        if error.errno not in _NO_SECOND_NAMES:
            raise
        path.touch(exist_ok=False)
        try:
            part.replace(path)
        except OSError:
            with suppress(OSError):
                path.unlink()
            raise


def _write_all(stream: FileIO, content: bytes) -> None:
    """Write all of it: a disk that fills takes a part, and refuses the next one."""
    written = 0
    while written < len(content):
        written += stream.write(content[written:])
