"""Names for content: of one image, and of a data set."""

import hashlib
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.data.dataset import ImageDataset

_LABEL = b"securefed/data/v1"
_PATIENTS = b"securefed/patients/v1"


def content_digest(content: bytes) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    return hashlib.sha256(content).hexdigest()


def array_digest(image: NDArray[Any]) -> str:
    """Return the SHA-256 (hex) of an array's type, shape and elements (C order)."""
    head = f"{image.dtype.str}{image.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(image).tobytes()).hexdigest()


def fingerprint(dataset: ImageDataset, site: str | None = None) -> str:
    """Return the SHA-256 (hex) that names a data set by what is in it.

    It changes with the content, label, site or split of any image, and with the number of copies of one. It does not
    change with the order of files, their names, or the folder they lie in.

    Args:
        dataset: The data set.
        site: Take only this site's images; None takes all.

    Format: SHA-256 over the label `securefed/data/v1` and, in sorted order, one entry an image: content digest,
    label, site and split, each as its length in bytes (8 bytes, big endian) and its UTF-8 bytes.
    """
    entries = sorted((record.digest, record.label, record.site, record.split) for record in dataset.select(site))
    texts = (text.encode() for entry in entries for text in entry)
    return hashlib.sha256(_LABEL + b"".join(len(text).to_bytes(8, "big") + text for text in texts)).hexdigest()


def patient_grouping(dataset: ImageDataset) -> str:
    """Return the SHA-256 (hex) that names which training images show the same patient.

    It changes where a patient's images are told apart, or those of two are taken together. It does not change with the
    names of patients, nor with the order of files, their names, or the folder they lie in.

    Args:
        dataset: The data set. An image without a patient is a group of its own.

    Format: SHA-256 over the label `securefed/patients/v1` and, in sorted order, one entry a patient of a site: number
    of images (8 bytes, big endian) and, in sorted order, content digest, label and site of each, each as its length in
    bytes (8 bytes, big endian) and its UTF-8 bytes.
    """
    groups = defaultdict(list)
    for index, record in enumerate(dataset.records):
        if record.split == "train":
            whose = (record.site, index if record.patient is None else record.patient)
            groups[whose].append((record.digest, record.label, record.site))
    taken = hashlib.sha256(_PATIENTS)
    for group in sorted(sorted(entries) for entries in groups.values()):
        texts = [text.encode() for entry in group for text in entry]
        taken.update(len(group).to_bytes(8, "big"))
        taken.update(b"".join(len(text).to_bytes(8, "big") + text for text in texts))
    return taken.hexdigest()
