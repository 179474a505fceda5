"""The report as one self-contained HTML page: plain sentences first, detail after; no script, nothing fetched."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from audit.report.blocks import (
    Block,
    Bullets,
    Cell,
    Code,
    Figure,
    Joined,
    Number,
    Paragraph,
    SignOff,
    Subheading,
    Table,
    Verdict,
)
from audit.report.reading_order import in_order
from audit.report.sections import closing, first_page, sections_of, subtitle
from audit.report.style import STYLE
from audit.report.svg import to_svg

_LOOKS = {"PASS": "pass", "FAIL": "fail"}


def render_html(report: Mapping[str, Any]) -> str:
    """Return the page of a report; the same report gives the same page.

    Args:
        report: As `build_report` returns it; nothing else goes into the page.
    """
    numbered = list(enumerate(sections_of(report), 1))
    links = "".join(f'<li><a href="#s{place}">{escape(section.title)}</a></li>' for place, section in numbered)
    body = "".join(
        f'<section id="s{place}"><h2>{place}. {escape(section.title)}</h2>{_blocks(section.blocks, "h3")}</section>'
        for place, section in numbered
    )
    return in_order(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Audit report of {escape(report['identity']['run_id'])}</title><style>{STYLE}</style></head><body>"
        f'<header><h1>Audit report</h1><p class="lead">{escape(subtitle(report))}</p></header><main>'
        f"<section>{_blocks(first_page(report), 'h2')}</section>"
        f"<nav aria-label='Contents'><h2>Contents</h2><ol>{links}</ol></nav>{body}</main>"
        f"<footer><p>{closing(report)}</p></footer></body></html>\n"
    )


def _blocks(blocks: Sequence[Block], level: str) -> str:
    return "".join(_block(block, level) for block in blocks)


def _block(block: Block, level: str) -> str:
    match block:
        case Paragraph(text, kind):
            marked = f' class="{kind}"' if kind else ""
            return f"<p{marked}>{escape(text)}</p>"
        case Subheading(text):
            return f"<{level}>{escape(text)}</{level}>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
        case Table():
            return _table(block)
        case Figure(drawing, caption):
            drawn = f"{_scrolled(drawing.title)}{to_svg(drawing)}</div>"
            return f"<figure>{drawn}<figcaption>{escape(caption)}</figcaption></figure>"
        case SignOff(roles):
            places = "".join(f"<div>{escape(role)}<br>name, date, signature</div>" for role in roles)
            return f'<div class="sign">{places}</div>'


def _scrolled(label: str) -> str:
    """Open a part that a narrow screen shows piece by piece, by finger or keyboard."""
    return f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(label)}">'


def _table(block: Table) -> str:
    numbers = block.numbers

    def kind(index: int) -> str:
        return ' class="number"' if index in numbers else ""

    look = "pairs" if len(block.header) == 2 and not numbers else ("words" if not numbers else "")
    named = f' class="{look}"' if look else ""
    head = "".join(f'<th scope="col"{kind(index)}>{escape(name)}</th>' for index, name in enumerate(block.header))
    rows = []
    for row in block.rows:
        cells = "".join(
            f'<td{kind(index)} data-label="{escape(block.header[index])}">{_cell(cell)}</td>'
            for index, cell in enumerate(row[1:], 1)
        )
        rows.append(f'<tr><th scope="row">{_cell(row[0])}</th>{cells}</tr>')
    return (
        f"{_scrolled(block.caption)}<table{named}>"
        f"<caption>{escape(block.caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    match cell:
        case Number(None, _):
            return "&ndash;"
        case Number(value, shown):
            return f'<data value="{value!r}">{escape(shown)}</data>'
        case Code(text):
            return f"<code>{escape(text)}</code>"
        case Verdict(word):
            return f'<span class="verdict {_LOOKS.get(word, "none")}">{escape(word)}</span>'
        case Joined(parts):
            return "".join(map(_cell, parts))
        case _:
            return escape(cell) if cell else "&ndash;"
