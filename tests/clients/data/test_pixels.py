"""From file bytes to upright 8-bit RGB."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clients.data import BrokenImageError
from clients.data.pixels import MAX_PIXELS, check_image, decode_image

EXIF_ORIENTATION = 0x0112


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def gradient():
    return np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_grey_images_become_three_equal_channels(form):
    image = decode_image(encoded(Image.fromarray(gradient()), form), "x")
    assert image.mode == "RGB"
    for channel in range(3):
        np.testing.assert_array_equal(np.asarray(image)[..., channel], gradient())


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    image = decode_image(encoded(Image.fromarray(pixels), "JPEG", exif=exif, quality=95), "x.jpg")
    assert image.size == (16, 32)
    upright = np.asarray(image)
    assert upright[:12].mean() > 250
    assert upright[20:].mean() < 5


def test_sixteen_bit_grey_keeps_its_shades():
    values = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    image = np.asarray(decode_image(encoded(Image.fromarray(values), "PNG"), "x.png"))[..., 0]
    np.testing.assert_array_equal(image, np.rint(values / 257).astype(np.uint8))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_wide_grey_is_stretched_from_its_darkest_to_its_brightest(dtype):
    values = np.array([[100, 200], [300, 4195]], dtype=dtype)
    image = np.asarray(decode_image(encoded(Image.fromarray(values), "TIFF"), "x.tif"))[..., 0]
    np.testing.assert_array_equal(image, [[0, 6], [12, 255]])


def test_a_flat_wide_image_is_black_and_a_broken_float_is_refused():
    flat = np.full((4, 4), 7000, np.uint16)
    assert not np.asarray(decode_image(encoded(Image.fromarray(flat), "PNG"), "x.png")).any()
    with pytest.raises(BrokenImageError, match="finite"):
        decode_image(encoded(Image.fromarray(np.array([[np.nan, 1]], np.float32)), "TIFF"), "x.tif")


RAMP = np.linspace(0, 4095, 20 * 30).astype(np.uint16).reshape(20, 30)
STRETCHED = np.rint(RAMP / 4095 * 255).astype(np.uint8)


def png(header, raw, extra=b""):
    """A PNG of a header, filtered rows and the content of a chunk tRNS."""
    parts = [b"IHDR" + header, *([b"tRNS" + extra] if extra else []), b"IDAT" + zlib.compress(raw), b"IEND"]
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_16(colour_type, values, extra=b""):
    """A PNG of 16 bits a channel, values uint16[h, w, channels]; every row after the first with the filter `up`."""
    rows = values.astype(">u2").view(np.uint8).reshape(len(values), -1)
    up = np.concatenate([rows[:1], rows[1:] - rows[:-1]])
    raw = b"".join(bytes([2 * (i > 0)]) + row.tobytes() for i, row in enumerate(up))
    return png(struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0), raw, extra)


def tiff(values, photometric, sample_format=1):
    """A little-endian TIFF of one uncompressed strip of grey."""
    height, width = values.shape
    content = values.tobytes()
    bits = values.dtype.itemsize * 8
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, len(content)), (339, 3, sample_format)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(content)) + content + directory + struct.pack("<I", 0)


def shades(content):
    pixels = np.asarray(decode_image(content, "x.png"))
    assert (pixels[..., 0] == pixels[..., 1]).all()
    return pixels[..., 0]


def test_sixteen_bit_grey_with_alpha_keeps_its_shades_and_lies_over_black():
    opaque = np.dstack([RAMP, np.full_like(RAMP, 65535)])
    np.testing.assert_array_equal(shades(png_16(4, opaque)), STRETCHED)
    half = opaque.copy()
    half[:, 15:, 1] = 65535 // 2
    half[0, :, :] = (65535, 0)  # bright, and not to be seen
    half[1, 0] = (0, 65535)
    expected = np.where(np.arange(30) < 15, STRETCHED, np.rint(STRETCHED * (32767 / 65535))).astype(np.uint8)
    expected[0], expected[1, 0] = 0, 0
    np.testing.assert_array_equal(shades(png_16(4, half)), expected)


def test_what_sixteen_bit_grey_calls_transparent_is_black_and_does_not_count():
    values = RAMP.copy()
    values[:5] = 60000
    values[5, 0] = 0
    expected = STRETCHED.copy()
    expected[:5], expected[5, 0] = 0, 0
    np.testing.assert_array_equal(shades(png_16(0, values[..., None], struct.pack(">H", 60000))), expected)


@pytest.mark.parametrize(
    ("bits", "row", "transparent", "expected"),
    [
        (4, b"\xf1\x0f", 15, [0, 17, 0, 0]),
        (4, b"\xf1\x0f", 1, [255, 0, 0, 255]),
        (2, b"\x1b", 3, [0, 85, 170, 0]),
        (2, b"\x1b", 2, [0, 85, 0, 255]),
        (1, b"\xa0", 1, [0, 0, 0, 0]),
    ],
)
def test_what_few_bits_of_grey_call_transparent_is_black(bits, row, transparent, expected):
    content = png(struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0), b"\0" + row, struct.pack(">H", transparent))
    assert shades(content).tolist() == [expected]


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_a_tiff_of_a_kind_that_is_not_read_is_called_one(dtype):
    with pytest.raises(BrokenImageError, match="it is a TIFF that is damaged or of a kind that is not read here"):
        decode_image(tiff(RAMP.astype(dtype), 1, sample_format=3), "x.tif")
    with pytest.raises(BrokenImageError, match="it is no JPEG, PNG, TIFF or BMP file"):
        decode_image(b"MM", "x.tif")


def test_white_may_be_zero_in_sixteen_bits_as_in_eight():
    np.testing.assert_array_equal(shades(tiff(RAMP, 1)), STRETCHED)
    np.testing.assert_array_equal(shades(tiff(RAMP, 0)), 255 - STRETCHED)
    eight = (RAMP // 16).astype(np.uint8)
    np.testing.assert_array_equal(shades(tiff(eight, 0)), 255 - eight)


def test_32_bits_without_a_sign_do_not_wrap():
    values = RAMP.astype(np.uint32) * 2**20
    np.testing.assert_array_equal(shades(tiff(values, 1)), STRETCHED)
    signed = RAMP.astype(np.int32) - 2000
    np.testing.assert_array_equal(shades(tiff(signed, 1, sample_format=2)), STRETCHED)


def test_8_bits_with_a_sign_are_shifted_and_do_not_wrap():
    values = np.array([[-128, -100, -1, 0, 1, 127]], np.int8)
    content = tiff(values, photometric=1, sample_format=2)
    assert shades(content).tolist() == [[0, 28, 127, 128, 129, 255]]


def test_a_transparent_colour_of_16_bits_is_refused_as_only_its_upper_bits_are_read():
    values = np.array([[[1000, 2000, 3000], [1001, 2001, 3001]]])
    with pytest.raises(BrokenImageError, match="save it with an alpha channel, or with 8 bits"):
        decode_image(png_16(2, values, struct.pack(">HHH", 1000, 2000, 3000)), "x.png")
    assert np.asarray(decode_image(png_16(2, values), "x.png"))[0, 0].tolist() == [3, 7, 11]


def test_transparency_is_laid_over_black():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[0, 0, 3] = 255
    image = np.asarray(decode_image(encoded(Image.fromarray(pixels), "PNG"), "x.png"))
    assert image[0, 0].tolist() == [200, 0, 0]
    assert image[1, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "LA", "RGBA"])
def test_every_mode_becomes_rgb(mode):
    image = Image.fromarray(np.dstack([gradient()] * 3)).convert(mode)
    form = "TIFF" if mode == "CMYK" else "PNG"
    assert decode_image(encoded(image, form), "x").mode == "RGB"


def test_a_decompression_bomb_is_an_error_of_a_few_bytes():
    bomb = encoded(Image.new("1", (20000, 20000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(BrokenImageError):
        decode_image(bomb, "x.png")
    with pytest.raises(BrokenImageError):
        check_image(bomb, "x.png")
    under_pillows_limit = encoded(Image.new("1", (MAX_PIXELS // 8000 + 1, 8000)), "PNG")
    with pytest.raises(BrokenImageError, match="limit"):
        decode_image(under_pillows_limit, "x.png")


@pytest.mark.parametrize("read", [decode_image, check_image])
def test_a_side_that_would_be_scaled_to_millions_of_pixels_is_refused(read):
    line = encoded(Image.new("L", (1, 80_000)), "PNG")
    assert len(line) < 300
    with pytest.raises(BrokenImageError, match="of its 1 x 80000 pixels one side is more than 100 times the other"):
        read(line, "x.png")
    read(encoded(Image.new("L", (300, 3)), "PNG"), "x.png")


def test_formats_that_were_not_asked_for_are_not_tried():
    for content in (encoded(Image.fromarray(gradient()), "GIF"), b"x", b""):
        with pytest.raises(BrokenImageError, match=r"x\.png: .*\(it is no JPEG, PNG, TIFF or BMP file\)"):
            decode_image(content, "x.png")


SAMPLES = {
    form: encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)), form)
    for form in ("PNG", "JPEG", "TIFF", "BMP")
}


def complaint(function, content):
    try:
        function(content, "x")
    except BrokenImageError as error:
        return str(error)
    return ""


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_damaged_bytes_are_an_image_or_a_named_error(form, data):
    content = bytearray(SAMPLES[form])
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    damaged = bytes(content[: data.draw(st.integers(0, len(content)))])
    for function in (decode_image, check_image):
        assert "\n" not in complaint(function, damaged)


@pytest.mark.parametrize("form", sorted(SAMPLES))
def test_what_passes_the_check_is_decodable(form):
    check_image(SAMPLES[form], "x")
    assert decode_image(SAMPLES[form], "x").size == (20, 20)
