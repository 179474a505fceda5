"""AES-256-CTR keystreams written into memory, by the fastest instructions that give these bytes."""

from functools import cache
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

MOST_AT_ONCE: Final = 1 << 18
"""Bytes that are written at a time: 256 KiB stay in the second-level cache."""

_COUNTER_START: Final = bytes(16)
_ZERO_NONCE: Final = bytes(12)
_BEFORE_GCM: Final = 32
"""With a nonce of zeros GCM encrypts under the counter blocks 2, 3, 4, ...: all of CTR's from zero on but two."""
_WORTH_GCM: Final = 1 << 14
"""Bytes of a keystream below which a second context takes longer to make than it saves."""
_ZEROS: Final = memoryview(bytes(MOST_AT_ONCE))


class Keystream:
    """The AES-256-CTR keystream of a key, counter block from zero (SPEC.md, section 1), piece by piece.

    Args:
        key: 32 bytes, not kept.
        length: How many bytes will be asked for; decides how they are made, not what they are. At most 2**36 - 32.
    """

    __slots__ = ("_before_gcm", "_ctr", "_gcm")

    def __init__(self, key: bytes | memoryview, length: int) -> None:
        aes = algorithms.AES256(key)
        self._ctr = Cipher(aes, modes.CTR(_COUNTER_START)).encryptor()
        by_gcm = length >= _WORTH_GCM and gcm_is_faster()
        self._gcm = Cipher(aes, modes.GCM(_ZERO_NONCE)).encryptor() if by_gcm else None
        self._before_gcm = _BEFORE_GCM

    def fill(self, target: memoryview) -> None:
        """Write the next bytes of the keystream.

        Args:
            target: As many bytes as are wanted, at most `MOST_AT_ONCE`.
        """
        by_ctr = len(target) if self._gcm is None else min(self._before_gcm, len(target))
        if by_ctr:
            self._ctr.update_into(_ZEROS[:by_ctr], target[:by_ctr])
        if self._gcm is not None:
            self._before_gcm -= by_ctr
            self._gcm.update_into(_ZEROS[: len(target) - by_ctr], target[by_ctr:])

    def __repr__(self) -> str:
        return "<Keystream>"


@cache
def gcm_is_faster() -> bool:
    """Return whether OpenSSL makes four blocks at once in GCM, as it does not in CTR: with VAES and AVX-512.

    numpy says which instructions there are; where it does not, or they are missing, the answer is no.
    """
    extensions = np.show_config(mode="dicts").get("SIMD Extensions", {})
    return "AVX512_ICL" in extensions.get("found", ())
