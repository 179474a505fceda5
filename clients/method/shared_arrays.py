"""Arrays in memory that several processes of one machine see.

The memory has no name: it is gone with the last process that has it, however that ends.
"""

import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_ALIGNED = 64
"""Bytes, a line of the cache."""

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Place:
    """Where an array lies: its type as numpy writes it, its shape, and the byte at which it begins."""

    dtype: str
    shape: tuple[int, ...]
    start: int


Layout = Mapping[str, Place]


def layout(likes: Iterable[tuple[str, npt.NDArray[np.generic]]]) -> Layout:
    """Return places, one after the other, for arrays of the types and shapes of the given ones."""
    places: dict[str, Place] = {}
    end = 0
    for name, like in likes:
        places[name] = Place(like.dtype.str, like.shape, end)
        end += -(-like.nbytes // _ALIGNED) * _ALIGNED
    return places


def available() -> bool:
    """Return whether this system has such memory (Linux has)."""
    return hasattr(os, "memfd_create")


def create(places: Layout) -> int:
    """Return the file descriptor of new memory, zeros, for a layout; the caller closes it.

    Raises:
        OSError: The system has none left.
    """
    descriptor = os.memfd_create("securefed", os.MFD_CLOEXEC)
    try:
        os.truncate(descriptor, _size(places))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def views(descriptor: int, places: Layout) -> Arrays:
    """Return the arrays in the memory of a descriptor, which may be closed afterwards; writing is seen by everybody."""
    memory = mmap.mmap(descriptor, _size(places))
    return {name: np.ndarray(place.shape, np.dtype(place.dtype), memory, place.start) for name, place in places.items()}


def _size(places: Layout) -> int:
    ends = [p.start + int(np.prod(p.shape, dtype=np.int64)) * np.dtype(p.dtype).itemsize for p in places.values()]
    return max(1, *ends) if ends else 1
