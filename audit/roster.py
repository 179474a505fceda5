"""The roster: who signs the evidence of a study, by name and Ed25519 public key.

It is handed out before the study, outside of the run. Evidence checked against a roster that came with the run only
shows that the run agrees with itself.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.canonical import JSON, CanonicalError, decode_canonical, encode_canonical
from audit.errors import EvidenceError
from audit.regular_file import read_regular
from audit.rules import KEY, NAME, Choice, FieldError, MapOf, Record

ROSTER_FORMAT = "securefed-roster/1"

_RULE = Record({"format": Choice((ROSTER_FORMAT,)), "server": KEY, "hospitals": MapOf(KEY, NAME)})


_SMALL_ORDER = frozenset(
    bytes.fromhex(encoded)
    for encoded in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""y of the points of order 1, 2, 4 and 8 of edwards25519, those that are not reduced among them."""


@dataclass(frozen=True)
class Roster:
    """Public keys of the parties, lower-case hex of 32 bytes.

    Attributes:
        server: Key of the party that writes the log.
        hospitals: {name: key} of the parties that countersign it.
    """

    server: str
    hospitals: Mapping[str, str]

    @classmethod
    def of(cls, server: Ed25519PrivateKey, hospitals: Mapping[str, Ed25519PrivateKey]) -> Self:
        """Return the roster of the public halves of these keys."""
        return cls(public_hex(server), {name: public_hex(key) for name, key in hospitals.items()})

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Read a roster file.

        Raises:
            EvidenceError: The bytes are no roster, a key stands twice in it, or one protects nothing.
        """
        try:
            if not encoded.endswith(b"\n"):
                raise EvidenceError(-1, "the roster is damaged: its line does not end")
            value = decode_canonical(encoded.removesuffix(b"\n"))
            _RULE.check(value, "")
        except (CanonicalError, FieldError) as error:
            raise EvidenceError(-1, f"the roster is damaged: {error}") from error
        assert isinstance(value, Mapping)  # noqa: S101 (narrows the type)
        server, hospitals = value["server"], value["hospitals"]
        assert isinstance(server, str)  # noqa: S101
        assert isinstance(hospitals, Mapping)  # noqa: S101
        keys = [server, *map(str, hospitals.values())]
        if len(set(keys)) != len(keys):
            raise EvidenceError(-1, "the roster gives one key to two parties")
        if any(is_small_order(key) for key in keys):
            raise EvidenceError(-1, "the roster holds a key under which anybody can sign (a point of small order)")
        return cls(server, {name: str(key) for name, key in hospitals.items()})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a roster file; raises EvidenceError where it is missing or damaged."""
        try:
            return cls.decode(read_regular(path))
        except OSError as error:
            raise EvidenceError(-1, f"{path} cannot be read ({error.strerror})") from error

    def encode(self) -> bytes:
        """Return the bytes of the roster file: canonical JSON and a line end."""
        value: JSON = {"format": ROSTER_FORMAT, "server": self.server, "hospitals": dict(self.hospitals)}
        return encode_canonical(value) + b"\n"

    @property
    def digest(self) -> str:
        """SHA-256 of the file, as the log's `roster` event and the announcement of a study state it."""
        return hashlib.sha256(self.encode()).hexdigest()


def is_small_order(public_key: str) -> bool:
    """Return whether signatures under a key (hex) prove nothing: some hold for every message (RFC 8032, 5.1.7).

    Such a point times eight is the identity, so that R = A = that point, S = 0 verifies whatever was signed.
    """
    encoded = bytearray.fromhex(public_key)
    encoded[-1] &= 0x7F  # the sign of x
    return bytes(encoded) in _SMALL_ORDER


def public_hex(key: Ed25519PrivateKey) -> str:
    """Return the public half of a key in lower-case hex."""
    return key.public_key().public_bytes_raw().hex()


def is_signed(public_key: str, signature: str, message: bytes) -> bool:
    """Return whether `signature` (hex) over `message` is by the holder of `public_key` (hex); a key has to have one."""
    if is_small_order(public_key):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True
