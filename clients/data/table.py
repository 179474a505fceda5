"""Tables about images (CSV or Parquet): their cells as text, and which column means what."""

import csv
import io
import math
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from clients.data.errors import ColumnError, SourceFormatError
from clients.data.options import DataOptions, column_setting

STANDARD_NAMES = {
    "path": ("path",),
    "label": ("label",),
    "site": ("site",),
    "patient": ("patient", "patient_id", "lesion_id"),
    "split": ("split", "suggested_split"),
}
"""Names by which a column is recognised without an option, best first."""

TABLE_SUFFIXES = frozenset({".csv", ".parquet"})


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        path: Where it was read from.
        columns: Names of its columns.
        rows: Cells by column name, without surrounding blanks; an absent value is "". Of a Parquet file only those of
            columns that mean something, whole numbers without a point.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]

    def column(self, meaning: str, options: DataOptions, *, needed: bool) -> str | None:
        """Return the name of the column that means path, label, site, patient or split.

        Raises:
            ColumnError: The options name a column that is not there, or none is recognised and one is needed.
        """
        named: str | None = getattr(options, f"{meaning}_column")
        setting = column_setting(meaning)
        if named is not None:
            if named not in self.columns:
                raise ColumnError(self.path, named, setting, self.columns)
            return named
        by_lower_case = {column.lower(): column for column in reversed(self.columns)}
        for standard in STANDARD_NAMES[meaning]:
            if standard in by_lower_case:
                return by_lower_case[standard]
        if needed:
            raise ColumnError(self.path, STANDARD_NAMES[meaning][0], setting, self.columns)
        return None


def read_table(path: Path, options: DataOptions) -> Table:
    """Read a CSV (UTF-8, comma, header line; blank lines count for nothing) or Parquet file with every cell as text.

    Raises:
        ColumnError: The options name a column that is not there.
        SourceFormatError: It cannot be read, has no header, a column twice, a row of another length, or bytes or lists
            where a column means something.
    """
    return _read_parquet(path, options) if path.suffix.lower() == ".parquet" else _read_csv(path)


def _read_csv(path: Path) -> Table:
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = [*enumerate(csv.reader(io.StringIO(text, newline=""), strict=True), start=1)]
    except UnicodeDecodeError as error:
        raise SourceFormatError(path, "is not UTF-8 text; save the table as CSV in UTF-8") from error
    except csv.Error as error:
        raise SourceFormatError(path, f"is not a CSV table ({error})") from error
    except OSError as error:
        raise SourceFormatError(path, f"cannot be read ({error.strerror})") from error
    lines = [(number, cells) for number, cells in lines if len(cells) > 1 or "".join(cells).strip()]
    if not lines:
        raise SourceFormatError(path, "is empty; its first line must name the columns")
    columns = tuple(name.strip() for name in lines[0][1])
    _check_columns(path, columns)
    rows = []
    for number, cells in lines[1:]:
        if len(cells) != len(columns):
            raise SourceFormatError(path, f"line {number} has {len(cells)} cells, the header has {len(columns)}")
        rows.append({name: cell.strip() for name, cell in zip(columns, cells, strict=True)})
    return Table(path, columns, tuple(rows))


def _read_parquet(path: Path, options: DataOptions) -> Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns = tuple(file.schema_arrow.names)
            _check_columns(path, columns)
            empty = Table(path, columns, ())
            meant = [empty.column(meaning, options, needed=False) for meaning in STANDARD_NAMES]
            content = file.read([name for name in dict.fromkeys(meant) if name is not None])
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceFormatError(path, f"is not a Parquet table ({' '.join(str(error).split())[:120]})") from error
    try:
        cells = content.to_pylist()
    except ValueError as error:  # such as times to the nanosecond
        raise SourceFormatError(path, f"has cells that are no text ({' '.join(str(error).split())[:120]})") from error
    rows = tuple({name: _text(path, name, cell) for name, cell in row.items()} for row in cells)
    return Table(path, columns, rows)


def _text(path: Path, column: str, cell: object) -> str:
    """Return a cell as a CSV of the same table would have it: a whole number has no point, no number is empty.

    Of a decimal the zeros at its end are left away, as of a float.
    """
    if cell is None or cell != cell:  # NaN, which pandas writes for an absent value
        return ""
    if isinstance(cell, bytes | list | dict):
        raise SourceFormatError(
            path, f"has {type(cell).__name__} in the column {column!r}; write text or numbers there"
        )
    if isinstance(cell, float | Decimal) and math.isfinite(cell) and cell == int(cell):
        return str(int(cell))
    if isinstance(cell, Decimal):
        return format(cell, "f").rstrip("0")
    return str(cell).strip()


def _check_columns(path: Path, columns: tuple[str, ...]) -> None:
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise SourceFormatError(path, f"has the column {twice[0]!r} more than once")
