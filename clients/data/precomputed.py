"""A data set made of a file of features alone, for hospitals that keep no images here."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from clients.data.dataset import Record
from clients.data.errors import BrokenImageError, SourceFormatError
from clients.data.feature_table import FeatureTable, read_feature_table
from clients.data.files import assign_splits
from clients.data.findings import DataWarning
from clients.data.manifest import read_patient
from clients.data.options import DataOptions
from clients.data.rows import Row, check_site_name


@dataclass(frozen=True)
class NoImages:
    """Stands where images would be loaded from; `path` is the file of features."""

    path: Path

    def load(self, path: str) -> Image.Image:
        """Refuse: there are features and no images. Raises BrokenImageError."""
        raise BrokenImageError(path, f"{self.path} has features and no images")


def read_precomputed(path: Path, options: DataOptions) -> tuple[tuple[Record, ...], tuple[DataWarning, ...]]:
    """List the images of a file of features, with the labels, sites and splits in it.

    Raises:
        SourceFormatError: The file cannot be used, lacks labels or sites, or has a patient that read_patient refuses.
        SiteError: A site's name cannot be used.
    """
    table = read_feature_table(path)
    if table.labels is None or not table.sites:
        raise SourceFormatError(path, "has no labels or no sites, so it is no data set; name the images with --data")
    for site in sorted(set(table.sites)):
        check_site_name(site)
    names = row_names(table)
    patients = read_patient(path, table.patients) if table.patients else [None] * len(table)
    rows = [
        Row(
            names[i],
            table.sites[i],
            table.classes[int(table.labels[i])],
            patients[i],
            (table.splits[i] or None) if table.splits else None,
        )
        for i in range(len(table))
    ]
    digests = dict(zip(names, row_digests(table), strict=True))
    return assign_splits(sorted(rows, key=lambda row: row.path), digests, options)


def row_names(table: FeatureTable) -> tuple[str, ...]:
    """Return a name for every row: its path, or its position where the file has no paths."""
    return table.paths or tuple(f"row/{i:08d}" for i in range(len(table)))


def row_digests(table: FeatureTable) -> tuple[str, ...]:
    """Return what stands for the content of every image: its digest, or else that of its features (hex)."""
    return table.digests or tuple(hashlib.sha256(row.astype("<f4").tobytes()).hexdigest() for row in table.features)
