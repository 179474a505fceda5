"""The report as Markdown: for a repository or a mail, sections and numbers as on the page, charts told in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from audit.report.blocks import (
    Block,
    Bullets,
    Cell,
    Code,
    Figure,
    Joined,
    Paragraph,
    SignOff,
    Subheading,
    Table,
    plain,
)
from audit.report.reading_order import in_order
from audit.report.sections import closing, first_page, sections_of, subtitle


def render_markdown(report: Mapping[str, Any]) -> str:
    """Return the report in Markdown; the same report gives the same text."""
    parts = ["# Audit report", escaped(subtitle(report)), *_blocks(first_page(report), "##")]
    for place, section in enumerate(sections_of(report), 1):
        parts += [f"## {place}. {section.title}", *_blocks(section.blocks, "###")]
    return in_order("\n\n".join([*parts, closing(report)]) + "\n")


def _blocks(blocks: Sequence[Block], level: str) -> list[str]:
    return [_block(block, level) for block in blocks]


def _block(block: Block, level: str) -> str:
    match block:
        case Paragraph(text, kind):
            return f"**{escaped(text)}**" if kind == "alarm" else escaped(text)
        case Subheading(text):
            return f"{level} {escaped(text)}"
        case Bullets(items):
            return "\n".join(f"- {escaped(item)}" for item in items)
        case Table(caption, header, rows):
            lines = [[*header], ["---"] * len(header), *([_cell(cell) for cell in row] for row in rows)]
            return f"*{escaped(caption)}*\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)
        case Figure(drawing, caption):
            return f"*Chart: {escaped(drawing.title)}; {escaped(drawing.description)}. {escaped(caption)}*"
        case SignOff(roles):
            return "\n".join(f"- {escaped(role)}: name, date, signature" for role in roles)


def _cell(cell: Cell) -> str:
    match cell:
        case Code(text):
            return f"`{text}`"
        case Joined(parts):
            return "".join(map(_cell, parts))
        case _:
            return escaped(plain(cell))


def escaped(text: str) -> str:
    """Return text as a line of Markdown that shows it: nothing in it is markup, a tag or another column."""
    for character in "\\|*`_[]":
        text = text.replace(character, "\\" + character)
    return " ".join(text.replace("<", "&lt;").split())
