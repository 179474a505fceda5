"""Single-frame DICOM images."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from clients.data import BrokenImageError, MissingDependencyError
from clients.data.dicom import decode_dicom
from tests.clients.data.conftest import STORED


def without_pydicom(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)


def test_without_the_extra_the_error_names_it(monkeypatch):
    without_pydicom(monkeypatch)
    with pytest.raises(MissingDependencyError, match=r"pip install 'securefed\[dicom\]'"):
        decode_dicom(b"", "x.dcm", 10**6)


def test_nothing_else_imports_pydicom():
    code = "import sys, clients.data; sys.exit('pydicom' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def make(make_dicom):
    return make_dicom


def grey(content):
    image = decode_dicom(content, "x.dcm", 10**6)
    assert image.mode == "RGB"
    pixels = np.asarray(image)
    assert (pixels[..., 0] == pixels[..., 1]).all()
    return pixels[..., 0]


def test_without_a_window_the_values_are_stretched(make):
    np.testing.assert_array_equal(grey(make()), [[0, 26, 51], [76, 102, 255]])


def test_padding_does_not_count_as_darkest(make):
    signed = np.array([[-2000, 0, 100]], np.int16)
    content = make(signed, signed=True, PixelPaddingValue=-2000)
    np.testing.assert_array_equal(grey(content), [[0, 0, 255]])


def test_a_range_of_padding_does_not_count(make):
    stored = np.array([[60000, 60005, 60010, 0, 100]], np.uint16)
    for value, limit in ((60000, 60010), (60010, 60000)):
        content = make(
            stored, PixelPaddingValue=value, PixelPaddingRangeLimit=limit, RescaleSlope="2", RescaleIntercept="-7"
        )
        np.testing.assert_array_equal(grey(content), [[255, 255, 255, 0, 255]])


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")  # said while the file is made
@pytest.mark.parametrize(("centre", "width"), [("nan", "100"), ("10", "inf"), ("10", "nan"), ("inf", "100")])
def test_a_window_that_is_not_finite_is_none(make, centre, width):
    np.testing.assert_array_equal(grey(make(WindowCenter=centre, WindowWidth=width)), grey(make()))


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")  # said while the file is made
def test_values_that_are_not_finite_are_refused_with_a_window_too(make):
    window = {"WindowCenter": "10", "WindowWidth": "100"}
    for content in (
        make(RescaleSlope="nan", RescaleIntercept="0"),
        make(RescaleSlope="nan", RescaleIntercept="0", **window),
    ):
        with pytest.raises(BrokenImageError, match="values that are not finite"):
            decode_dicom(content, "x.dcm", 10**6)


def test_a_window_is_applied_after_the_rescale(make):
    # PS3.3 C.11.2.1.2.1: with centre 0 and width 101, what is at most -50.5 is black and what is above 49.5 is white.
    content = make(RescaleSlope="0.5", RescaleIntercept="-100", WindowCenter="0", WindowWidth="101")
    values = STORED * 0.5 - 100
    expected = np.rint(np.clip((values + 50.5) / 100 * 255, 0, 255))
    np.testing.assert_array_equal(grey(content), expected)


def test_the_first_of_several_windows_counts(make):
    both = make(WindowCenter=["100", "5000"], WindowWidth=["101", "10"])
    np.testing.assert_array_equal(grey(both), grey(make(WindowCenter="100", WindowWidth="101")))


def test_the_exact_and_the_sigmoid_function(make):
    exact = make(WindowCenter="250", WindowWidth="500", VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_array_equal(grey(exact), np.rint(np.clip(STORED * 0.51, 0, 255)))
    sigmoid = make(WindowCenter="200", WindowWidth="400", VOILUTFunction="SIGMOID")
    np.testing.assert_array_equal(grey(sigmoid), np.rint(255 / (1 + np.exp(-4 * (STORED - 200.0) / 400))))


def test_windows_below_one_are_those_of_the_exact_and_the_sigmoid_function(make):
    scaled = {"RescaleSlope": "0.0005", "RescaleIntercept": "0", "WindowCenter": "0.125", "WindowWidth": "0.25"}
    exact = make(**scaled, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_array_equal(grey(exact), np.rint(np.clip(STORED * 0.51, 0, 255)))
    sigmoid = make(**scaled, VOILUTFunction="SIGMOID")
    np.testing.assert_array_equal(grey(sigmoid), np.rint(255 / (1 + np.exp(-16 * (STORED * 0.0005 - 0.125)))))
    np.testing.assert_array_equal(grey(make(**scaled)), grey(make()))
    for function in ("LINEAR_EXACT", "SIGMOID"):
        none = make(WindowCenter="0", WindowWidth="0", VOILUTFunction=function)
        np.testing.assert_array_equal(grey(none), grey(make()))


def test_a_width_of_one_is_a_threshold(make):
    content = make(WindowCenter="200", WindowWidth="1")
    np.testing.assert_array_equal(grey(content), np.where(STORED > 199.5, 255, 0))


def table(entries, first, bits, data, vr="US", data_vr="OW"):
    from pydicom.dataset import Dataset

    item = Dataset()
    item.add_new("LUTDescriptor", vr, [entries, first, bits])
    item.add_new("LUTData", data_vr, data)
    return item


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("slope", [None, "0.5"])
def test_a_voi_lookup_table_is_applied_up_to_its_ends(make, bits, slope):
    white = 2**bits - 1
    entries = np.array([round(white * (at / 699) ** 2) for at in range(700)], np.uint16)
    rescale = {} if slope is None else {"RescaleSlope": slope, "RescaleIntercept": "0"}
    expected = []
    for value in STORED.ravel() * float(slope or 1):
        at = min(max(int(value) - 150, 0), 699)
        expected.append(round(int(entries[at]) / white * 255))
    packings = [entries.tobytes()] if bits > 8 else [entries.tobytes(), entries.astype(np.uint8).tobytes()]
    for data in packings:
        content = make(VOILUTSequence=[table(700, 150, bits, data)], **rescale)
        np.testing.assert_array_equal(grey(content).ravel(), expected)


def test_entries_of_8_bits_may_be_odd_in_number_and_called_us(make):
    stored = np.array([[0, 1, 2, 3]], np.uint16)
    for item in (table(3, 0, 8, b"\x0a\x14\x1e\x00"), table(3, 0, 8, [0x140A, 0x001E], data_vr="US")):
        np.testing.assert_array_equal(grey(make(stored, VOILUTSequence=[item])), [[10, 20, 30, 30]])


def test_a_table_has_the_byte_order_of_its_file(make):
    from pydicom.uid import ExplicitVRBigEndian

    entries = np.arange(0, 8000, 1000)
    little = make(np.array([[0, 3, 7]], "<u2"), VOILUTSequence=[table(8, 0, 13, entries.astype("<u2").tobytes())])
    items = [table(8, 0, 13, entries.astype(">u2").tobytes())]
    big = make(np.array([[0, 3, 7]], ">u2"), syntax=ExplicitVRBigEndian, VOILUTSequence=items)
    np.testing.assert_array_equal(grey(big), [[0, 93, 218]])
    np.testing.assert_array_equal(grey(little), grey(big))


def test_a_table_of_65536_entries_says_0(make):
    item = table(0, 0, 16, np.arange(2**16, dtype=np.uint16)[::-1].tobytes())
    np.testing.assert_array_equal(
        grey(make(np.array([[0, 2**15, 2**16 - 1]], np.uint16), VOILUTSequence=[item])), [[255, 127, 0]]
    )


@pytest.mark.parametrize(("vr", "first"), [("SS", -1000), ("US", 64536)])
def test_the_first_value_of_a_table_has_a_sign_where_the_values_can_have_one(make, vr, first):
    item = table(2001, first, 16, np.linspace(0, 65535, 2001).astype(np.uint16).tobytes(), vr)
    signed = make(np.array([[-1000, 0, 500, 3000]], np.int16), signed=True, VOILUTSequence=[item])
    np.testing.assert_array_equal(grey(signed), [[0, 127, 191, 255]])
    rescaled = {"RescaleSlope": "1", "RescaleIntercept": "-1000"}
    stored = np.array([[1000, 1500, 4000]], np.uint16)  # no value of this image is negative, but others could be
    np.testing.assert_array_equal(grey(make(stored, VOILUTSequence=[item], **rescaled)), [[127, 191, 255]])


def test_the_first_value_of_a_table_has_no_sign_where_no_value_has_one(make):
    item = table(1000, 64536, 16, np.linspace(0, 65535, 1000).astype(np.uint16).tobytes())
    stored = np.array([[0, 64536, 65535]], np.uint16)
    np.testing.assert_array_equal(grey(make(stored, VOILUTSequence=[item])), [[0, 0, 255]])
    called_signed = table(1000, 64536 - 2**16, 16, np.linspace(0, 65535, 1000).astype(np.uint16).tobytes(), "SS")
    np.testing.assert_array_equal(grey(make(stored, VOILUTSequence=[called_signed])), [[0, 0, 255]])


def test_a_modality_table_of_8_bits_may_be_packed(make):
    item = table(4, 100, 8, bytes([10, 20, 40, 80]))
    content = make(np.array([[0, 101, 102, 1000]], np.uint16), ModalityLUTSequence=[item])
    np.testing.assert_array_equal(grey(content), [[0, 36, 109, 255]])


def test_a_table_that_is_not_what_it_says_is_refused(make):
    for item, words in (
        (table(9, 0, 12, b"\0" * 8), "has 4 entries and says 9"),
        (
            table(4, 0, 8, np.arange(4, dtype=np.uint16).tobytes()[:-2] + b"\0\1"),
            "says 8 bits, and has entries of more",
        ),
        (table(1, 0, 8, b"\x0a\x14"), "says 8 bits, and has entries of more"),
        (table(4, 0, 0, b"\0" * 8), "says 0 bits"),
        (table(4, 0, 17, b"\0" * 8), "says 17 bits"),
    ):
        with pytest.raises(BrokenImageError, match=words):
            decode_dicom(make(VOILUTSequence=[item]), "x.dcm", 10**6)


@pytest.mark.parametrize("where", ["frame", "shared", "both"])
def test_rescale_and_window_of_functional_groups_count(make, where):
    from pydicom.dataset import Dataset

    def groups(intercept, centre):
        values, window, macros = Dataset(), Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = "0.5", intercept, "HU"
        window.WindowCenter, window.WindowWidth = centre, "101"
        macros.PixelValueTransformationSequence, macros.FrameVOILUTSequence = [values], [window]
        return [macros]

    right, other = groups("-100", "0"), groups("5", "300")
    shared = {"frame": [Dataset()], "shared": right, "both": other}[where]
    frame = [Dataset()] if where == "shared" else right
    content = make(NumberOfFrames=1, SharedFunctionalGroupsSequence=shared, PerFrameFunctionalGroupsSequence=frame)
    plain = make(RescaleSlope="0.5", RescaleIntercept="-100", WindowCenter="0", WindowWidth="101")
    assert len(np.unique(grey(plain))) > 2
    np.testing.assert_array_equal(grey(content), grey(plain))


def test_a_slope_or_an_intercept_alone_counts_and_an_empty_one_is_none(make):
    window = {"WindowCenter": "200", "WindowWidth": "301"}
    both = make(RescaleSlope="2", RescaleIntercept="0", **window)
    np.testing.assert_array_equal(grey(make(RescaleSlope="2", **window)), grey(both))
    np.testing.assert_array_equal(grey(make(RescaleSlope="2", RescaleIntercept="", **window)), grey(both))
    both = make(RescaleSlope="1", RescaleIntercept="-50", **window)
    np.testing.assert_array_equal(grey(make(RescaleIntercept="-50", **window)), grey(both))
    np.testing.assert_array_equal(grey(make(RescaleSlope="", RescaleIntercept="", **window)), grey(make(**window)))


def test_padding_may_be_written_with_the_other_sign(make):
    stored = np.array([[-2000, 0, 100]], np.int16)
    content = make(stored, signed=True, PixelPaddingValue=-2000)
    assert content.count(b"\x28\0\x20\1SS") == 1
    content = content.replace(b"\x28\0\x20\1SS", b"\x28\0\x20\1US")
    np.testing.assert_array_equal(grey(content), [[0, 0, 255]])
    fewer = make(stored, signed=True, bits=12, PixelPaddingValue=-2000)  # the value has all bits that are allocated
    np.testing.assert_array_equal(grey(fewer.replace(b"\x28\0\x20\1SS", b"\x28\0\x20\1US")), [[0, 0, 255]])
    content = make(stored.view(np.uint16), PixelPaddingValue=63536).replace(b"\x28\0\x20\1US", b"\x28\0\x20\1SS")
    np.testing.assert_array_equal(grey(content), [[255, 0, 255]])


def test_what_a_file_contradicts_itself_about_is_refused(make):
    with pytest.raises(BrokenImageError, match=r"its 12 bits are not the lowest ones \(HighBit 15\)"):
        decode_dicom(make(bits=12, HighBit=15), "x.dcm", 10**6)
    with pytest.raises(BrokenImageError, match="its RescaleSlope is 0, which makes all values the same"):
        decode_dicom(make(RescaleSlope="0", RescaleIntercept="7"), "x.dcm", 10**6)


def test_where_the_bits_of_a_compressed_image_lie_its_codec_knows(make):
    import pydicom

    header = pydicom.dcmread(io.BytesIO(make(bits=12)))
    header.compress(pydicom.uid.RLELossless)
    header.HighBit = 15
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, header)
    np.testing.assert_array_equal(grey(buffer.getvalue()), grey(make(bits=12)))


def test_monochrome1_is_inverted(make):
    np.testing.assert_array_equal(grey(make(photometric="MONOCHROME1")), 255 - grey(make()))
    windowed = {"WindowCenter": "200", "WindowWidth": "300"}
    np.testing.assert_array_equal(grey(make(photometric="MONOCHROME1", **windowed)), 255 - grey(make(**windowed)))


def test_colour_is_kept(make):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    image = decode_dicom(make(pixels, "RGB", bits=8), "x.dcm", 10**6)
    np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("photometric", ["HSV", "YBR_PARTIAL_420", "YBR_RCT", "MONOCHROME2"])
def test_colours_that_would_be_shown_as_others_are_refused(make, photometric):
    content = make(np.zeros((4, 6, 3), np.uint8), photometric, bits=8)
    with pytest.raises(BrokenImageError, match=f"its colours are {photometric}, which is not read here; export it as"):
        decode_dicom(content, "x.dcm", 10**6)


def test_luminance_and_chrominance_become_rgb(make):
    grey_and_red = np.array([[[100, 128, 128], [76, 85, 255]]], np.uint8)
    image = decode_dicom(make(grey_and_red, "YBR_FULL", bits=8), "x.dcm", 10**6)
    np.testing.assert_allclose(np.asarray(image)[0], [[100, 100, 100], [254, 0, 0]], atol=1)


def test_the_codec_of_jpeg_2000_undoes_its_own_colours(make):
    import pydicom

    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG2000", irreversible=False, mct=1, no_jp2=True)
    header = pydicom.dcmread(io.BytesIO(make(pixels, "YBR_RCT", bits=8)))
    header.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    header.PixelData = pydicom.encaps.encapsulate([encoded.getvalue()])
    header["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, header)
    np.testing.assert_array_equal(np.asarray(decode_dicom(buffer.getvalue(), "x.dcm", 10**6)), pixels)
