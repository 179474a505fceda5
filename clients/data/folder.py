"""The layout `<site>/<class>/<image>`, with an optional table `metadata.csv` beside the sites."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from clients.data.errors import ColumnError, ConflictError, EmptyDataError, SourceFormatError
from clients.data.findings import MAX_EXAMPLES, DataWarning, finding
from clients.data.manifest import normal_path, read_patient, read_split
from clients.data.options import DataOptions, column_setting
from clients.data.pixels import is_image
from clients.data.rows import Row, check_site_name, composed, is_utf8
from clients.data.table import Table, read_table

METADATA_NAME = "metadata.csv"


def read_folder(root: Path, options: DataOptions) -> tuple[tuple[Row, ...], tuple[DataWarning, ...]]:
    """List the images of a folder and join what `metadata.csv` says about them.

    Hidden files and folders are passed over. Images that are not exactly two folders deep, other files among the
    images, and class folders without an image are counted in findings. With a `metadata.csv`, images that it does not
    list are left out, since nobody could say whose they are.

    Raises:
        EmptyDataError: There is no image in the layout.
        SourceFormatError: Images lie one level too high, the table lists an image twice or has a patient that
            read_patient refuses, a class folder's name is not UTF-8, or a folder cannot be read.
        ColumnError: A column named by an option is not in the table.
        ConflictError: The table gives another site or class than the folders, and no option named that column.
        SiteError: A folder's name cannot be a site's.
    """
    try:
        rows, findings = _scan(root)
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); get access for this user, or take it out of the data"
        raise SourceFormatError(error.filename or root, reason) from error
    table_path = root / METADATA_NAME
    if not table_path.is_file():
        _refuse_columns_without_table(table_path, options)
        return rows, findings
    joined, more = _join(rows, read_table(table_path, options), options)
    if not joined:
        raise EmptyDataError(table_path, "lists none of the images in the folder; are its paths relative to it?")
    return joined, findings + more


def _refuse_columns_without_table(table_path: Path, options: DataOptions) -> None:
    for name in ("path", "label", "site", "patient", "split"):
        column: str | None = getattr(options, f"{name}_column")
        if column is not None:
            raise ColumnError(table_path, column, column_setting(name), ())


def _scan(root: Path) -> tuple[tuple[Row, ...], tuple[DataWarning, ...]]:
    rows: list[Row] = []
    empty_classes: list[str] = []
    ignored: list[str] = []
    misplaced: list[str] = []
    for site in _folders(root):
        misplaced.extend(f"{site.name}/{name}" for name in _files(site) if is_image(site / name))
        for label in _folders(site):
            names = _files(label)
            images = [name for name in names if is_image(label / name)]
            where = f"{site.name}/{label.name}"
            ignored.extend(f"{where}/{name}" for name in sorted(set(names) - set(images)))
            misplaced.extend(f"{where}/{path}" for path in _deeper_images(label))
            if images:
                rows.extend(Row(f"{where}/{name}", site.name, label.name) for name in images)
            else:
                empty_classes.append(where)
    if not rows:
        raise _nothing_found(root, misplaced)
    for site_name in {row.site for row in rows}:
        check_site_name(site_name)
    for label_name in {row.label for row in rows}:
        if not is_utf8(label_name):
            raise SourceFormatError(root, f"the class folder {label_name!r} has a name that is not UTF-8; rename it")
    findings = []
    if misplaced:
        text = f"{len(misplaced)} images are not in <site>/<class>/ and are left out; move them into a class folder"
        findings.append(finding("misplaced_image", misplaced, text))
    if empty_classes:
        text = f"{len(empty_classes)} class folders have no image and are left out"
        findings.append(finding("empty_class", empty_classes, text))
    if ignored:
        text = f"{len(ignored)} files in class folders are no images, by their endings and as DICOM, and are left out"
        findings.append(finding("not_an_image", ignored, text, "info"))
    return tuple(sorted(rows, key=lambda row: row.path)), tuple(findings)


def _nothing_found(root: Path, misplaced: list[str]) -> EmptyDataError | SourceFormatError:
    if misplaced:
        return SourceFormatError(
            root,
            f"images lie in {Path(misplaced[0]).parent.as_posix()}/, but are expected in <site>/<class>/; "
            "put the class folders into one folder a site",
        )
    return EmptyDataError(root, "has no image in <site>/<class>/; check --data (docs/data.md shows the layout)")


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if not entry.is_dir() and not entry.name.startswith("."))


def _deeper_images(label: Path) -> list[str]:
    found = []
    for folder in _folders(label):
        for where, _, names in os.walk(folder, onerror=_refuse):
            files = [Path(where) / name for name in names]
            found += [file.relative_to(label).as_posix() for file in files if is_image(file)]
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise error


def _join(rows: tuple[Row, ...], table: Table, options: DataOptions) -> tuple[tuple[Row, ...], tuple[DataWarning, ...]]:
    path_column = table.column("path", options, needed=True)
    assert path_column is not None  # noqa: S101 (narrows the type)
    listed: dict[str, dict[str, str]] = {}
    for cells in table.rows:
        path = normal_path(cells[path_column])
        if path in listed:
            raise SourceFormatError(table.path, f"lists {path} more than once")
        listed[path] = cells
    on_disk = {row.path for row in rows}
    listed = _as_on_disk(listed, on_disk)
    joined = [row for row in rows if row.path in listed]
    for meaning in ("site", "label"):
        joined = _join_name(joined, listed, table, options, meaning)
    patient_column = table.column("patient", options, needed=False)
    if patient_column:
        patients = read_patient(table.path, [listed[row.path][patient_column] for row in joined])
        joined = [replace(row, patient=patient) for row, patient in zip(joined, patients, strict=True)]
    split_column = table.column("split", options, needed=False)
    if split_column:
        splits = read_split(table.path, [listed[row.path][split_column] for row in joined])
        joined = [replace(row, split=split) for row, split in zip(joined, splits, strict=True)]
    findings = []
    unlisted = on_disk - set(listed)
    if unlisted:
        text = f"{len(unlisted)} images are not listed in {METADATA_NAME} and are left out; list them there"
        findings.append(finding("not_in_metadata", unlisted, text))
    missing = {path for path in listed if path not in on_disk}
    if missing:
        column = table.column("site", options, needed=False)
        told = {path: composed(listed[path][column]) if column else "" for path in missing}
        findings.append(_missing(table.path.parent, told, {row.site for row in joined}))
    return tuple(joined), tuple(findings)


def _missing(root: Path, told: dict[str, str], present: set[str]) -> DataWarning:
    """Make the finding about listed images that are not in the folder, and about what is gone with them.

    A folder that is not there may be called after a patient, so only the detail names it.

    Args:
        root: The folder.
        told: {path: site} of the missing images, "" where the table has no site and the path tells it.
        present: Sites of the data.
    """
    layout = {path: parts[0] for path in told if len(parts := composed(path).split("/")) == 3}
    gone = {site or layout.get(path, "") for path, site in told.items()} - present - {"", ".."}
    sites = gone & {*told.values(), *(composed(folder.name) for folder in _folders(root))}
    text = f"{len(told)} images listed in {METADATA_NAME} are not in the folder"
    if sites:
        text += f", all of {', '.join(sorted(sites))} among them: not part of the data"
    absent = sorted(gone - sites)
    if absent:
        text += f"; {len(absent)} folders in its paths are not there"
    return finding("missing_file", told, text, detail=", ".join(absent[:MAX_EXAMPLES]))


def _as_on_disk(listed: dict[str, dict[str, str]], on_disk: set[str]) -> dict[str, dict[str, str]]:
    """Write listed paths as the disk does where they differ in Unicode's form alone (an archive of another system)."""
    same = Counter(map(composed, on_disk))
    spelt = {composed(path): path for path in on_disk - set(listed) if same[composed(path)] == 1}
    return {path if path in on_disk else spelt.get(composed(path), path): cells for path, cells in listed.items()}


def _join_name(
    rows: list[Row], listed: dict[str, dict[str, str]], table: Table, options: DataOptions, meaning: str
) -> list[Row]:
    """Take the site or the label from the table where an option names the column; otherwise check that both agree."""
    column = table.column(meaning, options, needed=False)
    if column is None:
        return rows
    given = {row.path: listed[row.path][column] for row in rows}
    if getattr(options, f"{meaning}_column") is None:
        differing = sorted(row.path for row in rows if composed(given[row.path]) != composed(getattr(row, meaning)))
        if differing:
            reason = (
                f"its column {column!r} says otherwise than the folders; "
                f"correct it, or let it decide by {column_setting(meaning, column)}"
            )
            raise ConflictError(table.path, reason, differing[:MAX_EXAMPLES], len(differing))
        return rows
    empty = sorted(path for path, name in given.items() if not name)
    if empty:
        raise SourceFormatError(table.path, f"{len(empty)} rows have no {meaning}, for example that of {empty[0]}")
    if meaning == "site":
        for site in set(given.values()):
            check_site_name(site)
        return [replace(row, site=given[row.path]) for row in rows]
    return [replace(row, label=given[row.path]) for row in rows]
