"""Shamir's secret sharing of 32-byte secrets over the field of p = 2**31 - 1, vectorised.

A secret is cut into nine limbs of 30 bits; each limb is the constant term of its own random polynomial of degree t - 1.
The share of the holder with x-coordinate x is the nine polynomials' values at x. Any t shares rebuild the secret, fewer
say nothing about it (Shamir 1979).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from protocols.entropy import Entropy
from protocols.errors import DecodeError, ParameterError

PRIME = (1 << 31) - 1
LIMBS = 9
LIMB_BITS = 30
SECRET_BYTES = 32
SHARE_BYTES = 4 * LIMBS

Field = NDArray[np.int64]
"""Field elements 0 to p - 1 in 64-bit words."""


def split(secrets: Sequence[bytes], holders: Sequence[int], threshold: int, entropy: Entropy) -> list[list[bytes]]:
    """Split secrets so that any `threshold` holders rebuild each of them.

    Args:
        secrets: 32 bytes each.
        holders: Distinct x-coordinates, 1 to p - 1.
        threshold: t, 1 to len(holders).
        entropy: Source of the polynomials' coefficients, drawn by rejection so that they are uniform.

    Returns:
        For each secret its shares, 36 bytes each, in the order of the holders.

    Raises:
        ParameterError: The threshold or the holders cannot be meant.
    """
    if not 1 <= threshold <= len(holders):
        raise ParameterError("threshold", "must be 1 to the number of holders")
    _check_points(holders)
    coefficients = np.empty((threshold, LIMBS * len(secrets)), dtype=np.int64)
    coefficients[0] = np.concatenate([_to_limbs(secret) for secret in secrets])
    coefficients[1:] = _uniform((threshold - 1) * LIMBS * len(secrets), entropy).reshape(coefficients[1:].shape)
    values = _matmul(_powers(_round_up(max(holders)), threshold)[np.asarray(holders) - 1], coefficients).astype("<u4")
    coefficients.fill(0)
    return [
        [row.tobytes() for row in np.ascontiguousarray(values[:, i * LIMBS : (i + 1) * LIMBS])]
        for i in range(len(secrets))
    ]


def combine(holders: Sequence[int], shares: Sequence[bytes]) -> bytes | None:
    """Rebuild one secret from exactly threshold shares.

    Args:
        holders: Distinct x-coordinates.
        shares: 36 bytes each, in the same order.

    Returns:
        The 32 bytes, or None where the interpolated values are not a secret (some share is wrong).

    Raises:
        DecodeError: A share is not nine field elements.
    """
    points = np.stack([parse_share(share) for share in shares])
    limbs = _matmul(lagrange_at_zero(tuple(holders))[np.newaxis, :], points)[0]
    return _from_limbs(limbs)


def parse_share(share: bytes) -> Field:
    """Return int64 [9], the field elements of a share.

    Raises:
        DecodeError: It is not 36 bytes of nine elements below p.
    """
    if len(share) != SHARE_BYTES:
        raise DecodeError("a share has the wrong size")
    elements = np.frombuffer(share, dtype="<u4").astype(np.int64)
    if (elements >= PRIME).any():
        raise DecodeError("a share is not in the field")
    return elements


@lru_cache(maxsize=64)
def lagrange_at_zero(holders: tuple[int, ...]) -> Field:
    """Return int64 [t], the weights with which values at the holders' points add up to the value at zero.

    Weight i is the product over j != i of x_j / (x_j - x_i). One index set is computed once.
    """
    _check_points(holders)
    x = np.asarray(holders, dtype=np.int64)
    numerator = np.ones(len(x), dtype=np.int64)
    denominator = np.ones(len(x), dtype=np.int64)
    for j, point in enumerate(holders):
        difference = (point - x) % PRIME
        difference[j] = 1
        denominator = denominator * difference % PRIME
        factor = np.full(len(x), point, dtype=np.int64)
        factor[j] = 1
        numerator = numerator * factor % PRIME
    return numerator * _inverse(denominator) % PRIME


def _inverse(values: Field) -> Field:
    """X ** (p - 2), element by element (Fermat)."""
    result = np.ones_like(values)
    base, exponent = values.copy(), PRIME - 2
    while exponent:
        if exponent & 1:
            result = result * base % PRIME
        base = base * base % PRIME
        exponent >>= 1
    return result


def _check_points(holders: Sequence[int]) -> None:
    if len(set(holders)) != len(holders) or not all(1 <= x < PRIME for x in holders):
        raise ParameterError("holders", "must be distinct and not zero")


def _round_up(largest: int) -> int:
    """The next power of two: clients of one cohort share one table of powers."""
    return 1 << (largest - 1).bit_length()


@lru_cache(maxsize=8)
def _powers(largest: int, threshold: int) -> Field:
    """int64 [largest, t]: row x - 1 holds x**0 to x**(t - 1)."""
    x = np.arange(1, largest + 1, dtype=np.int64)
    powers = np.empty((threshold, largest), dtype=np.int64)
    powers[0] = 1
    for i in range(1, threshold):
        powers[i] = powers[i - 1] * x % PRIME
    return np.ascontiguousarray(powers.T)


def _matmul(left: Field, right: Field) -> Field:
    """Product of matrices over the field, exact.

    Both are cut into halves of 16 and 15 bits; sums of products of halves stay below 2**53 for up to 2**20 terms, so
    that floating-point matrix products are exact.
    """
    low_left, high_left = (left & 0xFFFF).astype(np.float64), (left >> 16).astype(np.float64)
    low_right, high_right = (right & 0xFFFF).astype(np.float64), (right >> 16).astype(np.float64)
    low = (low_left @ low_right).astype(np.int64) % PRIME
    middle = (low_left @ high_right + high_left @ low_right).astype(np.int64) % PRIME
    high = (high_left @ high_right).astype(np.int64) % PRIME
    total: Field = (low + (middle << 16) % PRIME + (((high << 16) % PRIME) << 16) % PRIME) % PRIME
    return total


def _uniform(count: int, entropy: Entropy) -> Field:
    """Draw uniform field elements: 31 random bits, again where they are p."""
    drawn = np.frombuffer(entropy(4 * count), dtype="<u4").astype(np.int64) & PRIME
    while (rejected := np.flatnonzero(drawn == PRIME)).size:
        drawn[rejected] = np.frombuffer(entropy(4 * rejected.size), dtype="<u4").astype(np.int64) & PRIME
    return drawn


def _to_limbs(secret: bytes) -> Field:
    if len(secret) != SECRET_BYTES:
        raise ParameterError("secret", "must be 32 bytes")
    value = int.from_bytes(secret, "little")
    return np.array([value >> (LIMB_BITS * i) & ((1 << LIMB_BITS) - 1) for i in range(LIMBS)], dtype=np.int64)


def _from_limbs(limbs: Field) -> bytes | None:
    value = 0
    for i, limb in enumerate(limbs.tolist()):
        if limb >> LIMB_BITS:
            return None
        value |= limb << (LIMB_BITS * i)
    return None if value >> (8 * SECRET_BYTES) else value.to_bytes(SECRET_BYTES, "little")
