"""Error feedback: what rounding, projection or a lost round kept from the sum is added to the next update.

Secrecy: the memory belongs to one client and holds parts of its updates. It never leaves the client, and is erased by
`clear`.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


class ErrorFeedback:
    """One client's memory of what was not delivered.

    `offer` gives what to send, `sent` notes what of it is on its way, and exactly one of `delivered`, `lost` and
    `withdrawn` ends the round: delivered once the client is known to be in the round's opened sum (the survivor set
    that it signed has it) and the sum is there (in the next download), lost if the sum was opened without it, withdrawn
    if nothing was opened and the round is repeated.

    Args:
        dimension: Coordinates of an update.
        decay: Share of the memory that is kept from round to round, 0 (no memory) to 1.
    """

    def __init__(self, dimension: int, decay: float) -> None:
        self._memory: Vector = np.zeros(dimension, dtype=np.float32)
        self._decay = np.float32(decay)
        self._offered: Vector | None = None
        self._sent: tuple[Vector, Vector] | None = None

    def offer(self, update: Vector) -> Vector:
        """Return float32[d], the update plus what earlier rounds left."""
        self._sent = None
        self._offered = update + self._memory
        return self._offered

    def sent(self, contribution: Vector, rest: Vector) -> None:
        """Note what of the offer is on its way: `contribution` of the codec, float32[d] and float32[rest_length].

        Raises:
            ValueError: Nothing was offered.
        """
        if self._offered is None:
            raise ValueError("nothing was offered")
        self._sent = self._offered - contribution, rest

    def delivered(self, lift: Callable[[Vector], Vector]) -> None:
        """The sum contains what was sent: what it does not say of the offer is kept.

        Args:
            lift: Returns float32[d], what the rest adds to the sum: `lifted` of the codec, with the lifts of the sum.
        """
        if self._sent is not None:
            kept, rest = self._sent
            self._memory = (kept - lift(rest)) * self._decay
        self.withdrawn()

    def lost(self) -> None:
        """The sum was opened without it: all that was offered is kept."""
        if self._offered is not None:
            self._memory = self._offered * self._decay
        self.withdrawn()

    def withdrawn(self) -> None:
        """Nothing was opened: the memory is that of before the round."""
        self._offered = self._sent = None

    @property
    def on_its_way(self) -> tuple[Vector, Vector, Vector] | None:
        """What was offered, what is kept of it if delivered and what is lifted; for the client's own state."""
        if self._offered is None or self._sent is None:
            return None
        return self._offered.copy(), self._sent[0].copy(), self._sent[1].copy()

    @on_its_way.setter
    def on_its_way(self, arrays: tuple[Vector, Vector, Vector]) -> None:
        offered, kept, rest = arrays
        if any(array.shape != self._memory.shape or array.dtype != np.float32 for array in (offered, kept)):
            raise ValueError(f"what is on its way is of another federation than {self._memory.shape}")
        self._offered, self._sent = offered.copy(), (kept.copy(), rest.copy())

    def clear(self) -> None:
        """Overwrite the memory."""
        self._memory.fill(0)
        self.withdrawn()

    @property
    def memory(self) -> Vector:
        """float32[d], a copy, for the client's own checkpoint. Secrecy: stays at the client."""
        return self._memory.copy()

    @memory.setter
    def memory(self, memory: Vector) -> None:
        if memory.shape != self._memory.shape or memory.dtype != np.float32:
            raise ValueError(f"the memory has shape {memory.shape}, this federation needs {self._memory.shape}")
        self._memory = memory.copy()
        self.withdrawn()

    def __repr__(self) -> str:
        return f"<ErrorFeedback of {len(self._memory)}>"

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError("a client's memory is private: it is never pickled or copied")
