"""From the bytes of an image file to an upright 8-bit RGB picture."""

import io
import stat
import struct
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from clients.data.dicom import decode_dicom
from clients.data.errors import BrokenImageError
from clients.data.grey import stretch_to_8_bit
from clients.data.quiet import quiet_decoders
from clients.data.size import size_fault

RASTER_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})
DICOM_SUFFIXES = frozenset({".dcm"})
IMAGE_SUFFIXES = RASTER_SUFFIXES | DICOM_SUFFIXES
"""Lower-case endings of the files that count as images."""

MAX_PIXELS = 80_000_000
"""Larger images are refused: a small file can unpack into more memory than a machine has. Below Pillow's own limit."""

_END_OF_MARK = 132
"""Bytes at the start of a DICOM file that end in its mark."""

_FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
_WIDE_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I", "F"})
_GREY_ALPHA_16, _COLOUR_16 = b"\x10\x04", b"\x10\x02"
_FEW_GREYS = (b"\x02\x00", b"\x04\x00")
"""Bit depth and colour type in the header of a PNG."""

_TRANSPARENT_COLOUR = (
    "it has 16-bit colour of which one is called transparent, and only the upper 8 bits are read here; save it "
    "with an alpha channel, or with 8 bits"
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UNKNOWN_TIFF = (
    "it is a TIFF that is damaged or of a kind that is not read here, such as floating-point values of 16 or 64 bits, "
    "or unsigned ones of 32 bits in big-endian order; save it with 8 or 16 bits"
)
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
"""Tags of TIFF."""

_WHITE_IS_ZERO = 0
_SIGNED = 2
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    ZeroDivisionError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on bytes that are not an image, found by fuzzing and in its documentation."""


def is_image(file: Path) -> bool:
    """Return whether the ending of a file's name, or else DICOM's mark in its first bytes, says that it is an image.

    Archives export DICOM files under names without `.dcm`. DICOMDIR is the index of such an export. What cannot be
    opened counts, so that it is told and not passed over.

    Source: DICOM PS3.10, 7.1 (mark) and 8.6 (DICOMDIR).
    """
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return True
    if file.name.upper() == "DICOMDIR":
        return False
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # opening a pipe would wait for its writer
            return False
        with file.open("rb") as opened:
            return _is_dicom(opened.read(_END_OF_MARK))
    except OSError:
        return True


def decode_image(content: bytes, path: str) -> Image.Image:
    """Decode an image file to 8-bit RGB.

    EXIF orientation is applied; of a file with several pages the first one is taken; transparency is laid over
    black; grey images of more than 8 bits are stretched linearly from their darkest to their brightest visible value
    (of 16 bits of colour the upper 8 count).

    Args:
        content: The file's bytes.
        path: Its path, for its ending and for messages.

    Raises:
        BrokenImageError: The bytes cannot be decoded, or the image has more than MAX_PIXELS pixels or too long a side.
        MissingDependencyError: A DICOM file, and the extra for it is not installed.
    """
    if PurePosixPath(path).suffix.lower() in DICOM_SUFFIXES or _is_dicom(content):
        return decode_dicom(content, path, MAX_PIXELS)
    deep = content.startswith(b"\x89PNG") and content[24:26] == _GREY_ALPHA_16
    try:
        with (
            quiet_decoders(),
            Image.open(io.BytesIO(_as_rgba(content) if deep else content), formats=_FORMATS) as image,
        ):
            _check_size(image.size, path)
            if content.startswith(b"\x89PNG") and content[24:26] == _COLOUR_16 and "transparency" in image.info:
                raise BrokenImageError(path, _TRANSPARENT_COLOUR)
            if content.startswith(b"\x89PNG") and content[24:26] in _FEW_GREYS and "transparency" in image.info:
                white = 2 ** content[24] - 1
                image.info["transparency"] = (image.info["transparency"] & white) * (255 // white)  # as the pixels are
            return Image.fromarray(_deep_over_black(image, path)).convert("RGB") if deep else _to_rgb(image, path)
    except _DECODER_ERRORS as error:
        raise BrokenImageError(path, _one_line(error, content)) from error


def check_image(content: bytes, path: str) -> None:
    """Check an image file without decoding all of it where that tells as much.

    A PNG is checked by its checksums and a JPEG by its header and its end marker; everything else, and a JPEG without
    the marker, is decoded.

    Raises:
        BrokenImageError: As decode_image would.
        MissingDependencyError: A DICOM file, and the extra for it is not installed.
    """
    jpeg = content.startswith(b"\xff\xd8") and b"\xff\xd9" in content[-64:]
    if not jpeg and not content.startswith(b"\x89PNG"):
        decode_image(content, path)
        return
    try:
        with quiet_decoders(), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check_size(image.size, path)
            image.verify()
    except _DECODER_ERRORS as error:
        raise BrokenImageError(path, _one_line(error, content)) from error


def _is_dicom(content: bytes) -> bool:
    return content[_END_OF_MARK - 4 : _END_OF_MARK] == b"DICM"


def _to_rgb(image: Image.Image, path: str) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "L" and getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT) == (_SIGNED,):
        upright = Image.fromarray(np.asarray(upright) ^ np.uint8(0x80))  # Pillow takes -100 for 156
    if upright.mode in _WIDE_MODES:
        upright = Image.fromarray(_wide_over_black(image, np.asarray(upright), path))
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        transparent = upright.convert("RGBA")
        background = Image.new("RGBA", transparent.size, (0, 0, 0, 255))
        upright = Image.alpha_composite(background, transparent)
    return upright.convert("RGB")


def _wide_over_black(image: Image.Image, values: NDArray[Any], path: str) -> NDArray[np.uint8]:
    """Stretch grey of more than 8 bits; what a PNG calls transparent is black, and a TIFF's white may be zero."""
    tags = getattr(image, "tag_v2", {})
    if values.dtype == np.int32 and tags.get(_BITS) == (32,) and tags.get(_SAMPLE_FORMAT, (1,)) == (1,):
        values = values.view(np.uint32)  # Pillow has no such type and keeps the bits
    transparent = image.info.get("transparency")
    hidden = values == transparent if isinstance(transparent, int) else None
    grey = stretch_to_8_bit(values, path, hidden)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    if hidden is not None:
        grey[hidden] = 0
    return grey


def _as_rgba(content: bytes) -> bytes:
    """Call a PNG of 16-bit grey and alpha one of 8-bit RGBA, of which Pillow does not drop the lower bytes.

    Both have four bytes a pixel, so rows and filters are the same.
    """
    header = content[12:24] + b"\x08\x06" + content[26:29]
    return content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:]


def _deep_over_black(image: Image.Image, path: str) -> NDArray[np.uint8]:
    """Stretch the 16-bit grey of such a PNG where it can be seen, and lay it over black by its 16-bit alpha."""
    pairs = np.ascontiguousarray(np.asarray(ImageOps.exif_transpose(image))).view(">u2")
    grey, alpha = pairs[..., 0], pairs[..., 1]
    shown = stretch_to_8_bit(grey, path, alpha == 0)
    return np.rint(shown * (alpha / 65535.0)).astype(np.uint8)


def _check_size(size: tuple[int, int], path: str) -> None:
    if fault := size_fault(*size, MAX_PIXELS):
        raise BrokenImageError(path, fault)


def _one_line(error: BaseException, content: bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        if content.startswith(_TIFF):
            return _UNKNOWN_TIFF
        return f"it is no {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} file"
    return " ".join(str(error).split())[:200] or type(error).__name__
