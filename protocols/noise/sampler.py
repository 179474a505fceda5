"""Draws from a noise table: inversion of 128-bit uniform numbers of a keystream.

A magnitude is the number of rows that are not above a uniform 128-bit number. Its upper 64 bits decide except where
they equal those of a row, which happens once in 2**64 / rows draws; the lower 64 bits come from a keystream of their
own that is made only then. The distribution of a draw is off by at most rows * 2**-128 in total variation.
"""

import numpy as np

from protocols.noise.keystream import Use, expand, words
from protocols.noise.rounding import Integers
from protocols.noise.tables import NoiseTable
from protocols.secret_values import NoiseSeed


def draw(table: NoiseTable, seed: NoiseSeed, count: int) -> Integers:
    """Return int64 [count], independent draws; the same for the same table and seed, on every machine.

    Args:
        table: The distribution.
        seed: 256 bits from a cryptographic source, for these draws alone.
        count: Draws.

    Raises:
        SpentError: The seed was erased.
    """
    uniform = words(expand(seed, Use.MAGNITUDES, 8 * count))
    magnitudes = np.searchsorted(table.high, uniform, side="right")
    _resolve_ties(table, seed, uniform, magnitudes)
    sign_bits = np.frombuffer(expand(seed, Use.SIGNS, (count + 7) // 8), dtype=np.uint8)
    negative = np.unpackbits(sign_bits, count=count, bitorder="little").view(np.bool_)
    noise: Integers = magnitudes.astype(np.int64)
    np.negative(noise, out=noise, where=negative)
    return noise


def _resolve_ties(table: NoiseTable, seed: NoiseSeed, uniform: np.ndarray, magnitudes: np.ndarray) -> None:
    """Where the upper words are equal, count a row only if its lower word is not above the draw's."""
    ties = np.flatnonzero((magnitudes > 0) & (table.high[magnitudes - 1] == uniform))
    if not ties.size:
        return
    lower = words(expand(seed, Use.TIES, 8 * len(uniform)))
    for place in ties.tolist():
        drawn = int(uniform[place]) << 64 | int(lower[place])
        magnitude = int(magnitudes[place])
        while magnitude > 0 and table.row(magnitude - 1) > drawn:
            magnitude -= 1
        magnitudes[place] = magnitude
