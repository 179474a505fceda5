"""A data set as the rest of a hospital's code sees it: records, and a way to get their pixels."""

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from PIL import Image

SPLITS = ("train", "val", "test")
"""Names of the splits, in this order everywhere."""


@dataclass(frozen=True)
class Record:
    """One labelled image.

    Attributes:
        path: Where it is, relative to the root of the data set, with forward slashes (an absolute path of a manifest
            stays as given; an image inside an array file is `<split>/<index>`).
        site: Hospital that it belongs to.
        label: Name of its class.
        patient: Patient (or lesion) it shows, None where the source does not say.
        split: One of SPLITS.
        digest: SHA-256 (hex) of its content: the bytes of its file, or of its array with shape and type.
    """

    path: str
    site: str
    label: str
    patient: str | None
    split: str
    digest: str


class ImageSource(Protocol):
    """Where the pixels of records come from; picklable, so that worker processes can decode."""

    def load(self, path: str) -> Image.Image:
        """Return the image of a record as 8-bit RGB, upright; raises BrokenImageError."""
        ...


@dataclass(frozen=True)
class ImageDataset:
    """Labelled images of several hospitals.

    Attributes:
        name: Short name, from the source.
        root: Folder (or file) the paths of the records are relative to.
        records: All images, sorted by path.
        classes: Sorted union of the classes over all sites; a label's index in it is its number.
        source: Decodes the images.
        global_site: Site that is held out of training; all its records are test records. None for none.
    """

    name: str
    root: Path
    records: tuple[Record, ...]
    classes: tuple[str, ...]
    source: ImageSource = field(compare=False, repr=False)
    global_site: str | None = None

    @cached_property
    def all_sites(self) -> tuple[str, ...]:
        """Sorted names of the sites, the held-out one included."""
        return tuple(sorted({record.site for record in self.records}))

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Sorted names of the sites that train."""
        return tuple(site for site in self.all_sites if site != self.global_site)

    @cached_property
    def class_index(self) -> dict[str, int]:
        """Number of each class."""
        return {label: index for index, label in enumerate(self.classes)}

    def load(self, index: int) -> Image.Image:
        """Return image number `index` as 8-bit RGB, upright; raises BrokenImageError."""
        return self.source.load(self.records[index].path)

    def select(self, site: str | None = None, split: str | None = None) -> tuple[Record, ...]:
        """Return the records of a site and of a split; None stands for all of them."""
        return tuple(
            record
            for record in self.records
            if (site is None or record.site == site) and (split is None or record.split == split)
        )

    def class_counts(self, site: str | None = None, split: str | None = None) -> dict[str, int]:
        """Return the number of images of every class, absent ones as 0, in the order of `classes`."""
        counts = Counter(record.label for record in self.select(site, split))
        return {label: counts[label] for label in self.classes}

    def without(self, digests: frozenset[str]) -> "ImageDataset":
        """Return the data set without the records of these content digests; the class list stays."""
        return replace(self, records=tuple(record for record in self.records if record.digest not in digests))
