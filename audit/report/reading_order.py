"""Characters that change the order in which text is shown: a name with one would reorder the sentence around it."""

import re

_REORDERING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Marks, embeddings, overrides and isolates of the Unicode bidirectional algorithm (UAX 9, section 2)."""


def in_order(text: str) -> str:
    """Return text as it is stored: what would reorder it is shown by its number (U+202E as u202e after a backslash)."""
    return _REORDERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
