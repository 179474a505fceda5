"""What a source says about an image before its file was looked at."""

from dataclasses import dataclass
from unicodedata import category, normalize

from clients.data.errors import SiteError

_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks, embeddings, overrides and isolates of the Unicode bidirectional algorithm (UAX 9, section 2)."""

_MEAN = "mean over sites"
"""What tables and plots of results call the mean, in the column of the sites."""

LONGEST_NAME = 200
"""Characters of a name that an event of the audit log can hold."""

LONGEST_BYTES = 255
"""Bytes of a name that the protocol's roster can hold."""


@dataclass(frozen=True)
class Row:
    """One image as a folder or a table lists it.

    Attributes:
        path: Relative to the root of the data set, with forward slashes (or absolute).
        site: Hospital, composed (NFC): a disk that writes `e` and its accent apart names no other hospital.
        label: Class, likewise.
        patient: Patient, likewise; None where not said.
        split: One of SPLITS, None where not said.
    """

    path: str
    site: str
    label: str
    patient: str | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        for name in ("site", "label", "patient"):
            if (said := getattr(self, name)) is not None:
                object.__setattr__(self, name, composed(said))


def composed(text: str) -> str:
    """Return a text in Unicode's composed form (NFC), in which names are compared."""
    return normalize("NFC", text)


def check_site_name(site: str) -> None:
    """Refuse a name that could not be the name of a folder: results are kept in one folder a site.

    Raises:
        SiteError: The name starts with a dot, has a slash, a backslash, a control character or one that reorders text,
            is longer than LONGEST_NAME, is not UTF-8, or is what results call the mean over sites.
    """
    if not is_utf8(site):
        raise SiteError(site, "its folder or file has a name that is not UTF-8; rename it")
    if not site or site.startswith(".") or any(sign in "/\\" or category(sign) == "Cc" for sign in site):
        raise SiteError(site, "is no name for a site; use one without slashes that does not start with a dot")
    if fault := unrecordable(site):
        raise SiteError(site, fault)
    if site == _MEAN:
        raise SiteError(site, "is what results call the mean of all; rename it")


def unrecordable(name: str) -> str:
    """Return why the name of a site or class can stand in no record; "" where it can."""
    if not name:
        return "is empty; give it a name"
    if len(name) > LONGEST_NAME:
        return f"has {len(name)} characters, at most {LONGEST_NAME} can be recorded; use a shorter name"
    if len(name.encode()) > LONGEST_BYTES:
        return f"has {len(name.encode())} bytes in UTF-8, at most {LONGEST_BYTES} can be recorded; use a shorter name"
    if any(category(sign) == "Cc" for sign in name):
        return "holds line ends or control characters; rename it"
    if name != name.strip():
        return "begins or ends with a blank; rename it"
    return reordering(name)


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
