"""Characters that pages and plots can draw: DejaVu has them, and they stay in order; others become their number."""

from functools import cache
from pathlib import Path

import matplotlib as mpl
from matplotlib.ft2font import FT2Font

from audit.report.reading_order import in_order

BODY, BOLD, FIXED = "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono"


def font_file(name: str) -> Path:
    """Return the file of a font that comes with matplotlib."""
    return Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


def known(text: str) -> str:
    """Return text in characters that can be drawn, in regular and in bold; others by their number, as (U+4E2D)."""
    glyphs = _glyphs()
    return "".join(sign if ord(sign) in glyphs and in_order(sign) == sign else f"(U+{ord(sign):04X})" for sign in text)


@cache
def _glyphs() -> frozenset[int]:
    regular, bold = (set(FT2Font(str(font_file(name))).get_charmap()) for name in (BODY, BOLD))
    return frozenset(regular & bold)
