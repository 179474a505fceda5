"""The hospitals' private arrays of a round that may still be wanted, out of memory where they are many.

A simulation that keeps the best round has each hospital's arrays up to three times: as they are, as they were when the
round began, and those of the best round. Nobody looks at the latter two until a checkpoint is written or the run ends.
"""

import errno
import mmap
import os
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from typing import IO

import numpy as np
from numpy.typing import NDArray

from securefed.heap import return_free_memory
from securefed.run_folder import Arrays

if sys.platform == "linux":
    import fcntl

IN_MEMORY = 64 << 20
"""Bytes of all hospitals together that stay in memory."""

_BLOCK = 8 << 20
"""Bytes of a write, of whole pages: disks take no other past the cache."""


def spilled(states: Mapping[str, Arrays], in_memory: int = IN_MEMORY) -> Mapping[str, Arrays]:
    """Return the same states, from a file where they are larger than some bytes.

    The file lies in the system's temporary folder (`TMPDIR`), has no name and is gone with the mapping or the process.

    Raises:
        OSError: The file cannot be written.
    """
    if isinstance(states, SpilledStates) or sum(a.nbytes for arrays in states.values() for a in arrays.values()) <= (
        in_memory
    ):
        return states
    written = SpilledStates(states)
    return_free_memory()
    return written


class SpilledStates(Mapping[str, Arrays]):
    """{site: arrays} in a file without a name; an entry is read when it is asked for. May be read by several threads.

    Secrecy: the file holds what belongs to the hospitals; nobody can open it by name, its owner alone could read it.

    Args:
        states: What to write.
    """

    def __init__(self, states: Mapping[str, Arrays]) -> None:
        file = tempfile.TemporaryFile(prefix="securefed-")  # noqa: SIM115 (open as long as the mapping lives)
        self._close = weakref.finalize(self, file.close)
        self._file = file
        self._places: dict[str, list[tuple[str, int, np.dtype[np.generic], tuple[int, ...]]]] = {}
        start, blocks = 0, _Blocks(file)
        for site, arrays in states.items():
            places = []
            for name, array in arrays.items():
                blocks.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
                places.append((name, start, array.dtype, array.shape))
                start += array.nbytes
            self._places[site] = places
        blocks.close()

    def __getitem__(self, site: str) -> Arrays:
        """Read the arrays of a site."""
        arrays: Arrays = {}
        for name, start, dtype, shape in self._places[site]:
            array = np.empty(shape, dtype)
            into, done = array.reshape(-1).view(np.uint8).data, 0
            while done < array.nbytes:
                read = os.preadv(self._file.fileno(), [into[done:]], start + done)
                if not read:
                    raise OSError(f"the file of kept states ends before {name} of {site}")
                done += read
            array.flags.writeable = False
            arrays[name] = array
        return arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class _Blocks:
    """Writes bytes to a new file in aligned blocks, past the system's page cache where the file system can do that.

    Gigabytes that are hardly ever read again would take as much memory there as they give back, and pages that nobody
    has touched before cost a virtual machine more than the writing does.

    Args:
        file: Where to; empty. It can be read as any file once `close` has returned.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._fd = file.fileno()
        self._memory = mmap.mmap(-1, _BLOCK)  # begins at a page, as such writes must
        self._block: NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8)
        self._used = self._size = 0
        self._past_cache = _write_past_cache(self._fd, True)

    def write(self, data: NDArray[np.uint8]) -> None:
        """Append uint8[n]."""
        start = 0
        while start < data.size:
            taken = min(data.size - start, _BLOCK - self._used)
            self._block[self._used : self._used + taken] = data[start : start + taken]
            self._used, start = self._used + taken, start + taken
            if self._used == _BLOCK:
                self._flush()

    def close(self) -> None:
        """Write what is left, which may end anywhere."""
        if self._past_cache:
            _write_past_cache(self._fd, False)
        self._flush()

    def _flush(self) -> None:
        done = 0
        while done < self._used:
            try:
                done += os.pwrite(self._fd, self._block[done : self._used].data, self._size + done)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._past_cache:
                    raise
                _write_past_cache(self._fd, False)  # it took the switch, but not a write
                self._past_cache = False
        self._size, self._used = self._size + self._used, 0


def _write_past_cache(fd: int, past: bool) -> bool:
    """Switch writing past the page cache on or off; return whether the file system has taken it."""
    if sys.platform != "linux":
        return False
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if past else flags & ~os.O_DIRECT)
    except OSError:
        return False  # a file system in memory, say
    return True
