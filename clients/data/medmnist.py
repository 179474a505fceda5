"""MedMNIST files: arrays `train_images`, `train_labels`, and the same for val and test, in one .npz."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clients.data.arrays import read_npz
from clients.data.dataset import SPLITS, Record
from clients.data.errors import BrokenImageError, EmptyDataError, SourceFormatError
from clients.data.files import REPLACED
from clients.data.findings import DataWarning, finding
from clients.data.fingerprint import array_digest
from clients.data.options import DataOptions
from clients.data.pixels import MAX_PIXELS
from clients.data.rows import check_site_name, composed
from clients.data.size import size_fault

_ORGANS = (
    "bladder", "femur left", "femur right", "heart", "kidney left", "kidney right", "liver", "lung left",
    "lung right", "pancreas", "spleen",
)  # fmt: skip

KNOWN_CLASSES: dict[str, tuple[str, ...]] = {
    "bloodmnist": (
        "basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte", "monocyte", "neutrophil",
        "platelet",
    ),
    "breastmnist": ("malignant", "normal or benign"),
    "dermamnist": (
        "actinic keratosis and intraepithelial carcinoma", "basal cell carcinoma", "benign keratosis-like lesion",
        "dermatofibroma", "melanoma", "melanocytic nevus", "vascular lesion",
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal retina"),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
    "pathmnist": (
        "adipose tissue", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
        "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
    ),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": tuple(f"diabetic retinopathy of grade {grade}" for grade in range(5)),
    "tissuemnist": (
        "collecting duct or connecting tubule", "distal convoluted tubule", "glomerular endothelial cells",
        "interstitial endothelial cells", "leukocytes", "podocytes", "proximal tubule segments",
        "thick ascending limb",
    ),
}  # fmt: skip
"""Classes 0, 1, ... of the single-label 2-D sets by the start of the file's name, in words a text encoder can use.

Source: the tables of MedMNIST v2 (Yang et al., Sci. Data 10:41, 2023, doi:10.1038/s41597-022-01721-8).
"""


MOST_UNNAMED = 1000
"""Classes that may go without names: above, labels are taken for something else, such as identifiers."""


class ArrayImages:
    """Images inside a MedMNIST file; read when first needed, in every process for itself.

    Args:
        path: The .npz file, as it is now: images of a file that takes its place later are refused.

    Raises:
        OSError: The file is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = _state(path)
        self._arrays: dict[str, NDArray[Any]] = {}

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_state": self._state, "_arrays": {}}

    def load(self, path: str) -> Image.Image:
        """Return the image `<split>/<index>` as 8-bit RGB; raises BrokenImageError where there is none."""
        split, _, number = path.partition("/")
        if split not in SPLITS or not number.isdigit():
            raise BrokenImageError(path, "images of this file are called <split>/<index>")
        if split not in self._arrays:
            images = _read(self.path).get(f"{split}_images", np.empty((0, 1, 1), np.uint8))
            if _state(self.path) != self._state:
                raise BrokenImageError(path, REPLACED)
            self._arrays[split] = images
        images = self._arrays[split]
        if int(number) >= len(images):
            raise BrokenImageError(path, f"the split has {len(images)} images")
        return Image.fromarray(images[int(number)]).convert("RGB")


def read_medmnist(path: Path, options: DataOptions) -> tuple[tuple[Record, ...], ArrayImages, tuple[DataWarning, ...]]:
    """List the images of a MedMNIST file: one site, named after the file, with the file's own splits.

    Raises:
        SourceFormatError: It is not such a file, has 3-D images, images of a size that is not read or several labels
            an image, or the options name too few classes.
        EmptyDataError: It has no image.
        SiteError: The file's name cannot be that of a site.
    """
    check_site_name(path.stem)
    source = ArrayImages(path)
    arrays = _read(path)
    counts: dict[str, NDArray[np.int64]] = {}
    for split in SPLITS:
        if f"{split}_images" in arrays or f"{split}_labels" in arrays:
            counts[split] = _labels(path, split, arrays)
    if not counts:
        raise SourceFormatError(path, "has no train_images and train_labels; a MedMNIST file is expected")
    if not any(len(labels) for labels in counts.values()):
        raise EmptyDataError(path, "has no image")
    highest = max(int(labels.max()) for labels in counts.values() if len(labels))
    names, findings = _class_names(path, highest, sum(map(len, counts.values())), options)
    records = [
        Record(f"{split}/{index:06d}", composed(path.stem), names[label], None, split, array_digest(image))
        for split, labels in counts.items()
        for index, (image, label) in enumerate(zip(arrays[f"{split}_images"], labels, strict=True))
    ]
    return tuple(sorted(records, key=lambda record: record.path)), source, findings


def _state(path: Path) -> tuple[int, int, int]:
    """Return what changes when another file takes the place of one: inode, size and time."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: Path) -> dict[str, NDArray[Any]]:
    return read_npz(path, lambda name: name.endswith(("_images", "_labels")))


def _labels(path: Path, split: str, arrays: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    images, labels = arrays.get(f"{split}_images"), arrays.get(f"{split}_labels")
    if images is None or labels is None:
        raise SourceFormatError(path, f"has only one of {split}_images and {split}_labels")
    if images.dtype != np.uint8:
        raise SourceFormatError(path, f"{split}_images has type {images.dtype}; uint8 is expected")
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
        raise SourceFormatError(
            path,
            f"{split}_images has shape {images.shape}; [N, H, W] or [N, H, W, 3] is expected (3-D sets are not read)",
        )
    fault = size_fault(images.shape[2], images.shape[1], MAX_PIXELS) if len(images) else ""
    if fault:
        raise SourceFormatError(path, f"{split}_images cannot be read: {fault}")
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise SourceFormatError(path, f"has {labels.shape[1]} labels an image; only one is supported")
    flat = labels.reshape(-1)
    if not np.issubdtype(flat.dtype, np.integer) or (flat.size and not 0 <= int(flat.min()) <= int(flat.max()) < 2**63):
        raise SourceFormatError(path, f"{split}_labels must be integers from 0")
    if len(flat) != len(images):
        raise SourceFormatError(path, f"has {len(images)} {split}_images and {len(flat)} {split}_labels")
    return flat.astype(np.int64)


def _class_names(
    path: Path, highest: int, images: int, options: DataOptions
) -> tuple[tuple[str, ...], tuple[DataWarning, ...]]:
    known = options.class_names or KNOWN_CLASSES.get(path.stem.lower().partition("_")[0], ())
    if options.class_names and highest >= len(known):
        raise SourceFormatError(path, f"has {highest + 1} classes, but {len(known)} class names are given")
    if highest < len(known):
        return tuple(map(composed, known)), ()
    if highest >= min(images, MOST_UNNAMED):
        raise SourceFormatError(
            path,
            f"has {images} images and a label {highest}; labels must number the classes from 0 (with more than "
            f"{MOST_UNNAMED} of them, or few images, name them all in class_names)",
        )
    names = tuple(f"class {index:0{len(str(highest))}d}" for index in range(highest + 1))
    text = f"the {len(names)} classes have no names, so prompts cannot describe them; give their names in class_names"
    return names, (finding("unnamed_classes", names, text),)
