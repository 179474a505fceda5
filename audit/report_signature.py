"""The signature of report.json: whoever holds the report can see who made it and that nobody changed it since."""

import hashlib
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.canonical import CanonicalError, decode_canonical, encode_canonical
from audit.errors import EvidenceError
from audit.roster import is_signed, public_hex
from audit.rules import DIGEST, KEY, SIGNATURE, Choice, FieldError, Record

SIGNATURE_FORMAT = "securefed-report-signature/1"
SIGNATURE_FILE = "report.sig.json"
REPORT_LABEL = b"securefed report v1\n"
"""Precedes the report's bytes in what its maker signs."""

_RULE = Record({"format": Choice((SIGNATURE_FORMAT,)), "digest": DIGEST, "key": KEY, "signature": SIGNATURE})


def sign_report(encoded: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return the bytes of the signature file of a report.json: canonical JSON and a line end."""
    return (
        encode_canonical(
            {
                "format": SIGNATURE_FORMAT,
                "digest": hashlib.sha256(encoded).hexdigest(),
                "key": public_hex(key),
                "signature": key.sign(REPORT_LABEL + encoded).hex(),
            }
        )
        + b"\n"
    )


def check_report_signature(folder: Path, server: str | None) -> str | None:
    """Check report.json against its signature and the server's public key (hex).

    Returns:
        What was found in words, None where nobody signed a report.

    Raises:
        EvidenceError: The signature is damaged or not over this report, or its key is not the server's.
    """
    path = folder / SIGNATURE_FILE
    if not path.exists():
        return None
    try:
        value: Any = decode_canonical(path.read_bytes().removesuffix(b"\n"))
        _RULE.check(value, "")
        report = (folder / "report.json").read_bytes()
    except (CanonicalError, FieldError) as error:
        raise EvidenceError(-1, f"{SIGNATURE_FILE} is damaged: {error}") from error
    except OSError as error:
        raise EvidenceError(-1, f"report.json is signed and cannot be read ({error.strerror})") from error
    if not is_signed(value["key"], value["signature"], REPORT_LABEL + report):
        raise EvidenceError(-1, f"report.json is not the one that {SIGNATURE_FILE} is over: it was changed")
    if value["key"] != server:
        raise EvidenceError(-1, "report.json is signed by another key than the server's of the roster")
    return f"report.json (sha256 {value['digest'][:16]}...) is signed by the server"
