"""Pieces of the HTML report: escaped text, numbers that carry their exact value, tables with captions."""

from collections.abc import Sequence
from html import escape


class Html(str):
    """Text that is HTML already; everything else is escaped."""

    __slots__ = ()


Cell = str | Html | None


def text(value: object) -> Html:
    """Return a value as escaped text; Html stays as it is, and nothing becomes a dash."""
    if isinstance(value, Html):
        return value
    return Html("&ndash;" if value is None or value == "" else escape(str(value)))


def number(value: float | None, shown: str) -> Html:
    """Return a number as it is shown, with its exact value for who reads the page by machine."""
    if value is None:
        return Html("&ndash;")
    return Html(f'<data value="{value!r}">{escape(shown)}</data>')


def whole(value: int | None) -> Html:
    """Return an integer with thousands apart."""
    return number(value, "" if value is None else f"{value:,}")


def decimal(value: float | None, digits: int = 4) -> Html:
    """Return a number with significant digits."""
    return number(value, "" if value is None else f"{value:.{digits}g}")


def percent(value: float | None) -> Html:
    """Return a share in per cent."""
    return number(value, "" if value is None else f"{100 * value:.1f} %")


def code(value: str | None) -> Html:
    """Return a digest or key; nothing becomes a dash."""
    return text(None) if value is None else Html(f"<code>{escape(value)}</code>")


def verdict(word: str) -> Html:
    """Return PASS, FAIL or another word, marked in shape and colour."""
    kind = {"PASS": "pass", "FAIL": "fail"}.get(word, "none")
    return Html(f'<span class="verdict {kind}">{escape(word)}</span>')


def table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[int] = ()
) -> Html:
    """Return a table whose first column names the rows.

    Args:
        caption: What it holds.
        header: Names of the columns.
        rows: Cells; strings are escaped.
        numbers: Indices of columns that are set to the right.
    """
    if not rows:
        return Html("")

    def kind(index: int) -> str:
        return ' class="number"' if index in numbers else ""

    look = "pairs" if len(header) == 2 and not numbers else ("words" if not numbers else "")
    named = f' class="{look}"' if look else ""

    def cells(row: Sequence[object]) -> str:
        return "".join(f"<td{kind(index)}>{text(cell)}</td>" for index, cell in enumerate(row[1:], 1))

    head = "".join(f'<th scope="col"{kind(index)}>{escape(name)}</th>' for index, name in enumerate(header))
    body = "".join(f'<tr><th scope="row">{text(row[0])}</th>{cells(row)}</tr>' for row in rows)
    return Html(
        f'<div class="scroll"><table{named}><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def pairs(caption: str, rows: Sequence[tuple[str, object]]) -> Html:
    """Return a table of names and values."""
    return table(caption, ("what", "value"), rows)


def paragraph(sentence: object, kind: str = "") -> Html:
    """Return a paragraph."""
    marked = f' class="{kind}"' if kind else ""
    return Html(f"<p{marked}>{text(sentence)}</p>")


def bullets(items: Sequence[object]) -> Html:
    """Return a list; nothing where it is empty."""
    return Html("<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>") if items else Html("")


def figure(drawing: str, caption: str) -> Html:
    """Return a chart with its caption."""
    return Html(f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>")


def join(parts: Sequence[str]) -> Html:
    """Return HTML pieces one after the other."""
    return Html("".join(parts))
