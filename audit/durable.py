"""Lines and files that survive a crash: appended whole, or cut before the next one is; replaced whole, or not."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)
"""What file systems answer that keep names durable in their own way, or not at all: network shares.

And what a folder that may be written and not listed answers to whoever opens it.
"""


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
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666 if mode is None else mode)
            with os.fdopen(descriptor, "wb") as stream:
                if mode is not None:
                    os.fchmod(descriptor, mode)
                stream.writelines(content)
                stream.flush()
                os.fsync(descriptor)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


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
    """Have an OSError name the file: the system says it of none that is open."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _write_all(stream: FileIO, content: bytes) -> None:
    """Write all of it: a disk that fills takes a part, and refuses the next one."""
    written = 0
    while written < len(content):
        written += stream.write(content[written:])
