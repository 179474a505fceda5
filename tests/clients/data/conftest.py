"""Small folders of images, drawn in the test."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

STORED = np.array([[0, 100, 200], [300, 400, 1000]], dtype=np.uint16)
"""Of a DICOM file that is told no other pixels."""


def picture(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """Return random pixels: no two seeds give the same file."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def draw() -> Callable[..., Image.Image]:
    return picture


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write `{site: {class: number}}` images as PNG and return the root."""

    def make(layout: Mapping[str, Mapping[str, int]], name: str = "cohort") -> Path:
        root = tmp_path / name
        seed = 0
        for site, classes in layout.items():
            for label, count in classes.items():
                (root / site / label).mkdir(parents=True)
                for index in range(count):
                    picture(seed).save(root / site / label / f"{index:03d}.png")
                    seed += 1
        return root

    return make


@pytest.fixture
def write_csv() -> Callable[..., Path]:
    """Write a header and rows as CSV."""

    def write(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> Path:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)
        return path

    return write


@pytest.fixture
def make_dicom() -> Callable[..., bytes]:
    """Write a single-frame file of pixels, with elements as they are called in pydicom."""
    pydicom = pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    def build(
        pixels=STORED, photometric="MONOCHROME2", bits=16, signed=False, syntax=ExplicitVRLittleEndian, **elements
    ):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = syntax
        header = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
        header.SOPClassUID = SecondaryCaptureImageStorage
        header.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        header.Rows, header.Columns = pixels.shape[:2]
        header.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
        if pixels.ndim == 3:
            header.PlanarConfiguration = 0
        header.PhotometricInterpretation = photometric
        header.BitsAllocated = pixels.dtype.itemsize * 8
        header.BitsStored = bits
        header.HighBit = bits - 1
        header.PixelRepresentation = int(signed)
        header.PixelData = pixels.tobytes() + (b"\0" if pixels.nbytes % 2 else b"")
        for name, value in elements.items():
            setattr(header, name, value)
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, header)
        return buffer.getvalue()

    return build
