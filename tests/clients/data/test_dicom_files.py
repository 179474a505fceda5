"""DICOM files: which are found in folders, which are refused, and in what words."""

import io
import os

import numpy as np
import pytest

from clients.data import BrokenImageError, load_dataset
from clients.data.dicom import decode_dicom
from tests.clients.data.conftest import STORED


def test_what_is_no_single_image_is_refused(make_dicom):
    with pytest.raises(BrokenImageError, match="3 frames"):
        decode_dicom(make_dicom(NumberOfFrames=3), "x.dcm", 10**6)
    with pytest.raises(BrokenImageError, match="limit"):
        decode_dicom(make_dicom(), "x.dcm", 3)
    with pytest.raises(BrokenImageError, match="0 x 2 pixels are no image"):
        decode_dicom(make_dicom(Columns=0), "x.dcm", 10**6)
    with pytest.raises(BrokenImageError, match="one side is more than 100 times the other"):
        decode_dicom(make_dicom(np.zeros((1, 101), np.uint16)), "x.dcm", 10**6)
    with pytest.raises(BrokenImageError, match="not a DICOM"):
        decode_dicom(b"x" * 500, "x.dcm", 10**6)
    with pytest.raises(BrokenImageError):
        decode_dicom(make_dicom()[:-4], "x.dcm", 10**6)


def test_a_file_without_an_image_is_refused(make_dicom):
    import pydicom

    header = pydicom.dcmread(io.BytesIO(make_dicom()))
    del header.PixelData
    buffer = io.BytesIO()
    header.save_as(buffer)
    with pytest.raises(BrokenImageError, match="without an image"):
        decode_dicom(buffer.getvalue(), "x.dcm", 10**6)


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"Rows": None}, "its element Rows is missing, is empty or has several values"),
        ({"Columns": [3, 3]}, "its element Columns is missing, is empty or has several values"),
        ({"PixelData": b""}, "it is a DICOM file without an image"),
        ({"RescaleSlope": ["1", "2"]}, "missing, is empty or has several values where one is expected"),
        ({"BitsStored": None}, "Missing required element"),
    ],
)
def test_what_is_wrong_with_elements_is_told_in_the_files_words(make_dicom, elements, words):
    with pytest.raises(BrokenImageError, match=words) as caught:
        decode_dicom(make_dicom(**elements), "x.dcm", 10**6)
    assert not any(word in str(caught.value) for word in ("object", "len()", "argument"))


def test_a_compression_without_a_decoder_is_named_with_the_step(make_dicom):
    import pydicom

    header = pydicom.dcmread(io.BytesIO(make_dicom()))
    header.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    header["PixelData"].is_undefined_length = True
    installed = "no decoder that is installed reads its {}: it is damaged, or needs pip install 'securefed[dicom]'"
    for syntax, words in (
        (pydicom.uid.JPEGLSLossless, installed),
        (pydicom.uid.JPEG2000Lossless, installed),
        (pydicom.uid.MPEG2MPML, "its {} is not read here; export it uncompressed"),
    ):
        header.file_meta.TransferSyntaxUID = syntax
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, header)
        with pytest.raises(BrokenImageError) as caught:
            decode_dicom(buffer.getvalue(), "x.dcm", 10**6)
        assert caught.value.reason == words.format(syntax.name)


def test_a_folder_may_hold_dicom(make_dicom, make_folder):
    root = make_folder({"a": {"x": 2, "y": 2}})
    (root / "a" / "x" / "scan.dcm").write_bytes(make_dicom())
    (root / "a" / "y" / "scan.DCM").write_bytes(make_dicom(STORED[::-1].copy()))
    dataset, warnings = load_dataset(str(root))
    assert len(dataset.records) == 6
    assert "broken_image" not in {warning.kind for warning in warnings}


def test_dicom_counts_under_any_name_but_that_of_the_index(make_dicom, make_folder):
    root = make_folder({"north": {"benign": 2}, "south": {"malignant": 2}})
    for name in ("IM000001", "1.2.840.113619.2.55", "scan.ima", "DICOMDIR"):
        (root / "north" / "benign" / name).write_bytes(make_dicom())
    (root / "north" / "benign" / "notes.txt").write_bytes(b"x" * 200)
    os.mkfifo(root / "north" / "benign" / "pipe")
    (root / "north" / "benign" / "IM000002").symlink_to(root / "gone")
    (root / "north" / "IM000003").write_bytes(make_dicom())
    (root / "north" / "benign" / "deeper").mkdir()
    (root / "north" / "benign" / "deeper" / "IM000004").write_bytes(make_dicom())
    dataset, warnings = load_dataset(str(root))
    assert [record.path.split("/")[-1] for record in dataset.records if not record.path.endswith(".png")] == [
        "1.2.840.113619.2.55",
        "IM000001",
        "scan.ima",
    ]
    found = {warning.kind: warning.examples for warning in warnings}
    assert found["not_an_image"] == tuple(f"north/benign/{name}" for name in ("DICOMDIR", "notes.txt", "pipe"))
    assert found["missing_file"] == ("north/benign/IM000002",)
    assert found["misplaced_image"] == ("north/IM000003", "north/benign/deeper/IM000004")


def test_damaged_bytes_are_an_image_or_a_named_error(make_dicom):
    content = make_dicom(WindowCenter="100", WindowWidth="101")
    rng = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(content)
        for position in rng.integers(128, len(damaged), 3):
            damaged[position] = rng.integers(0, 256)
        assert "\n" not in complaint(bytes(damaged[: rng.integers(130, len(damaged) + 1)]))


def test_a_damaged_deflated_file_is_a_named_error(make_dicom):
    pydicom = pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
    header = pydicom.dcmread(io.BytesIO(make_dicom(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))))
    header.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, header)
    content = buffer.getvalue()
    flipped = [bytes([*content[:at], content[at] ^ 0x5A, *content[at + 1 :]]) for at in range(300, len(content), 20)]
    assert any("the image cannot be read (Error -3 while decompressing" in complaint(damaged) for damaged in flipped)


def complaint(content):
    try:
        decode_dicom(content, "x.dcm", 10**6)
    except BrokenImageError as error:
        return str(error)
    return ""
