"""From a source of data, as a user names it, to a data set."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from clients.data.checks import check_dataset
from clients.data.dataset import ImageDataset, Record
from clients.data.errors import (
    EmptyDataError,
    FindingError,
    OneClassError,
    SiteError,
    SourceFormatError,
    SourceNotFoundError,
)
from clients.data.files import FileImages, read_records
from clients.data.findings import DataWarning, commonest
from clients.data.folder import read_folder
from clients.data.manifest import read_manifest
from clients.data.medmnist import read_medmnist
from clients.data.options import DataOptions
from clients.data.precomputed import NoImages, read_precomputed
from clients.data.rows import Row, composed, unrecordable
from clients.data.table import TABLE_SUFFIXES

STRICT_KINDS = frozenset(
    {
        "broken_image",
        "missing_file",
        "misplaced_image",
        "not_in_metadata",
        "duplicate_across_splits",
        "duplicate_at_two_sites",
        "duplicate_with_other_label",
        "patient_in_two_splits",
        "missing_split",
    }
)
"""Findings that `strict` refuses."""


def load_dataset(source: str, options: DataOptions | None = None) -> tuple[ImageDataset, tuple[DataWarning, ...]]:
    """Read a data set and everything that is remarkable about it.

    Every file is read once, for its digest; whether it is an image is checked as far as that needs no full decoding.

    Args:
        source: A folder `<site>/<class>/<image>`, a CSV or Parquet manifest, a MedMNIST .npz file, `demo`, or
            `features:PATH` (a file of precomputed features with labels and sites, and no images).
        options: How to read it; None for the defaults.

    Returns:
        The data set and its findings, in a fixed order.

    Raises:
        DataError: Nothing can be trained on it; the subclass says why, the message what to do.
    """
    chosen = options or DataOptions()
    if source == "demo":
        from clients.demo import load_demo_dataset

        dataset, found = load_demo_dataset()
        return finish(dataset, found, chosen)
    path = Path(source.removeprefix("features:")).expanduser()
    if not os.path.exists(path):  # noqa: PTH110 (false also for a name that no file can have)
        raise SourceNotFoundError(source)
    name = path.resolve().stem
    if source.startswith("features:"):
        records, found = read_precomputed(path, chosen)
        return finish(ImageDataset(name, path, records, _classes(records), NoImages(path)), found, chosen)
    if path.suffix.lower() == ".npz" and path.is_file():
        records, images, found = read_medmnist(path, chosen)
        return finish(ImageDataset(name, path, records, _classes(records), images), found, chosen)
    if path.is_dir():
        rows, found = read_folder(path, chosen)
        root = path
    elif path.suffix.lower() in TABLE_SUFFIXES:
        rows, found = read_manifest(path, chosen), ()
        root = path.parent
    else:
        raise SourceFormatError(
            source, "is neither a folder nor a .csv, .parquet or .npz file; docs/data.md shows what can be read"
        )
    records, more, unread = read_records(root, rows, chosen)
    _refuse_lost_sites(source, rows, records, unread, chosen.part)
    files = FileImages(root, {record.path: record.digest for record in records})
    dataset = ImageDataset(name, root, records, _classes(records), files)
    return finish(dataset, (*found, *more), chosen)


def _refuse_lost_sites(
    source: str, rows: Sequence[Row], records: Sequence[Record], unread: Mapping[str, str], part: str | None
) -> None:
    """Refuse a site that would vanish, since none of its images can be read; of a `part`, only that one."""
    lost = {row.site for row in rows} - {record.site for record in records}
    if part is not None and (records or part in lost):
        lost &= {part}
    if not lost:
        return
    named = f"no image of {', '.join(sorted(lost))} can be read" if records else "has no image that can be read"
    step = "repair or restore them, or take the whole site out of the data" if records else "repair or restore them"
    detail = commonest({row.path: unread[row.path] for row in rows if row.site in lost})
    raise EmptyDataError(source, f"{named}; {step}", detail)


def finish(
    dataset: ImageDataset, found: tuple[DataWarning, ...], options: DataOptions
) -> tuple[ImageDataset, tuple[DataWarning, ...]]:
    """Hold out the global site, check the records, and refuse what `strict` refuses.

    Raises:
        OneClassError: There is one class, and `options.fewest_classes` are more.
        SourceFormatError: A class has a name that no record can hold.
        SiteError: The global site is not in the data, or is all there is.
        FindingError: `strict`, and there is a finding of STRICT_KINDS.
    """
    if len(dataset.classes) < options.fewest_classes:
        raise OneClassError(dataset.name, dataset.classes[0])
    for label in dataset.classes:
        if fault := unrecordable(label):
            raise SourceFormatError(dataset.name, f"the class {label!r} {fault}")
    if options.global_site is not None:
        dataset = _hold_out(dataset, options.global_site)
    findings = (*found, *check_dataset(dataset))
    if options.strict:
        for item in findings:
            if item.kind in STRICT_KINDS:
                raise FindingError(item.kind, item.count, item.message)
    return dataset, findings


def _classes(records: Sequence[Record]) -> tuple[str, ...]:
    return tuple(sorted({record.label for record in records}))


def _hold_out(dataset: ImageDataset, site: str) -> ImageDataset:
    site = composed(site)
    if site not in dataset.all_sites:
        raise SiteError(site, f"is not in the data, so it cannot be held out; sites: {', '.join(dataset.all_sites)}")
    if len(dataset.all_sites) == 1:
        raise SiteError(site, "is the only site; holding it out leaves nothing to train on")
    records = tuple(replace(record, split="test") if record.site == site else record for record in dataset.records)
    return replace(dataset, records=records, global_site=site)
