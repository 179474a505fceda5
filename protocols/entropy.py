"""Where randomness for keys, shares and seeds comes from: always an argument, never a module's state."""

import os
from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


class Entropy(Protocol):
    """A cryptographic source: returns that many bytes, none of them ever again."""

    def __call__(self, length: int, /) -> bytes:
        """Return `length` fresh bytes."""
        ...


def system_entropy(length: int, /) -> bytes:
    """Return bytes of the operating system's generator: the source for everything that is real."""
    return os.urandom(length)


class ReproducibleEntropy:
    """The AES-256-CTR keystream of a fixed key: for test vectors and reproducible simulations only.

    Whoever knows the key knows every secret made from it.

    Args:
        key: 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def __call__(self, length: int, /) -> bytes:
        """Return the next bytes of the stream."""
        return self._stream.update(bytes(length))

    def __repr__(self) -> str:
        return "<ReproducibleEntropy>"
