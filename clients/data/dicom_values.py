"""From the stored values of a DICOM image to those that its window or lookup table is about (no import of pydicom)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.data.errors import BrokenImageError

_ENTRIES = 2**16
"""A table of as many entries says 0: the descriptor has 16 bits (PS3.3 C.11.1.1)."""


def of_the_frame(header: Any, name: str) -> Any:
    """Return where a single-frame image says something: the macro `name` of its functional groups, else the header.

    What is said of the frame comes before what is said of all frames.

    Source: DICOM PS3.3 C.7.6.16.1.
    """
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        frames = header.get(groups)
        if frames and frames[0].get(name):
            return frames[0].get(name)[0]
    return header


def modality_values(stored: NDArray[Any], header: Any, path: str) -> NDArray[Any]:
    """Return stored values after the modality lookup table, or rescale slope (absent: 1) and intercept (absent: 0).

    Raises:
        BrokenImageError: The slope is 0, or the table is none.

    Source: DICOM PS3.3 C.11.1, C.7.6.16.2.9.
    """
    tables = header.get("ModalityLUTSequence")
    if tables:
        return through_table(stored, tables[0], header, path, signed=bool(header.PixelRepresentation))[0]
    where = of_the_frame(header, "PixelValueTransformationSequence")
    slope, intercept = (_number(where.get(name)) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope is None and intercept is None:
        return stored
    if slope == 0:
        raise BrokenImageError(path, "its RescaleSlope is 0, which makes all values the same")
    return stored.astype(np.float64) * (1.0 if slope is None else slope) + (intercept or 0.0)


def can_be_negative(header: Any, path: str) -> bool:
    """Return whether the modality values of an image with these elements may be below 0."""
    bits = int(header.BitsStored)
    low = -(2 ** (bits - 1)) if header.PixelRepresentation else 0
    return bool(modality_values(np.array([low, low + 2**bits - 1]), header, path).min() < 0)


def through_table(
    values: NDArray[Any], item: Any, header: Any, path: str, *, signed: bool
) -> tuple[NDArray[np.uint16], int]:
    """Return the entries of a modality or VOI lookup table for finite values, and the table's largest possible one.

    What is below the first value mapped gets the first entry, what is above the last one the last; fractions are cut
    off downwards. Entries of 8 bits may be packed two in a word, the first in its lower half.

    Args:
        values: The values, any shape.
        item: Item of the sequence, with LUTDescriptor and LUTData.
        header: The image, which tells the byte order.
        path: For messages.
        signed: Whether the values may be negative: the first value mapped is then a signed number, whatever the file
            calls it.

    Raises:
        BrokenImageError: The table has fewer entries than it says, or entries beyond its bits.

    Source: DICOM PS3.3 C.11.1.1, C.11.2.1.1.
    """
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries, first = entries % _ENTRIES or _ENTRIES, first % _ENTRIES
    if signed and first >= _ENTRIES // 2:
        first -= _ENTRIES
    data = item.LUTData
    order = "<u2" if header.file_meta.TransferSyntaxUID.is_little_endian else ">u2"
    words = np.frombuffer(data, order) if isinstance(data, bytes) else np.atleast_1d(np.asarray(data, np.uint16))
    if bits == 8 and entries > 1 and words.size == (entries + 1) // 2:
        words = words.astype("<u2").view(np.uint8)
    table = words[:entries].astype(np.uint16)
    if table.size < entries:
        raise BrokenImageError(path, f"its lookup table has {table.size} entries and says {entries}")
    if not 1 <= bits <= 16 or int(table.max()) >= 2**bits:
        raise BrokenImageError(path, f"its lookup table says {bits} bits, and has entries of more")
    index = np.clip(np.floor(values.astype(np.float64)) - first, 0, entries - 1).astype(np.int64)
    return table[index], 2**bits - 1


def _number(value: Any) -> float | None:
    """Return a number, or None where the element is absent or empty."""
    return None if value is None or value == "" else float(value)
