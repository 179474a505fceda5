"""The report as PDF: text that can be selected and searched, vector drawings, the same bytes for the same report."""

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    KeepTogether,
    PageTemplate,
    Spacer,
)
from reportlab.platypus import Paragraph as Text
from reportlab.platypus import Table as Grid

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
    plain,
)
from audit.report.drawing import Box, Dot, Drawing, Label, Stroke
from audit.report.glyphs import BODY, BOLD, FIXED, cut_to, font_file, known
from audit.report.sections import closing, first_page, sections_of, subtitle

_MARGIN = 17 * mm
_FOOT = 20 * mm
_WIDTH, _HEIGHT = A4[0] - 2 * _MARGIN, A4[1] - _MARGIN - _FOOT
_TEXT = 11
"""Height of the text of a drawing, in its units: a little less than on a page."""

_BLUE, _RED, _GREEN, _GREY = "#1b5e8a", "#8a0000", "#1d5c1d", "#4a4a4a"
_LOOKS = {"PASS": (_GREEN, "\u2713 "), "FAIL": (_RED, "\u2717 ")}


def render_pdf(report: Mapping[str, Any]) -> bytes:
    """Return the PDF of a report (A4); the same report and library give the same bytes.

    Characters that the embedded font (DejaVu, which comes with matplotlib) lacks are shown by their number.
    """
    _register_fonts()
    story: list[Flowable] = [Text("Audit report", _style("title")), _text(subtitle(report), "lead")]
    story += _flow(first_page(report), "h1")
    for place, section in enumerate(sections_of(report), 1):
        story.append(_Heading(f"{place}. {section.title}", _style("h1"), section.title, f"s{place}"))
        story += _flow(section.blocks, "h2")
    story += [Spacer(1, 6 * mm), _text(closing(report), "small")]
    output = io.BytesIO()
    document = BaseDocTemplate(
        output,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_FOOT,
        invariant=1,
        title=f"Audit report of {report['identity']['run_id']}",
        author="SecureFed",
        lang="en",
    )
    frame = Frame(_MARGIN, _FOOT, _WIDTH, _HEIGHT, 0, 0, 0, 0)
    name = report["identity"]["run_id"]
    document.addPageTemplates(PageTemplate("page", [frame], onPage=lambda canvas, _: _footer(canvas, name)))
    document.build(story)
    return output.getvalue()


class _Heading(Text):  # type: ignore[misc]  # reportlab has no types
    """A heading of a section that is also an entry of the outline."""

    def __init__(self, text: str, style: ParagraphStyle, title: str, key: str) -> None:
        super().__init__(escape(text), style)
        self._title, self._key = title, key

    def draw(self) -> None:
        self.canv.bookmarkPage(self._key)
        self.canv.addOutlineEntry(self._title, self._key, 0)
        super().draw()


class _Chart(Flowable):  # type: ignore[misc]
    """A drawing at the width of the text, or a little less; smaller where it would not fit a page with its caption."""

    def __init__(self, drawing: Drawing) -> None:
        super().__init__()
        self._drawing = drawing
        self._scale = min(1.0, _WIDTH / drawing.width * 0.86, _HEIGHT / drawing.height * 0.86)
        self.width, self.height = drawing.width * self._scale, drawing.height * self._scale

    def draw(self) -> None:
        canvas, high = self.canv, self._drawing.height
        canvas.scale(self._scale, self._scale)
        for shape in self._drawing.shapes:
            match shape:
                case Stroke(points, colour, width, dash):
                    canvas.setStrokeColor(HexColor(colour))
                    canvas.setLineWidth(width)
                    canvas.setDash([6, 4] if dash else [])
                    path = canvas.beginPath()
                    for index, (x, y) in enumerate(points):
                        (path.lineTo if index else path.moveTo)(x, high - y)
                    canvas.drawPath(path)
                case Box(x, y, width, height, colour):
                    canvas.setFillColor(HexColor(colour))
                    canvas.rect(x, high - y - height, width, height, stroke=0, fill=1)
                case Dot(x, y, radius, colour):
                    canvas.setFillColor(HexColor(colour))
                    canvas.circle(x, high - y, radius, stroke=0, fill=1)
                case Label():
                    self._write(canvas, shape)

    def _write(self, canvas: Canvas, label: Label) -> None:
        """Write a label; what is longer than on a page, as signs by their number are, ends with the drawing."""
        room = {"start": self._drawing.width - label.x, "end": label.x}.get(label.anchor, self._drawing.width)
        canvas.saveState()
        canvas.setFillColor(HexColor(label.colour))
        canvas.setFont(BODY, _TEXT)
        canvas.translate(label.x, self._drawing.height - label.y)
        if label.turned:
            canvas.rotate(90)
        draw = {"start": canvas.drawString, "middle": canvas.drawCentredString, "end": canvas.drawRightString}
        draw[label.anchor](0, 0, cut_to(known(label.text), room, _TEXT))
        canvas.restoreState()


def _flow(blocks: Sequence[Block], level: str) -> list[Flowable]:
    return [flowable for block in blocks for flowable in _block(block, level)]


def _block(block: Block, level: str) -> list[Flowable]:
    match block:
        case Paragraph(text, kind):
            return [_text(text, kind or "body")]
        case Subheading(text):
            return [_text(text, level)]
        case Bullets(items):
            return [Text(escape(known(item)), _style("bullet"), bulletText="\u2022") for item in items]
        case Table():
            return _table(block)
        case Figure(drawing, caption):
            return [KeepTogether([Spacer(1, 2 * mm), _Chart(drawing), _text(caption, "caption")])]
        case SignOff(roles):
            lines = [["_" * 24, f"{role}: name, date, signature"] for role in roles]
            cells = [[_text(line, "body"), _text(role, "body")] for line, role in lines]
            return [KeepTogether([Grid(cells, [_WIDTH * 0.35, _WIDTH * 0.65], rowHeights=14 * mm)])]


def _table(block: Table) -> list[Flowable]:
    size = 8.5 if len(block.header) <= 5 else 7
    right = set(block.numbers)

    def line(cells: Sequence[Cell], *, bold: bool) -> list[Text]:
        return [
            _cell(cell, size, bold=bold or index == 0, alignment=2 if index in right else 0)
            for index, cell in enumerate(cells)
        ]

    rows = [line(block.header, bold=True), *(line(row, bold=False) for row in block.rows)]
    widths = _column_widths(block)  # a row that is longer than a page goes on overleaf: splitInRow
    grid = Grid(rows, widths, repeatRows=1, splitInRow=1, hAlign="LEFT", spaceBefore=1, spaceAfter=10)
    rules: list[tuple[Any, ...]] = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("BACKGROUND", (0, 0), (-1, 0), HexColor("#eef3f6")),
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, HexColor("#c8c8c8")),
        *((side, (0, 0), (-1, -1), 3) for side in ("LEFTPADDING", "RIGHTPADDING", "TOPPADDING", "BOTTOMPADDING")),
    ]
    grid.setStyle(rules)
    return [_text(block.caption, "caption", keepWithNext=1), grid]


def _column_widths(block: Table) -> list[float]:
    """Widths by what stands in the columns: no word is broken where that can be helped, long text shares the rest."""
    columns = range(len(block.header))
    cells = [[block.header[index], *(plain(row[index]) for row in block.rows)] for index in columns]
    size = 8.5 if len(block.header) <= 5 else 7

    def measure(text: str) -> float:
        return float(pdfmetrics.stringWidth(known(text), BOLD, size)) + 8

    least = [
        min(max(measure(word) for text in column for word in text.split() or [""]), _WIDTH / 3) for column in cells
    ]
    wanted = [max(map(measure, column)) for column in cells]
    spare = max(0.0, _WIDTH - sum(least))
    more = [max(0.0, want - low) for want, low in zip(wanted, least, strict=True)]
    total = sum(more)
    if total <= spare:
        widths = [low + extra for low, extra in zip(least, more, strict=True)]
    else:
        widths = [low + spare * extra / total for low, extra in zip(least, more, strict=True)]
    scale = min(1.0, _WIDTH / sum(widths))
    return [width * scale for width in widths]


def _cell(cell: Cell, size: float, *, bold: bool, alignment: int) -> Text:
    style = _style("cell", fontSize=size, leading=size * 1.3, alignment=alignment)
    return Text(f"<b>{_markup(cell)}</b>" if bold else _markup(cell), style)


def _markup(cell: Cell) -> str:
    match cell:
        case Code(text):
            return f'<font face="{FIXED}" size="6.5">{escape(text)}</font>'
        case Verdict(word):
            colour, mark = _LOOKS.get(word, (_GREY, "\u2013 "))
            return f'<font color="{colour}"><b>{mark}{escape(word)}</b></font>'
        case Joined(parts):
            return "".join(map(_markup, parts))
        case Number() | None | "":
            shown = plain(cell)
            return "\u2013" if shown == "-" else escape(shown)
        case _:
            return escape(known(cell))


def _text(text: str, kind: str, **changes: Any) -> Text:
    return Text(escape(known(text)), _style(kind, **changes))


def _style(kind: str, **changes: Any) -> ParagraphStyle:
    looks: dict[str, dict[str, Any]] = {
        "title": {"fontName": BOLD, "fontSize": 18, "leading": 24},
        "lead": {"fontSize": 10.5, "leading": 15, "spaceAfter": 6},
        "h1": {"fontName": BOLD, "fontSize": 13, "leading": 17, "spaceBefore": 14, "spaceAfter": 5},
        "h2": {"fontName": BOLD, "fontSize": 10.5, "leading": 14, "spaceBefore": 8, "spaceAfter": 4},
        "alarm": {"fontName": BOLD, "textColor": HexColor(_RED)},
        "caption": {"fontSize": 8.5, "leading": 12, "textColor": HexColor(_GREY), "spaceBefore": 4},
        "bullet": {"leftIndent": 12, "bulletIndent": 2, "bulletFontName": BODY},
        "small": {"fontSize": 8, "leading": 11},
    }
    base: dict[str, Any] = {"fontName": BODY, "fontSize": 9.5, "leading": 13.5, "splitLongWords": 1}
    if kind in ("h1", "h2"):
        base["keepWithNext"] = 1
    if kind == "h1":
        base["textColor"] = HexColor(_BLUE)
    return ParagraphStyle(kind, **{**base, **looks.get(kind, {}), **changes})


def _footer(canvas: Canvas, name: str) -> None:
    canvas.setFont(BODY, 8)
    canvas.setFillColor(HexColor(_GREY))
    canvas.drawString(_MARGIN, 12 * mm, known(f"Audit report of {name}")[:90])
    canvas.drawRightString(A4[0] - _MARGIN, 12 * mm, f"page {canvas.getPageNumber()}")


def _register_fonts() -> None:
    if BODY in pdfmetrics.getRegisteredFontNames():
        return
    for name in (BODY, BOLD, FIXED):
        pdfmetrics.registerFont(TTFont(name, font_file(name)))
    pdfmetrics.registerFontFamily(BODY, BODY, BOLD, BODY, BOLD)
