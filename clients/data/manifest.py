"""A table `path,label,site[,patient][,split]` that lists the images, wherever they are."""

import contextlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from clients.data.errors import EmptyDataError, SourceFormatError, UnknownSplitError
from clients.data.options import DataOptions
from clients.data.rows import Row, check_site_name, composed
from clients.data.splits import split_name
from clients.data.table import read_table

NO_VALUE = frozenset({"na", "n/a", "#n/a", "<na>", "nan", "null", "none"})
"""What R, pandas, spreadsheets and databases write for an absent value, in lower case."""


def read_manifest(path: Path, options: DataOptions) -> tuple[Row, ...]:
    """List the images of a CSV or Parquet manifest; relative paths start at the manifest's folder.

    Raises:
        SourceFormatError: It cannot be read, lists an image twice, has a patient that read_patient refuses, or a row
            lacks a path, label or site.
        EmptyDataError: It has no row.
        ColumnError: A needed column, or one named by an option, is not there.
        UnknownSplitError: A split is not train, val or test.
        SiteError: A site's name cannot be used.
    """
    table = read_table(path, options)
    names = {meaning: table.column(meaning, options, needed=True) for meaning in ("path", "label", "site")}
    patient_column = table.column("patient", options, needed=False)
    split_column = table.column("split", options, needed=False)
    if not table.rows:
        raise EmptyDataError(path, "lists no image")
    splits: list[str | None] = [None] * len(table.rows)
    if split_column:
        splits = read_split(path, [cells[split_column] for cells in table.rows])
    patients: list[str | None] = [None] * len(table.rows)
    if patient_column:
        patients = read_patient(path, [cells[patient_column] for cells in table.rows])
    rows: dict[str, Row] = {}
    root = path.parent.absolute()
    for number, (cells, patient, split) in enumerate(zip(table.rows, patients, splits, strict=True), start=1):
        cell = {meaning: cells[str(column)] for meaning, column in names.items()}
        absent = [meaning for meaning, text in cell.items() if not text]
        if absent:
            raise SourceFormatError(path, f"row {number} has no {absent[0]}")
        image = _as_on_disk(root, normal_path(cell["path"]))
        file = _real_path(root, image)
        if file in rows:
            earlier = rows[file].path
            as_well = "" if earlier == image else f", as {earlier} as well"
            raise SourceFormatError(path, f"lists {image} more than once{as_well}")
        check_site_name(cell["site"])
        rows[file] = Row(image, cell["site"], cell["label"], patient, split)
    return tuple(sorted(rows.values(), key=lambda row: row.path))


def _real_path(root: Path, image: str) -> str:
    """Return where an image lies, links of folders followed; a linked file stands for itself (stores link copies)."""
    folder, name = os.path.split(root / image)
    with contextlib.suppress(ValueError):  # a name that no folder can have
        folder = os.path.realpath(folder)
    return os.path.join(folder, name)  # noqa: PTH118


def _as_on_disk(root: Path, image: str) -> str:
    """Write a path as the disk does where it differs in Unicode's form alone (an archive of another system)."""
    if image.isascii() or os.path.exists(root / image):  # noqa: PTH110 (false also for a name that no file can have)
        return image
    found = PurePosixPath()
    for part in PurePosixPath(image).parts:
        names = [part]
        if not os.path.exists(root / found / part):  # noqa: PTH110
            with contextlib.suppress(OSError, ValueError):
                names = [name for name in os.listdir(root / found) if composed(name) == composed(part)]  # noqa: PTH208
        if len(names) != 1:
            return image
        found /= names[0]
    return found.as_posix()


def normal_path(text: str) -> str:
    """Return a path of a table with forward slashes and without `./`."""
    return PurePosixPath(text.replace("\\", "/")).as_posix()


def read_patient(path: Path, cells: Sequence[str]) -> list[str | None]:
    """Return the patient that each cell names, None for an empty one.

    Raises:
        SourceFormatError: A cell has a word of NO_VALUE: images of unknown people would be taken for one patient's.
    """
    absent = Counter(cell for cell in cells if cell.lower() in NO_VALUE)
    if absent:
        named = ", ".join(f"{cell!r} ({count} rows)" for cell, count in sorted(absent.items()))
        raise SourceFormatError(
            path, f"has the patient {named}; leave the cell empty where none is known, or call the patient otherwise"
        )
    return [cell or None for cell in cells]


def read_split(path: Path, cells: Sequence[str]) -> list[str | None]:
    """Return the split that each cell names, None for an empty one.

    Raises:
        UnknownSplitError: Some cell names none; all the unknown names are counted.
    """
    unknown = Counter(cell for cell in cells if cell and split_name(cell) is None)
    if unknown:
        raise UnknownSplitError(path, dict(unknown))
    return [split_name(cell) if cell else None for cell in cells]
