"""Free memory that the C library would keep."""

import ctypes
import sys
import threading


def return_free_memory() -> None:
    """Give the holes that a round has left in the heap back to the system, where the C library is glibc.

    With a thousand hospitals they are as large as what the hospitals keep.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(ctypes.c_size_t(0))


class Trimming:
    """Returns free memory after every so many hospitals have made and freed their vectors.

    A vector of megabytes that is freed below something small that stays leaves a hole: with a thousand hospitals the
    holes are as large as what they keep. Fewer leave it to the end of the round (`securefed.spill`).

    Args:
        hospitals: How many there are.
        every: After how many it is time again.
    """

    def __init__(self, hospitals: int, every: int = 128) -> None:
        self._every = every if hospitals > every else 0
        self._lock = threading.Lock()
        self._since = 0

    def one_more(self) -> None:
        """Count a hospital; may be called from several threads."""
        if not self._every:
            return
        with self._lock:
            self._since = (self._since + 1) % self._every
            due = self._since == 0
        if due:
            return_free_memory()
