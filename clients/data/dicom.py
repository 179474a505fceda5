"""Single-frame DICOM images, shown as the file asks for (optional extra `dicom`)."""

import io
import math
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clients.data.dicom_values import can_be_negative, modality_values, of_the_frame, through_table
from clients.data.errors import BrokenImageError, MissingDependencyError
from clients.data.grey import scale_to_8_bit, stretch_to_8_bit
from clients.data.quiet import quiet_decoders
from clients.data.size import size_fault

_READ_AS_RGB = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422"})
_RGB_BY_CODEC = frozenset({"YBR_ICT", "YBR_RCT"})
"""Photometric interpretations of three samples; the second are those of JPEG 2000, whose decoders undo them."""


def decode_dicom(content: bytes, path: str, max_pixels: int) -> Image.Image:
    """Decode a single-frame DICOM file to 8-bit RGB.

    Grey images: stored values, modality transform (rescale slope and intercept or lookup table), then the file's
    first window or its VOI lookup table, and without either a stretch from the darkest to the brightest value;
    MONOCHROME1 is inverted, so that bright is always bright. Colour images become RGB. Of an enhanced image the
    rescale and the window in its functional groups count.

    Args:
        content: The file's bytes.
        path: Its path, for messages.
        max_pixels: Larger images are refused.

    Raises:
        BrokenImageError: It is not DICOM, has no or several frames, is too large or too narrow, contradicts itself, has
            colours that are not read or cannot be decoded.
        MissingDependencyError: pydicom is not installed.

    Source: DICOM PS3.3 C.11.1 (modality), C.11.2 (VOI), C.7.6.3.1.2 (photometric interpretation).
    """
    try:
        import pydicom
    except ImportError as error:
        raise MissingDependencyError("DICOM images", "dicom") from error
    coding = "content"
    try:
        with quiet_decoders():
            header = pydicom.dcmread(io.BytesIO(content))
            _check(header, path, max_pixels)
            coding = header.file_meta.TransferSyntaxUID.name
            return Image.fromarray(_shown(header, path)).convert("RGB")
    except (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException) as error:
        raise BrokenImageError(path, "it is not a DICOM file") from error
    except (AttributeError, TypeError) as error:
        raise BrokenImageError(path, _of_an_element(error)) from error
    except (
        ValueError,
        KeyError,
        IndexError,
        OSError,
        EOFError,
        OverflowError,
        struct.error,
        zlib.error,
    ) as error:
        raise BrokenImageError(path, _short(str(error)) or type(error).__name__) from error
    except NotImplementedError as error:
        raise BrokenImageError(path, f"its {_short(coding)} is not read here; export it uncompressed") from error
    except RuntimeError as error:
        reason = "no decoder that is installed reads its {}: it is damaged, or needs pip install 'securefed[dicom]'"
        raise BrokenImageError(path, reason.format(_short(coding))) from error


def _of_an_element(error: AttributeError | TypeError) -> str:
    """Return what is wrong with the elements of a file: pydicom tells it of a few, Python of its own objects."""
    if str(error).startswith("Missing required element"):
        return _short(str(error))
    return "an element that tells how it is shown is missing, is empty or has several values where one is expected"


def _short(text: str) -> str:
    return " ".join(text.split())[:200]


def _check(header: Any, path: str, max_pixels: int) -> None:
    if not header.get("PixelData"):
        raise BrokenImageError(path, "it is a DICOM file without an image")
    for name in ("Rows", "Columns"):
        if not isinstance(header.get(name), int):
            raise BrokenImageError(path, f"its element {name} is missing, is empty or has several values")
    frames = int(header.get("NumberOfFrames", 1) or 1)
    if frames != 1:
        raise BrokenImageError(path, f"it has {frames} frames; export one image a file")
    if fault := size_fault(int(header.Columns), int(header.Rows), max_pixels):
        raise BrokenImageError(path, fault)
    bits, high = header.get("BitsStored"), header.get("HighBit")
    if None not in (bits, high) and high != bits - 1 and not _is_compressed(header):
        raise BrokenImageError(path, f"its {bits} bits are not the lowest ones (HighBit {high})")


def _is_compressed(header: Any) -> bool:
    return bool(header.file_meta.TransferSyntaxUID.is_encapsulated)


def _shown(header: Any, path: str) -> NDArray[np.uint8]:
    from pydicom.pixels import apply_color_lut
    from pydicom.uid import JPEG2000TransferSyntaxes

    stored = header.pixel_array
    photometric = str(header.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        colour = apply_color_lut(stored, header)
        return scale_to_8_bit(colour, 0, np.iinfo(colour.dtype).max)
    if stored.ndim == 3:
        by_codec = photometric in _RGB_BY_CODEC and header.file_meta.TransferSyntaxUID in JPEG2000TransferSyntaxes
        if photometric not in _READ_AS_RGB and not by_codec:
            raise BrokenImageError(path, f"its colours are {photometric}, which is not read here; export it as RGB")
        return scale_to_8_bit(stored, 0, 2 ** int(header.BitsStored) - 1)
    values = modality_values(stored, header, path)
    if not np.isfinite(values).all():
        raise BrokenImageError(path, "it has values that are not finite")
    grey = _through_voi(values, stored, header, path)
    return np.asarray(255 - grey, dtype=np.uint8) if photometric == "MONOCHROME1" else grey


def _padding(stored: NDArray[Any], header: Any) -> NDArray[np.bool_] | None:
    """Return which stored values are outside the picture (PS3.3 C.7.5.1.1.2); None where the file does not say."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return None
    limit = header.get("PixelPaddingRangeLimit")
    span = 2 ** int(header.BitsAllocated)
    low, high = sorted(_as_stored(number, header, span) for number in (value, value if limit is None else limit))
    return np.asarray((stored >= low) & (stored <= high))


def _as_stored(number: int, header: Any, span: int) -> int:
    """Return a padding value with the sign that stored values have: some files call it US where these are SS."""
    if header.PixelRepresentation:
        return number - span if number >= span // 2 else number
    return number + span if number < 0 else number


def _through_voi(values: NDArray[Any], stored: NDArray[Any], header: Any, path: str) -> NDArray[np.uint8]:
    where = of_the_frame(header, "FrameVOILUTSequence")
    if where.get("VOILUTSequence"):
        shown, white = through_table(
            values, where.VOILUTSequence[0], header, path, signed=can_be_negative(header, path)
        )
        return scale_to_8_bit(shown, 0, white)
    centre, width = _first(where.get("WindowCenter")), _first(where.get("WindowWidth"))
    function = str(where.get("VOILUTFunction") or "LINEAR")
    if centre is None or width is None or _is_too_narrow(width, function):
        return stretch_to_8_bit(values, path, _padding(stored, header))
    if function == "SIGMOID":
        return scale_to_8_bit(1.0 / (1.0 + np.exp(-4.0 * (values - centre) / width)), 0.0, 1.0)
    if function == "LINEAR_EXACT":
        return scale_to_8_bit(values, centre - width / 2, centre + width / 2)
    if width == 1:  # PS3.3 C.11.2.1.2.1: a threshold
        return np.where(values > centre - 0.5, 255, 0).astype(np.uint8)
    return scale_to_8_bit(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)


def _is_too_narrow(width: float, function: str) -> bool:
    """Return whether a file may not have this window (PS3.3 C.11.2.1.2 for LINEAR, C.11.2.1.3 for the others)."""
    return width <= 0 if function in ("LINEAR_EXACT", "SIGMOID") else width < 1


def _first(value: Any) -> float | None:
    """Return the first of one or several window values; None where there is none, or none that is finite."""
    if value is None or value == "":
        return None
    first = float(value[0]) if hasattr(value, "__getitem__") and not isinstance(value, str) else float(value)
    return first if math.isfinite(first) else None
