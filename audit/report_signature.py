"""The signature of a report: whoever holds it can see who made it and that nobody changed it or its pages since."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.canonical import JSON, CanonicalError, decode_canonical, encode_canonical
from audit.errors import EvidenceError
from audit.regular_file import read_regular
from audit.roster import is_signed, public_hex
from audit.rules import DIGEST, KEY, NAME, SIGNATURE, Choice, FieldError, MapOf, Record

SIGNATURE_FORMAT = "securefed-report-signature/2"
SIGNATURE_FILE = "report.sig.json"
REPORT_LABEL = b"securefed report v1\n"
"""Precedes the bytes of report.json in what its maker signs."""

CHANGED: Final = "it was changed, or its writing was cut off; write the report anew with audit report --key"
"""Why a file of a report is not the one that was signed, and the next step of whoever has the server's key."""

PAGES_LABEL = b"securefed report pages v1\n"
"""Precedes the canonical bytes of the pages' digests and of the report's."""

_RULE = Record(
    {
        "format": Choice((SIGNATURE_FORMAT,)),
        "digest": DIGEST,
        "key": KEY,
        "signature": SIGNATURE,
        "pages": MapOf(DIGEST, NAME),
        "pages_signature": SIGNATURE,
    }
)


@dataclass(frozen=True)
class SignedReport:
    """A report.json whose signature holds.

    Attributes:
        encoded: Its bytes.
        pages: {name of a file: SHA-256 (hex)} of what was made of it and is signed with it.
    """

    encoded: bytes
    pages: Mapping[str, str]


def sign_report(encoded: bytes, key: Ed25519PrivateKey, pages: Mapping[str, bytes]) -> bytes:
    """Return the bytes of the signature file of a report: canonical JSON and a line end.

    Args:
        encoded: The bytes of report.json.
        key: The key of its maker.
        pages: {name: bytes} of the files that are made of it.
    """
    digest = hashlib.sha256(encoded).hexdigest()
    digests: dict[str, JSON] = {name: hashlib.sha256(content).hexdigest() for name, content in pages.items()}
    return (
        encode_canonical(
            {
                "format": SIGNATURE_FORMAT,
                "digest": digest,
                "key": public_hex(key),
                "signature": key.sign(REPORT_LABEL + encoded).hex(),
                "pages": digests,
                "pages_signature": key.sign(_pages_message(digest, digests)).hex(),
            }
        )
        + b"\n"
    )


def read_signed_report(folder: Path, server: str | None) -> SignedReport | None:
    """Check report.json and the digests of its pages against their signatures and the server's public key (hex).

    Returns:
        What is signed, None where nobody signed a report.

    Raises:
        EvidenceError: A signature is damaged or not over this report, or its key is not the server's.
    """
    path = folder / SIGNATURE_FILE
    if not path.exists():
        return None
    try:
        value: Any = decode_canonical(read_regular(path).removesuffix(b"\n"))
        _RULE.check(value, "")
        report = read_regular(folder / "report.json")
    except (CanonicalError, FieldError) as error:
        raise EvidenceError(-1, f"{SIGNATURE_FILE} is damaged: {error}") from error
    except OSError as error:
        raise EvidenceError(-1, f"report.json is signed and cannot be read ({error.strerror})") from error
    if not is_signed(value["key"], value["signature"], REPORT_LABEL + report):
        raise EvidenceError(-1, f"report.json is not the one that {SIGNATURE_FILE} is over: {CHANGED}")
    if value["key"] != server:
        raise EvidenceError(-1, "report.json is signed by another key than the server's of the roster")
    if value["digest"] != hashlib.sha256(report).hexdigest():
        raise EvidenceError(-1, f"{SIGNATURE_FILE} states another digest than that of report.json")
    if not is_signed(value["key"], value["pages_signature"], _pages_message(value["digest"], value["pages"])):
        raise EvidenceError(-1, f"the digests of pages in {SIGNATURE_FILE} are not those that the server signed")
    return SignedReport(report, value["pages"])


def _pages_message(report: str, pages: Mapping[str, JSON]) -> bytes:
    return PAGES_LABEL + encode_canonical({"digest": report, "pages": dict(pages)})
