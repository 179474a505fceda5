"""Exact bit packing: value i of width b occupies bits i*b to i*b + b - 1 of a little-endian bit string.

64 values of b bits are b words of 64 bits. Both sides are transposed, so that each step shifts one long row of words
instead of one short group of values: packing 526,336 values of 23 bits takes a few milliseconds.
"""

import numpy as np
from numpy.typing import NDArray

from protocols.errors import DecodeError
from protocols.ring import Lanes, lane_dtype

_GROUP = 64
_BLOCK = 1024
"""Groups that are transposed at a time: 64 * 1024 words stay in the cache."""


def packed_bytes(length: int, width: int) -> int:
    """Return how many bytes `length` values of `width` bits take: ceil(length * width / 8)."""
    return (length * width + 7) // 8


def pack(values: Lanes, width: int) -> bytes:
    """Pack values of `width` bits.

    Args:
        values: uint16, uint32 or uint64 [d], each below 2**width.
        width: 1 to 62.
    """
    length = len(values)
    if width in (16, 32) and values.dtype.itemsize * 8 == width:
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    groups = -(-length // _GROUP)
    words = np.empty((groups, width), dtype="<u8")
    for start in range(0, groups, _BLOCK):
        stop = min(start + _BLOCK, groups)
        chunk = values[start * _GROUP : stop * _GROUP]
        if len(chunk) < (stop - start) * _GROUP:
            chunk = np.concatenate([chunk, np.zeros((stop - start) * _GROUP - len(chunk), values.dtype)])
        words[start:stop] = _pack_rows(chunk.reshape(-1, _GROUP).T.astype(np.uint64, order="C"), width).T
    return words.tobytes()[: packed_bytes(length, width)]


def unpack(data: bytes | memoryview, length: int, width: int) -> Lanes:
    """Unpack what `pack` made, into the narrowest machine words.

    Returns:
        uint16, uint32 or uint64 [length].

    Raises:
        DecodeError: The number of bytes is wrong or padding bits are not zero.
    """
    if len(data) != packed_bytes(length, width):
        raise DecodeError("the packed vector has the wrong size")
    spare = len(data) * 8 - length * width
    if spare and data[-1] >> (8 - spare):
        raise DecodeError("padding bits are not zero")
    dtype = lane_dtype(width)
    if width == dtype.itemsize * 8:
        return np.frombuffer(data, dtype=dtype).copy()
    groups = -(-length // _GROUP)
    padded = np.zeros(groups * width, dtype="<u8")
    padded.view(np.uint8)[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    words = padded.reshape(groups, width)
    values = np.empty((groups, _GROUP), dtype=dtype)
    for start in range(0, groups, _BLOCK):
        stop = min(start + _BLOCK, groups)
        values[start:stop] = _unpack_rows(np.ascontiguousarray(words[start:stop].T), width, dtype).T
    return values.reshape(-1)[:length]


def _pack_rows(rows: NDArray[np.uint64], width: int) -> NDArray[np.uint64]:
    """uint64[64, m], one row per value of a group -> uint64[width, m], one row per word of a group."""
    out = np.zeros((width, rows.shape[1]), dtype=np.uint64)
    shifted = np.empty(rows.shape[1], dtype=np.uint64)
    for i in range(_GROUP):
        word, offset = divmod(i * width, 64)
        np.left_shift(rows[i], np.uint64(offset), out=shifted)
        np.bitwise_or(out[word], shifted, out=out[word])
        if offset + width > 64:
            np.right_shift(rows[i], np.uint64(64 - offset), out=shifted)
            np.bitwise_or(out[word + 1], shifted, out=out[word + 1])
    return out


def _unpack_rows(
    words: NDArray[np.uint64], width: int, dtype: np.dtype[np.unsignedinteger]
) -> NDArray[np.unsignedinteger]:
    """uint64[width, m], one row per word of a group -> [64, m], one row per value of a group."""
    out = np.empty((_GROUP, words.shape[1]), dtype=dtype)
    mask = np.uint64((1 << width) - 1)
    row, carry = np.empty(words.shape[1], dtype=np.uint64), np.empty(words.shape[1], dtype=np.uint64)
    for i in range(_GROUP):
        word, offset = divmod(i * width, 64)
        np.right_shift(words[word], np.uint64(offset), out=row)
        if offset + width > 64:
            np.left_shift(words[word + 1], np.uint64(64 - offset), out=carry)
            np.bitwise_or(row, carry, out=row)
        np.bitwise_and(row, mask, out=row)
        out[i] = row
    return out
