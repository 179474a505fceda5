"""Lines that survive a crash: appended whole, or cut before the next one is."""

import os
from pathlib import Path


def append_line(path: Path, line: bytes) -> None:
    """Append a line and return once it is on disk; an incomplete last line of a crash is cut first.

    Args:
        path: The file, made where it is new.
        line: Without line end, and holding none.
    """
    new = not path.exists()
    with path.open("ab+") as stream:
        _cut_incomplete(path, stream.seek(0, os.SEEK_END))
        stream.write(line + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    if new:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cut_incomplete(path: Path, size: int) -> None:
    if not size:
        return
    with path.open("rb+") as stream:
        stream.seek(size - 1)
        if stream.read(1) != b"\n":
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)
