"""An approval: a hospital's signature over the digest of a study. Without one the hospital's node answers nothing."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.canonical import encode_canonical
from audit.roster import Roster, is_signed, public_hex
from audit.rules import DIGEST, NAME, SIGNATURE, Choice, FieldError, Record
from audit.study import APPROVAL_FORMAT, approval_message
from securefed.errors import ConfigError
from securefed.study.form import Study

_RULE: Final = Record({"format": Choice((APPROVAL_FORMAT,)), "hospital": NAME, "study": DIGEST, "signature": SIGNATURE})


@dataclass(frozen=True)
class Approval:
    """A hospital's approval of a study.

    Attributes:
        hospital: Its name in the roster.
        study: SHA-256 (hex) of the study.
        signature: Ed25519 signature (hex) of its identity key.
    """

    hospital: str
    study: str
    signature: str

    def encode(self) -> bytes:
        """Return the bytes of the file: canonical JSON and a line end."""
        value = {"format": APPROVAL_FORMAT, "hospital": self.hospital, "study": self.study}
        return encode_canonical({**value, "signature": self.signature}) + b"\n"

    def check(self, study: Study) -> None:
        """Refuse an approval of something else or by somebody else.

        Raises:
            ConfigError: It is; says of what or by whom.
        """
        if self.study != study.digest:
            raise ConfigError(
                "approval",
                f"{self.hospital} approved the study {self.study[:16]}..., this one is {study.digest[:16]}...; "
                "have the hospital look at this one and approve it",
            )
        check_signature(study.roster, self)


def check_signature(roster: Roster, approval: Approval) -> None:
    """Refuse an approval that its hospital did not sign; raises ConfigError."""
    key = roster.hospitals.get(approval.hospital)
    if key is None:
        raise ConfigError("approval", f"{approval.hospital!r} is no hospital of the roster")
    if not is_signed(key, approval.signature, approval_message(approval.hospital, approval.study)):
        raise ConfigError("approval", f"the signature is not that of {approval.hospital}'s key in the roster")


def approve(study: Study, hospital: str, key: Ed25519PrivateKey) -> Approval:
    """Sign a study.

    Raises:
        ConfigError: The roster has another key for the hospital, or none.
    """
    if study.roster.hospitals.get(hospital) != public_hex(key):
        raise ConfigError(
            "roster",
            f"the study's key of {hospital} is not the one of this site; send the lead the .pub file again",
        )
    return Approval(hospital, study.digest, key.sign(approval_message(hospital, study.digest)).hex())


def read_approval(path: Path) -> Approval:
    """Read an approval file; raises ConfigError where it is none."""
    try:
        value = json.loads(path.read_bytes())
        _RULE.check(value, "")
    except OSError as error:
        raise ConfigError("approval", f"{path} cannot be read ({error.strerror}); check the path") from error
    except (ValueError, FieldError) as error:
        raise ConfigError("approval", f"{path} is no approval: {error}") from error
    return Approval(value["hospital"], value["study"], value["signature"])
