"""CSV and Parquet manifests."""

from decimal import Decimal
from unicodedata import normalize

import pyarrow as pa
import pytest
from pyarrow import parquet

from clients.data import (
    ColumnError,
    DataOptions,
    EmptyDataError,
    SiteError,
    SourceFormatError,
    fingerprint,
    load_dataset,
)

LAYOUT = {"north": {"benign": 3, "malignant": 3}, "south": {"benign": 3}}


@pytest.fixture
def rows(make_folder, tmp_path):
    root = make_folder(LAYOUT)
    found = []
    for index, path in enumerate(sorted(root.rglob("*.png"))):
        site, label, _ = path.relative_to(root).parts
        found.append((path.relative_to(tmp_path).as_posix(), label, site, f"{index:03d}", "train"))
    return found


HEADER = ("path", "label", "site", "patient", "split")


def test_csv_and_parquet_say_the_same_as_the_folder(rows, tmp_path, write_csv):
    write_csv(tmp_path / "all.csv", HEADER, rows)
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(HEADER)})
    parquet.write_table(table, tmp_path / "all.parquet")
    first, _ = load_dataset(str(tmp_path / "all.csv"))
    second, _ = load_dataset(str(tmp_path / "all.parquet"))
    assert first.records == second.records
    assert first.sites == ("north", "south")
    assert first.records[0].patient == "000"
    assert fingerprint(first) == fingerprint(second)
    assert first.load(0).size == (12, 10)


@pytest.mark.parametrize("name", ["all.csv", "cohort/metadata.csv"])
def test_what_programs_write_for_an_absent_patient_is_no_patient(rows, tmp_path, write_csv, name):
    table = tmp_path / name
    patients = ["NA", "nan", "NA", *["7"] * (len(rows) - 3)]
    paths = [(tmp_path / row[0]).relative_to(table.parent).as_posix() for row in rows]
    cells = [(path, *row[1:3], patient) for path, row, patient in zip(paths, rows, patients, strict=True)]
    write_csv(table, HEADER[:4], cells)
    source = table if name == "all.csv" else table.parent
    with pytest.raises(SourceFormatError, match=r"the patient 'NA' \(2 rows\), 'nan' \(1 rows\); leave the cell empty"):
        load_dataset(str(source))


def test_blank_lines_of_a_csv_count_for_nothing(rows, tmp_path):
    lines = [",".join(HEADER), *map(",".join, rows)]
    (tmp_path / "all.csv").write_text("\n".join(["", "  ", lines[0], "", *lines[1:], ""]))
    assert len(load_dataset(str(tmp_path / "all.csv"))[0].records) == len(rows)
    (tmp_path / "all.csv").write_text("\n".join(["", lines[0], "", "one,two"]))
    with pytest.raises(SourceFormatError, match="line 4 has 2 cells, the header has 5"):
        load_dataset(str(tmp_path / "all.csv"))
    (tmp_path / "all.csv").write_text("\n \n")
    with pytest.raises(SourceFormatError, match="is empty; its first line must name the columns"):
        load_dataset(str(tmp_path / "all.csv"))


def test_absolute_paths_backslashes_and_typed_parquet_cells(rows, tmp_path):
    columns = {name: [row[i] for row in rows] for i, name in enumerate(HEADER)}
    columns["path"] = [str(tmp_path / columns["path"][0]), *(p.replace("/", "\\") for p in columns["path"][1:])]
    columns["patient"] = list(range(len(rows)))
    parquet.write_table(pa.table(columns), tmp_path / "all.parquet")
    dataset, warnings = load_dataset(str(tmp_path / "all.parquet"))
    assert len(dataset.records) == len(rows)
    assert not {"missing_file"} & {warning.kind for warning in warnings}


def test_a_path_may_be_written_in_another_form_of_unicode_than_the_disks(make_folder, tmp_path, write_csv):
    root = make_folder({"su\u0308d": {"tumo\u0308r": 2, "ja": 1}, "n\u00f8rd": {"\u00e9": 1}})
    paths = [path.relative_to(tmp_path).as_posix() for path in sorted(root.rglob("*.png"))]
    rows = [(normalize("NFC", path), *normalize("NFC", path).split("/")[2:0:-1]) for path in paths]
    write_csv(tmp_path / "all.csv", ("path", "label", "site"), rows)
    dataset, warnings = load_dataset(str(tmp_path / "all.csv"))
    assert [record.path for record in dataset.records] == paths
    assert "missing_file" not in {warning.kind for warning in warnings}
    write_csv(tmp_path / "all.csv", ("path", "label", "site"), [*rows, (paths[-1], *rows[-1][1:])])
    with pytest.raises(SourceFormatError, match="more than once"):
        load_dataset(str(tmp_path / "all.csv"))


def test_missing_files_are_counted(rows, tmp_path, write_csv):
    write_csv(tmp_path / "all.csv", HEADER, [*rows, ("gone.png", "benign", "north", "9", "train")])
    dataset, warnings = load_dataset(str(tmp_path / "all.csv"))
    assert len(dataset.records) == len(rows)
    assert next(w for w in warnings if w.kind == "missing_file").examples == ("gone.png",)


def test_columns_patient_and_split_may_be_absent(rows, tmp_path, write_csv):
    write_csv(tmp_path / "all.csv", HEADER[:3], [row[:3] for row in rows])
    dataset, warnings = load_dataset(str(tmp_path / "all.csv"))
    assert all(record.patient is None for record in dataset.records)
    assert "split_by_image" in {warning.kind for warning in warnings}


@pytest.mark.parametrize("absent", ["path", "label", "site"])
def test_a_needed_column_is_asked_for_by_its_option(rows, tmp_path, write_csv, absent):
    header = [name if name != absent else "other" for name in HEADER]
    write_csv(tmp_path / "all.csv", header, rows)
    with pytest.raises(ColumnError, match=rf"the setting data.{absent}_column \(--{absent}-column where"):
        load_dataset(str(tmp_path / "all.csv"))
    load_dataset(str(tmp_path / "all.csv"), DataOptions(**{f"{absent}_column": "other"}))


@pytest.mark.parametrize("site", ["../up", ".hidden", "a/b", "a\\b", "line\nbreak"])
def test_a_site_must_be_able_to_name_a_folder(rows, tmp_path, write_csv, site):
    write_csv(tmp_path / "all.csv", HEADER, [(rows[0][0], "benign", site, "", "")])
    with pytest.raises(SiteError):
        load_dataset(str(tmp_path / "all.csv"))


def test_rows_that_say_too_little_or_twice(rows, tmp_path, write_csv):
    write_csv(tmp_path / "all.csv", HEADER, [(rows[0][0], "", "north", "", "")])
    with pytest.raises(SourceFormatError, match="row 1 has no label"):
        load_dataset(str(tmp_path / "all.csv"))
    write_csv(tmp_path / "all.csv", HEADER, [rows[0], ("./" + rows[0][0], *rows[0][1:])])
    with pytest.raises(SourceFormatError, match="more than once"):
        load_dataset(str(tmp_path / "all.csv"))
    write_csv(tmp_path / "all.csv", HEADER, [])
    with pytest.raises(EmptyDataError, match="lists no image"):
        load_dataset(str(tmp_path / "all.csv"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(SourceFormatError, match="Parquet"):
        load_dataset(str(tmp_path / "bad.parquet"))


def test_one_file_under_two_names_is_listed_twice(rows, tmp_path, write_csv):
    up = (f"../{tmp_path.name}/{rows[0][0]}", *rows[0][1:])
    absolute = (str(tmp_path / "cohort" / ".." / rows[0][0]), *rows[0][1:])
    for other in (up, absolute):
        write_csv(tmp_path / "all.csv", HEADER, [rows[0], other])
        with pytest.raises(SourceFormatError, match=f"lists .* more than once, as {rows[0][0]} as well"):
            load_dataset(str(tmp_path / "all.csv"))


def test_a_path_that_no_file_can_have_is_a_missing_file(rows, tmp_path, write_csv):
    write_csv(tmp_path / "all.csv", HEADER, [*rows, ("x" * 300 + ".png", "benign", "north", "9", "train")])
    dataset, warnings = load_dataset(str(tmp_path / "all.csv"))
    assert len(dataset.records) == len(rows)
    assert "missing_file" in {warning.kind for warning in warnings}


def test_columns_that_mean_nothing_are_not_read(rows, tmp_path):
    columns = {name: pa.array([row[i] for row in rows]) for i, name in enumerate(HEADER)}
    taken = pa.array(range(1, len(rows) + 1), pa.timestamp("ns"))
    parquet.write_table(pa.table({**columns, "taken": taken}), tmp_path / "all.parquet")
    assert len(load_dataset(str(tmp_path / "all.parquet"))[0].records) == len(rows)
    with pytest.raises(SourceFormatError, match="has cells that are no text"):
        load_dataset(str(tmp_path / "all.parquet"), DataOptions(patient_column="taken"))


def test_parquet_cells_are_the_text_of_a_csv(rows, tmp_path):
    columns = {name: [row[i] for row in rows] for i, name in enumerate(HEADER)}
    path = tmp_path / "all.parquet"
    numbers = [float(i) for i in range(len(rows) - 2)]
    parquet.write_table(pa.table({**columns, "patient": pa.array([*numbers, float("inf"), 0.5])}), path)
    patients = {record.path: record.patient for record in load_dataset(str(path))[0].records}
    assert [patients[row[0]] for row in rows][-2:] == ["inf", "0.5"]
    parquet.write_table(pa.table({**columns, "patient": pa.array([*numbers, float("nan"), None])}), path)
    patients = {record.path: record.patient for record in load_dataset(str(path))[0].records}
    assert [patients[row[0]] for row in rows] == [*(str(i) for i in range(len(numbers))), None, None]
    decimals = [*(Decimal(f"{i}.00") for i in range(len(rows) - 2)), Decimal("70.50"), Decimal("-10.00")]
    parquet.write_table(pa.table({**columns, "patient": pa.array(decimals, pa.decimal128(8, 2))}), path)
    patients = {record.path: record.patient for record in load_dataset(str(path))[0].records}
    assert [patients[row[0]] for row in rows] == [*(str(i) for i in range(len(numbers))), "70.5", "-10"]
    for kind, cells in (("bytes", [row[1].encode() for row in rows]), ("list", [[row[1]] for row in rows])):
        parquet.write_table(pa.table({**columns, "label": cells}), path)
        with pytest.raises(SourceFormatError, match=f"has {kind} in the column 'label'; write text"):
            load_dataset(str(path))


def test_parquet_columns_are_those_in_the_file(rows, tmp_path):
    folder = tmp_path / "site=elsewhere"
    folder.mkdir()
    columns = {name: [row[i] for row in rows] for i, name in enumerate(HEADER) if name != "site"}
    parquet.write_table(pa.table({**columns, "note": [b"\xff"] * len(rows)}), folder / "all.parquet")
    with pytest.raises(ColumnError, match="there is no column 'site'"):
        load_dataset(str(folder / "all.parquet"))


def test_a_damaged_name_of_a_column_is_a_named_error(rows, tmp_path):
    columns = {name: [row[i] for row in rows] for i, name in enumerate(HEADER)}
    path = tmp_path / "all.parquet"
    parquet.write_table(pa.table({**columns, "notes": [1] * len(rows)}), path)
    path.write_bytes(path.read_bytes().replace(b"notes", b"not\xffs"))
    with pytest.raises(SourceFormatError, match="is not a Parquet table"):
        load_dataset(str(path))


def test_a_file_is_listed_once_however_folders_are_linked(rows, tmp_path, write_csv):
    (tmp_path / "linked").symlink_to(tmp_path / "cohort" / "north")
    again = ("linked/" + rows[0][0].removeprefix("cohort/north/"), *rows[0][1:])
    with pytest.raises(SourceFormatError, match=f"lists {again[0]} more than once, as {rows[0][0]} as well"):
        load_dataset(str(write_csv(tmp_path / "all.csv", HEADER, [*rows, again])))
    (tmp_path / "copy.png").symlink_to(tmp_path / rows[0][0])
    copy = ("copy.png", *rows[0][1:])
    odd = ("no\0folder/x.png", *rows[0][1:])
    dataset, warnings = load_dataset(str(write_csv(tmp_path / "all.csv", HEADER, [*rows, copy, odd])))
    assert len(dataset.records) == len(rows) + 1
    assert "missing_file" in {warning.kind for warning in warnings}
