"""What the halves of a channel do between rounds that remember nothing of the ones before."""

import numpy as np
from numpy.typing import NDArray

from securefed.compression import Fate
from securefed.run_folder import Arrays


class MemorylessServer:
    """The server's half of a channel whose download is the model as it is."""

    def scored(self, survivors: tuple[str, ...]) -> None:
        """Nothing depends on it."""

    def state(self) -> Arrays:
        """Return nothing."""
        return {}

    def restore(self, state: Arrays, vector: NDArray[np.float32], *, known: bool) -> None:
        """Nothing is needed."""


class MemorylessSite:
    """A site's half of a channel whose contributions depend on one round alone."""

    def close(self, fate: Fate) -> None:
        """Nothing is remembered."""

    def memory(self) -> Arrays:
        """Return nothing."""
        return {}

    def recall(self, memory: Arrays) -> None:
        """Nothing is remembered."""

    def state(self) -> Arrays:
        """Return nothing."""
        return {}

    def restore(self, state: Arrays) -> None:
        """Nothing is needed."""
