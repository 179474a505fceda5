"""What a source says about an image before its file was looked at."""

from dataclasses import dataclass
from unicodedata import category

from clients.data.errors import SiteError

_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks, embeddings, overrides and isolates of the Unicode bidirectional algorithm (UAX 9, section 2)."""

_MEAN = "mean over sites"
"""What tables and plots of results call the mean, in the column of the sites."""


@dataclass(frozen=True)
class Row:
    """One image as a folder or a table lists it.

    Attributes:
        path: Relative to the root of the data set, with forward slashes (or absolute).
        site: Hospital.
        label: Class.
        patient: Patient, None where not said.
        split: One of SPLITS, None where not said.
    """

    path: str
    site: str
    label: str
    patient: str | None = None
    split: str | None = None


def check_site_name(site: str) -> None:
    """Refuse a name that could not be the name of a folder: results are kept in one folder a site.

    Raises:
        SiteError: The name starts with a dot, has a slash, a backslash, a control character or one that reorders text,
            is not UTF-8, or is what results call the mean over sites.
    """
    if not is_utf8(site):
        raise SiteError(site, "its folder or file has a name that is not UTF-8; rename it")
    if not site or site.startswith(".") or any(sign in "/\\" or category(sign) == "Cc" for sign in site):
        raise SiteError(site, "is no name for a site; use one without slashes that does not start with a dot")
    if fault := reordering(site):
        raise SiteError(site, fault)
    if site == _MEAN:
        raise SiteError(site, "is what results call the mean of all; rename it")


def reordering(name: str) -> str:
    """Return what is wrong with a name that changes the order in which the text around it is shown; "" for others."""
    found = sorted({f"U+{ord(sign):04X}" for sign in name if sign in _REORDERING})
    return f"holds {', '.join(found)}, which reorders the text around it; rename it" if found else ""


def is_utf8(name: str) -> bool:
    """Return whether a name, as the system gives it, is text: bytes that are not UTF-8 come as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
