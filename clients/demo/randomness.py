"""Random numbers that are the same on every machine and under every version of numpy."""

import hashlib

import numpy as np

from clients.demo.fields import Field

_LABEL = "securefed/demo/v1"
_TO_UNIT = 2.0**-53


class Stream:
    """An endless row of random numbers that a few words determine.

    Numpy keeps the raw output of its bit generators stable, not what `Generator` makes of it; so numbers are made from
    the raw output here, with operations that IEEE 754 rounds exactly.

    Args:
        *words: What the numbers are for; other words give independent numbers.
    """

    def __init__(self, *words: str | int) -> None:
        name = "/".join((_LABEL, *map(str, words)))
        self._bits = np.random.Philox(key=int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big"))

    def unit(self) -> float:
        """Return a number in [0, 1)."""
        return (int(self._bits.random_raw()) >> 11) * _TO_UNIT

    def between(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * self.unit()

    def below(self, count: int) -> int:
        """Return an integer in [0, count)."""
        return int(self.unit() * count)

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.unit() < probability

    def direction(self) -> tuple[float, float]:
        """Return a unit vector; all directions occur, about equally often.

        The rational parametrisation of the circle stands in for sine and cosine, which differ between machines.
        """
        t = self.between(-1.0, 1.0)
        across, along = (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)
        return (across, along) if self.chance(0.5) else (-across, along)

    def units(self, rows: int, columns: int) -> Field:
        """Return float32[rows, columns] of independent numbers in [0, 1)."""
        raw = self._bits.random_raw(rows * columns)
        numbers: Field = (raw >> np.uint64(40)).astype(np.float32).reshape(rows, columns) * np.float32(2.0**-24)
        return numbers

    def grain(self, rows: int, columns: int) -> Field:
        """Return float32[rows, columns] of bell-shaped numbers with mean 0, variance 1 and a magnitude below 3.5."""
        quarters = self._bits.random_raw(rows * columns).view(np.uint16).reshape(rows, columns, 4)
        total = quarters.astype(np.float32).sum(axis=2, dtype=np.float32)
        numbers: Field = (total - np.float32(131070.0)) * np.float32(1.7320508 / 65536.0)
        return numbers
