"""Where Poisson samples and noise come from: an AES-256-CTR keystream under a fresh key of the operating system."""

import hashlib
import math
import os

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

_KEY_BYTES = 32
_UNIFORM_BITS = 52
_ONE = np.uint64(0x3FF0_0000_0000_0000)
"""The bits of 1.0: with 52 bits below them they are those of 1 + k 2**-52."""

_ANGLE = np.float32(2 * math.pi * 2.0**-32)
_PAIRS_AT_A_TIME = 1 << 14
"""What is in work then fits a core's own cache."""

_ZEROS = bytes(12 * _PAIRS_AT_A_TIME)


class Randomness:
    """A stream of random numbers that nobody can predict without its key; made by one of the two constructors below.

    What is drawn is cut from one AES-256-CTR keystream, front to back; no byte of it is used twice, but for `rewind`.
    The key lives in this object alone: it has no representation and cannot be copied or pickled.

    Limits: Gaussian numbers come in pairs by Box and Muller's transform: the radius from a 52-bit uniform number, with
        its logarithm in double precision and the rest in single (it ends at 8.57 standard deviations, which has
        probability 1.1e-16 a pair), the angle from 32 bits, its sine and cosine and the product in single precision
        (within 4 units in the last place, whichever of its kernels numpy takes on a processor). Neither this grid nor
        the rounding of the sum to which the noise is added is hidden (Mironov, CCS 2012): the guarantee is that of the
        mechanism in exact arithmetic. Time is not constant.

    Attributes:
        reproducible: Whether the key follows from a seed. Such noise protects nobody who knows the seed.
    """

    __slots__ = ("_key", "_keystream", "_logarithm", "_radius", "_stream", "_turned", "reproducible")

    def __init__(self, key: bytes, *, reproducible: bool) -> None:
        if len(key) != _KEY_BYTES:
            raise ValueError(f"a key has {_KEY_BYTES} bytes, not {len(key)}")
        self._key = key
        self.reproducible = reproducible
        self.rewind()
        self._keystream = bytearray(len(_ZEROS))
        self._logarithm = np.empty(_PAIRS_AT_A_TIME, dtype=np.float64)
        self._radius, self._turned = np.empty((2, _PAIRS_AT_A_TIME), dtype=np.float32)

    @classmethod
    def of_the_system(cls) -> "Randomness":
        """Return a stream under 256 fresh bits of the operating system."""
        return cls(os.urandom(_KEY_BYTES), reproducible=False)

    @classmethod
    def of_a_seed(cls, seed: int, *parts: str | int) -> "Randomness":
        """Return the stream that depends on nothing but its arguments: for simulations that say so."""
        text = "\x1f".join(["clients.privacy", str(seed), *map(str, parts)])
        return cls(hashlib.sha256(text.encode()).digest(), reproducible=True)

    def rewind(self) -> None:
        """Begin the stream anew, for work that failed and of which nothing was kept: done over, it comes out the same.

        Whether memory ran out can depend on a sample: with another sample in its place, those that are too large would
        never be released, and the samples that are would be no Poisson samples.
        """
        self._stream = Cipher(algorithms.AES256(self._key), modes.CTR(bytes(16))).encryptor()

    def uniform(self, size: int) -> npt.NDArray[np.float64]:
        """Return float64[size], uniform on the odd multiples of 2**-53 within (0, 1)."""
        words = np.frombuffer(self._stream.update(bytes(8 * size)), dtype="<u8")
        return _uniform(words, np.empty(size))

    def gaussian(self, size: int, out: Tensor | None = None) -> Tensor:
        """Return float32[size] of mean 0 and standard deviation 1, in the CPU memory of `out` if it is given."""
        made = torch.empty(size, dtype=torch.float32) if out is None else out
        if made.shape != (size,) or made.dtype != torch.float32:
            raise ValueError(f"out is {made.dtype}{list(made.shape)}, not float32[{size}]")
        numbers: npt.NDArray[np.float32] = made.numpy()
        first, second = numbers[: (size + 1) // 2], numbers[(size + 1) // 2 :]
        for start in range(0, len(first), _PAIRS_AT_A_TIME):
            here = slice(start, start + _PAIRS_AT_A_TIME)
            self._fill(first[here], second[here])
        return made

    def _fill(self, first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> None:
        """Write Gaussian numbers to float32[n], and to float32[n] or float32[n - 1] the other ones of their pairs."""
        count = len(first)
        keystream = memoryview(self._keystream)[: 12 * count]
        self._stream.update_into(memoryview(_ZEROS)[: len(keystream)], keystream)
        logarithm, radius, turned = self._logarithm[:count], self._radius[:count], self._turned[:count]
        _uniform(np.frombuffer(keystream[: 8 * count], dtype="<u8"), logarithm)
        radius[:] = np.log(logarithm, out=logarithm)
        np.sqrt(np.multiply(radius, np.float32(-2), out=radius), out=radius)
        turned[:] = np.frombuffer(keystream[8 * count :], dtype="<i4")
        np.multiply(turned, _ANGLE, out=turned)
        np.multiply(np.cos(turned, out=first), radius, out=first)
        np.multiply(np.sin(turned, out=turned)[: len(second)], radius[: len(second)], out=second)

    def poisson_sample(self, size: int, rate: float) -> npt.NDArray[np.bool_]:
        """Return bool[size], each True with probability `rate`, independently."""
        sample: npt.NDArray[np.bool_] = self.uniform(size) < rate
        return sample

    def __repr__(self) -> str:
        return f"Randomness(reproducible={self.reproducible})"

    def __reduce__(self) -> str:
        raise TypeError("a Randomness is not copied: two of one key would give the same noise")


def _uniform(words: npt.NDArray[np.uint64], out: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Write to float64[n] what 52 bits of uint64[n] say, without rounding: (k + 1/2) 2**-52; return it."""
    bits = out.view(np.uint64)
    np.bitwise_or(np.right_shift(words, np.uint64(64 - _UNIFORM_BITS), out=bits), _ONE, out=bits)
    return np.subtract(out, 1 - 2.0 ** -(_UNIFORM_BITS + 1), out=out)
