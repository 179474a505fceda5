"""What a data set contains, for people and for programs."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clients.data.dataset import SPLITS, ImageDataset
from clients.data.errors import BrokenImageError
from clients.data.findings import DataWarning, commonest, finding
from clients.data.fingerprint import fingerprint
from clients.data.precomputed import NoImages


@dataclass(frozen=True)
class SiteReport:
    """What a site contributes.

    Attributes:
        site: Its name.
        held_out: Whether it is the held-out global site.
        images: Number of images.
        patients: Number of patients; None where the source does not say.
        counts: {split: {class: images}}, with every split and every class.
        fingerprint: clients.data.fingerprint of this site's images.
    """

    site: str
    held_out: bool
    images: int
    patients: int | None
    counts: dict[str, dict[str, int]]
    fingerprint: str

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "site": self.site,
            "held_out": self.held_out,
            "images": self.images,
            "patients": self.patients,
            "counts": self.counts,
            "fingerprint": self.fingerprint,
        }


@dataclass(frozen=True)
class DataReport:
    """What a data set contains.

    Attributes:
        name: Name of the data set.
        fingerprint: clients.data.fingerprint of all of it.
        images: Number of images.
        classes: Names of the classes.
        sites: One report a site, sorted by name.
        image_sizes: {"WIDTHxHEIGHT": images}, the most frequent first, as decoded; empty where there are only features.
        warnings: All findings; `broken_image` among them counts images that could not be decoded to the end.
    """

    name: str
    fingerprint: str
    images: int
    classes: tuple[str, ...]
    sites: tuple[SiteReport, ...]
    image_sizes: dict[str, int]
    warnings: tuple[DataWarning, ...]

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "images": self.images,
            "classes": list(self.classes),
            "sites": [site.to_dict() for site in self.sites],
            "image_sizes": self.image_sizes,
            "warnings": [warning.to_dict() for warning in self.warnings],
        }


def inspect(
    dataset: ImageDataset,
    warnings: Sequence[DataWarning] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Decode every image, if there are any, and count what a run would have: all but those that cannot be decoded.

    Args:
        dataset: The data set.
        warnings: What loading it found.
        on_progress: Called with the number of images decoded and their total.
    """
    sizes: Counter[str] = Counter()
    broken: dict[str, str] = {}
    digests: set[str] = set()
    records = () if isinstance(dataset.source, NoImages) else dataset.records
    for index, record in enumerate(records):
        try:
            image = dataset.load(index)
        except BrokenImageError as error:
            broken[record.path] = error.reason
            digests.add(record.digest)
        else:
            sizes[f"{image.width}x{image.height}"] += 1
        if on_progress is not None:
            on_progress(index + 1, len(records))
    found = list(warnings)
    if broken:
        text = f"{len(broken)} images cannot be decoded and are left out; repair or remove them"
        found.append(finding("broken_image", broken, text, detail=commonest(broken)))
    kept = dataset.without(frozenset(digests))
    return DataReport(
        name=dataset.name,
        fingerprint=fingerprint(kept),
        images=len(kept.records),
        classes=dataset.classes,
        sites=tuple(_site_report(kept, site) for site in dataset.all_sites),
        image_sizes=dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0]))),
        warnings=tuple(found),
    )


def _site_report(dataset: ImageDataset, site: str) -> SiteReport:
    records = dataset.select(site)
    patients = {record.patient for record in records if record.patient is not None}
    return SiteReport(
        site=site,
        held_out=site == dataset.global_site,
        images=len(records),
        patients=len(patients) or None,
        counts={split: dataset.class_counts(site, split) for split in SPLITS},
        fingerprint=fingerprint(dataset, site),
    )
