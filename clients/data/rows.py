"""What a source says about an image before its file was looked at."""

from dataclasses import dataclass
from unicodedata import category

from clients.data.errors import SiteError


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
        SiteError: The name starts with a dot, has a slash, a backslash or a control character, or is not UTF-8.
    """
    if not is_utf8(site):
        raise SiteError(site, "its folder or file has a name that is not UTF-8; rename it")
    if not site or site.startswith(".") or any(sign in "/\\" or category(sign) == "Cc" for sign in site):
        raise SiteError(site, "is no name for a site; use one without slashes that does not start with a dot")


def is_utf8(name: str) -> bool:
    """Return whether a name, as the system gives it, is text: bytes that are not UTF-8 come as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
