"""One process at a time: a lock (flock) on a file, which the system takes back when its process ends."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, wait: float = 0.0) -> Iterator[bool]:
    """Hold the lock of a file, made where there is none; yield whether it is held: False where another process has it.

    Args:
        path: The file. Nothing is written to it.
        wait: Seconds to wait for another process to let go.

    Raises:
        OSError: The file cannot be opened, or its file system has no locks.
    """
    deadline = time.monotonic() + wait
    with path.open("ab") as stream:
        while not (held := _try(stream.fileno())) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield held


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
