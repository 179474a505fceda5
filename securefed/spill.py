"""The hospitals' private arrays of a round that may still be wanted, out of memory where they are many.

A simulation that keeps the best round has each hospital's arrays up to three times: as they are, as they were when the
round began, and those of the best round. Nobody looks at the latter two until a checkpoint is written or the run ends.
"""

import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping

import numpy as np

from securefed.heap import return_free_memory
from securefed.run_folder import Arrays

IN_MEMORY = 64 << 20
"""Bytes of all hospitals together that stay in memory."""


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
        start = 0
        for site, arrays in states.items():
            places = []
            for name, array in arrays.items():
                file.write(np.ascontiguousarray(array).data)
                places.append((name, start, array.dtype, array.shape))
                start += array.nbytes
            self._places[site] = places
        file.flush()

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
