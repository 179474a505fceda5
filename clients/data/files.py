"""Images in files: their pixels, and the records that survive a look at every file."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from clients.data.dataset import Record
from clients.data.errors import BrokenImageError
from clients.data.findings import DataWarning, commonest, finding
from clients.data.fingerprint import content_digest
from clients.data.options import DataOptions, column_setting
from clients.data.pixels import check_image, decode_image
from clients.data.rows import Row
from clients.data.splits import split_by_hash

DIVIDED_KINDS = frozenset({"split_by_image", "split_by_patient", "missing_split"})
"""Findings on images that a source gives no split."""

REPLACED = "another image has taken its place since the data set was read; run again"
"""Reason of a BrokenImageError."""


_NOT_THERE = "there is no such file"


@dataclass(frozen=True)
class FileImages:
    """Decodes the image files below `root`.

    Attributes:
        root: Folder that the paths are relative to.
        digests: SHA-256 (hex) by path of what was there when the data set was read; other bytes are refused, since
            their features would be kept, and trained on, under the name of the earlier ones.
    """

    root: Path
    digests: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def load(self, path: str) -> Image.Image:
        """Return an image file as 8-bit RGB, upright; raises BrokenImageError."""
        content = read_image(self.root, path)
        if self.digests.get(path) not in (None, content_digest(content)):
            raise BrokenImageError(path, REPLACED)
        return decode_image(content, path)


def read_image(root: Path, path: str) -> bytes:
    """Return the bytes of an image file; raises BrokenImageError where the system refuses."""
    try:
        return (root / path).read_bytes()
    except OSError as error:
        raise BrokenImageError(path, error.strerror or "it cannot be opened") from error


def read_records(
    root: Path, rows: Iterable[Row], options: DataOptions
) -> tuple[tuple[Record, ...], tuple[DataWarning, ...], dict[str, str]]:
    """Read every file once: its digest, whether it is an image, and its split where none is given.

    Args:
        root: Folder that the paths are relative to.
        rows: What the source says.
        options: How to split, and whether findings are refused.

    Returns:
        The records of what can be read, the findings, and by path why the others cannot be read.

    Raises:
        BrokenImageError: A file is not an image, and `options.strict`.
        MissingDependencyError: A DICOM file, and the extra for it is not installed.
    """
    rows = tuple(rows)
    digests: dict[str, str] = {}
    broken: dict[str, str] = {}
    missing: dict[str, str] = {}
    for row in rows:
        if not os.path.isfile(root / row.path):  # noqa: PTH113 (false also for a name that no file can have)
            missing[row.path] = _NOT_THERE
            continue
        try:
            content = read_image(root, row.path)
            check_image(content, row.path)
        except BrokenImageError as error:
            if options.strict:
                raise
            broken[row.path] = error.reason
        else:
            digests[row.path] = content_digest(content)
    findings = []
    if missing:
        text = f"{len(missing)} images are not where a table, or a link, says; correct it or put them there"
        findings.append(finding("missing_file", missing, text, detail=commonest(missing)))
    if broken:
        text = f"{len(broken)} images cannot be read and are left out; repair or remove them"
        findings.append(finding("broken_image", broken, text, detail=commonest(broken)))
    kept = [row for row in rows if row.path in digests]
    records, more = assign_splits(kept, digests, options)
    return records, (*findings, *more), {**missing, **broken}


def assign_splits(
    rows: Iterable[Row], digests: dict[str, str], options: DataOptions
) -> tuple[tuple[Record, ...], tuple[DataWarning, ...]]:
    """Make records: a split that is not given follows from the patient, and only without one from the content."""
    records = []
    by_patient: list[str] = []
    by_image: list[str] = []
    given = 0
    for row in rows:
        split = row.split
        if split is not None:
            given += 1
        else:
            (by_patient if row.patient is not None else by_image).append(row.path)
            split = split_by_hash(row.patient or digests[row.path], options.split_shares, options.split_seed)
        records.append(Record(row.path, row.site, row.label, row.patient, split, digests[row.path]))
    findings = []
    if by_image:
        text = (
            f"{len(by_image)} images have no patient and are split by their content: pictures of one patient may be "
            f"in several splits, which makes test results too good; name the patient by {column_setting('patient')}"
        )
        findings.append(finding("split_by_image", by_image, text))
    if by_patient:
        text = f"{len(by_patient)} images have no split and get one from their patient"
        findings.append(
            finding("missing_split", by_patient, text)
            if given
            else finding("split_by_patient", by_patient, text, "info")
        )
    return tuple(records), tuple(findings)
