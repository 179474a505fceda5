"""Uniform bits from a seed: one labelled AES-256-CTR keystream for each use, so that no two uses share a bit."""

from enum import StrEnum
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from protocols.secret_values import NoiseSeed

SEED_BYTES = 32


class Use(StrEnum):
    """What a keystream is for; the last part of its label (protocols/noise/SPEC.md, "Keystreams")."""

    SIGNS_OF_ROTATION = "rotation"
    ROUNDING = "rounding"
    MAGNITUDES = "magnitudes"
    TIES = "ties"
    SIGNS = "signs"


_PREFIX: Final = b"securefed/noise/v1/"
_COUNTER_START: Final = bytes(16)


def expand_public(seed: bytes, use: Use, length: int) -> bytes:
    """Return `length` bytes of the keystream of a public seed.

    Args:
        seed: 32 bytes.
        use: What for; each use has its own key.
        length: Bytes.

    Raises:
        ValueError: The seed is not 32 bytes.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed takes {SEED_BYTES} bytes")
    text = _PREFIX + use.value.encode("ascii")
    key = HKDF(SHA256(), SEED_BYTES, salt=None, info=bytes([len(text)]) + text).derive(seed)
    stream = Cipher(algorithms.AES256(key), modes.CTR(_COUNTER_START)).encryptor()
    return stream.update(bytes(length))


def expand(seed: NoiseSeed, use: Use, length: int) -> bytes:
    """Return `length` bytes of the keystream of a secret seed.

    Raises:
        SpentError: The seed was erased.
    """
    return expand_public(seed.expose(), use, length)


def words(data: bytes) -> NDArray[np.uint64]:
    """Return the little-endian words uint64 of keystream bytes."""
    return np.frombuffer(data, dtype="<u8")


def signs(data: bytes, count: int) -> NDArray[np.float64]:
    """Return float64 [count] of +1 (bit 0) and -1 (bit 1), from the little-endian bits of keystream bytes."""
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=count, bitorder="little")
    return np.where(bits == 1, -1.0, 1.0)
