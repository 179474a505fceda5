"""Characters that pages and plots can draw: DejaVu has them, and they stay in order; others become their number."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import combining

from audit.report.reading_order import in_order

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

BODY, BOLD, FIXED = "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono"


def font_file(name: str) -> Path:
    """Return the file of a font that comes with matplotlib."""
    import matplotlib as mpl  # here: who verifies a record imports the forms of reports, and draws none

    return Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


def known(text: str) -> str:
    """Return text in characters that can be drawn, in regular and in bold; others by their number, as (U+4E2D)."""
    glyphs = _glyphs()
    return "".join(sign if ord(sign) in glyphs and in_order(sign) == sign else f"(U+{ord(sign):04X})" for sign in text)


def width_of(text: str, size: float, font: str = BODY) -> float:
    """Return how wide text of this size is, in the unit of the size; a sign that the font lacks is as wide as high."""
    return size * sum(_advance(sign, font) for sign in text)


def cut_to(text: str, room: float, size: float) -> str:
    """Return text of this size, its end cut off where it is wider than the room; `room` in the unit of the size."""
    if width_of(text, size) <= room:
        return text
    while text and width_of(f"{text}...", size) > room:
        text = text[:-1]
    return f"{text}..."


@cache
def _advance(sign: str, font: str) -> float:
    """How far a sign moves on what follows it, in heights of the text."""
    opened = _opened(font)
    if opened.get_char_index(ord(sign)) == 0:
        return 0.0 if combining(sign) else 1.0
    opened.set_size(1000, 72)
    return float(opened.load_char(ord(sign)).linearHoriAdvance / 65536 / 1000)


@cache
def _opened(name: str) -> "FT2Font":
    from matplotlib.ft2font import FT2Font

    return FT2Font(str(font_file(name)))


@cache
def _glyphs() -> frozenset[int]:
    regular, bold = (set(_opened(name).get_charmap()) for name in (BODY, BOLD))
    return frozenset(regular & bold)
