"""Whether two buffers are the same bytes in memory: what one process hands to many clients need not be read by each."""

import numpy as np
from numpy.typing import NDArray


def place_of(data: bytes | memoryview | NDArray[np.generic]) -> tuple[int, int] | None:
    """Return address and size of bytes that nobody can change, None where somebody can or they are not contiguous.

    Where two buffers that both still exist have the same place, they have the same content.
    """
    owner: object = data
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    if type(owner) is not bytes:
        return None
    view = data.data if isinstance(data, np.ndarray) else memoryview(data)
    if not view.c_contiguous:
        return None
    return np.frombuffer(view, np.uint8).ctypes.data if view.nbytes else 0, view.nbytes
