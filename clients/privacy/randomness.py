"""Where Poisson samples and noise come from: a ChaCha20 keystream under a fresh key of the operating system."""

import hashlib
import math
import os

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from torch import Tensor

_KEY_BYTES = 32
_UNIFORM_BITS = 53
_ANGLE_BITS = 32
_PAIRS_AT_A_TIME = 1 << 15
"""What is in work then fits the caches."""


class Randomness:
    """A stream of random numbers that nobody can predict without its key; made by one of the two constructors below.

    What is drawn is cut from one ChaCha20 keystream, front to back; no byte of it is used twice. The key lives in this
    object alone: it has no representation and cannot be copied or pickled.

    Limits: Gaussian numbers come in pairs by Box and Muller's transform: the radius from a 53-bit uniform number, with
        its logarithm in double precision and the rest in single (it ends at 8.6 standard deviations, which has
        probability 1e-16 a draw), the angle from 32 bits and the product in single precision. Neither this grid nor
        the rounding of the sum to which the noise is added is hidden (Mironov, CCS 2012): the guarantee is that of the
        mechanism in exact arithmetic. Time is not constant.

    Attributes:
        reproducible: Whether the key follows from a seed. Such noise protects nobody who knows the seed.
    """

    __slots__ = ("_stream", "reproducible")

    def __init__(self, key: bytes, *, reproducible: bool) -> None:
        if len(key) != _KEY_BYTES:
            raise ValueError(f"a key has {_KEY_BYTES} bytes, not {len(key)}")
        self._stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
        self.reproducible = reproducible

    @classmethod
    def of_the_system(cls) -> "Randomness":
        """Return a stream under 256 fresh bits of the operating system."""
        return cls(os.urandom(_KEY_BYTES), reproducible=False)

    @classmethod
    def of_a_seed(cls, seed: int, *parts: str | int) -> "Randomness":
        """Return the stream that depends on nothing but its arguments: for simulations that say so."""
        text = "\x1f".join(["clients.privacy", str(seed), *map(str, parts)])
        return cls(hashlib.sha256(text.encode()).digest(), reproducible=True)

    def uniform(self, size: int) -> npt.NDArray[np.float64]:
        """Return float64[size], uniform on the odd multiples of 2**-54 within (0, 1)."""
        words = np.frombuffer(self._stream.update(bytes(8 * size)), dtype="<u8")
        return ((words >> np.uint64(64 - _UNIFORM_BITS)).astype(np.float64) + 0.5) * 2.0**-_UNIFORM_BITS

    def gaussian(self, size: int) -> Tensor:
        """Return float32[size] of mean 0 and standard deviation 1."""
        pairs = (size + 1) // 2
        numbers = torch.empty(2, pairs)
        for start in range(0, pairs, _PAIRS_AT_A_TIME):
            self._fill(numbers[:, start : start + _PAIRS_AT_A_TIME])
        return numbers.view(-1)[:size]

    def _fill(self, numbers: Tensor) -> None:
        """Write Gaussian numbers to float32[2, n], a pair a column."""
        radius = torch.from_numpy(self.uniform(numbers.shape[1])).log_().float().mul_(-2).sqrt_()
        words = np.frombuffer(self._stream.update(bytes(4 * numbers.shape[1])), dtype="<i4").astype(np.int32)
        angle = torch.from_numpy(words).float().mul_(2.0**-_ANGLE_BITS * 2 * math.pi)
        torch.mul(torch.cos(angle, out=numbers[0]), radius, out=numbers[0])
        torch.mul(torch.sin(angle, out=numbers[1]), radius, out=numbers[1])

    def poisson_sample(self, size: int, rate: float) -> npt.NDArray[np.bool_]:
        """Return bool[size], each True with probability `rate`, independently."""
        sample: npt.NDArray[np.bool_] = self.uniform(size) < rate
        return sample

    def __repr__(self) -> str:
        return f"Randomness(reproducible={self.reproducible})"

    def __reduce__(self) -> str:
        raise TypeError("a Randomness is not copied: two of one key would give the same noise")
