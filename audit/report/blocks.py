"""What a report is made of, whatever it is rendered as: paragraphs, lists, tables, drawings, cells with numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from audit.bounds import at_least, at_most
from audit.report.drawing import Drawing


@dataclass(frozen=True)
class Number:
    """A number as it is shown, with its exact value for who reads the page by machine."""

    value: float | None
    shown: str


@dataclass(frozen=True)
class Code:
    """A digest or key, set in a fixed width and broken anywhere."""

    text: str


@dataclass(frozen=True)
class Verdict:
    """PASS, FAIL or another word, marked in shape and colour."""

    word: str


@dataclass(frozen=True)
class Joined:
    """Cells one after the other."""

    parts: tuple["Cell", ...]


Cell = str | Number | Code | Verdict | Joined | None
"""None and "" are shown as a dash."""


@dataclass(frozen=True)
class Paragraph:
    """Running text; `kind` is "" or "lead" or "alarm"."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Subheading:
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        caption: What it holds.
        header: Names of the columns.
        rows: Cells.
        numbers: Indices of columns that are set to the right.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption."""

    drawing: Drawing
    caption: str


@dataclass(frozen=True)
class SignOff:
    """Lines on paper for names, dates and signatures."""

    roles: tuple[str, ...]


Block = Paragraph | Subheading | Bullets | Table | Figure | SignOff
Blocks = list[Block]


@dataclass(frozen=True)
class Section:
    """A numbered section."""

    title: str
    blocks: Blocks


def whole(value: int | None) -> Number:
    """Return an integer with thousands apart."""
    return Number(value, "" if value is None else f"{value:,}")


def decimal(value: float | None) -> Number:
    """Return a number with four significant digits."""
    return Number(value, "" if value is None else f"{value:.4g}")


def upper(value: float | None, digits: int = 4) -> Number:
    """Return an upper bound with significant digits, rounded up."""
    return Number(value, "" if value is None else at_most(value, digits))


def lower(value: float | None, digits: int = 4) -> Number:
    """Return a lower bound with significant digits, rounded down."""
    return Number(value, "" if value is None else at_least(value, digits))


def percent(value: float | None) -> Number:
    """Return a share in per cent."""
    return Number(value, "" if value is None else f"{100 * value:.1f} %")


def code(value: str | None) -> Cell:
    """Return a digest or key; nothing becomes a dash."""
    return None if value is None else Code(value)


def table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[Cell]], *, numbers: Sequence[int] = ()
) -> Blocks:
    """Return a table; nothing where it has no rows."""
    return [Table(caption, tuple(header), tuple(tuple(row) for row in rows), tuple(numbers))] if rows else []


def pairs(caption: str, rows: Sequence[tuple[str, Cell]]) -> Blocks:
    """Return a table of names and values."""
    return table(caption, ("what", "value"), rows)


def paragraph(sentence: str) -> Blocks:
    """Return a paragraph."""
    return [Paragraph(sentence)]


def heading(title: str) -> Blocks:
    """Return a heading within a section."""
    return [Subheading(title)]


def bullets(items: Sequence[str]) -> Blocks:
    """Return a list; nothing where it is empty."""
    return [Bullets(tuple(items))] if items else []


def figure(drawing: Drawing | tuple[Drawing, ...], caption: str) -> Blocks:
    """Return a drawing with its caption; one in several parts with a caption each that says which part it is."""
    parts = drawing if isinstance(drawing, tuple) else (drawing,)
    if len(parts) == 1:
        return [Figure(parts[0], caption)]
    return [Figure(part, f"{caption} Part {place} of {len(parts)}.") for place, part in enumerate(parts, 1)]


def plain(cell: Cell) -> str:
    """Return a cell as text; what is missing becomes "-"."""
    match cell:
        case Number(_, shown):
            return shown or "-"
        case Code(text) | Verdict(text):
            return text
        case Joined(parts):
            return "".join(map(plain, parts))
        case _:
            return cell or "-"


def in_words(values: Mapping[str, object]) -> str:
    """Return recorded values in one line, numbers with few digits, lower bounds rounded down, claims up."""

    def shown(value: object) -> str:
        if isinstance(value, list):
            return " and ".join(map(shown, value))
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    sides = {"lower": at_least, "claimed": at_most}
    values = {
        name: next((side(value) for word, side in sides.items() if word in name and isinstance(value, float)), value)
        for name, value in values.items()
    }
    return ", ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in values.items())
