"""Budgets and who may renew them: the policy file of a hospital, and signed renewals."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.accounting import Adjacency
from audit.canonical import JSON, CanonicalError, decode_canonical, encode_canonical
from audit.errors import EvidenceError
from audit.ledger.accounts import ALL_DATA, Budget, BudgetLine
from audit.ledger.errors import LedgerError
from audit.privacy_fields import ADJACENCY, BUDGET_DELTA, UNIT
from audit.regular_file import read_regular
from audit.roster import is_signed, is_small_order
from audit.rules import DIGEST, KEY, NAME, PROSE, SIGNATURE, Choice, FieldError, Integer, ListOf, Real, Record

POLICY_FORMAT = "securefed-budget-policy/1"
RENEWAL_FORMAT = "securefed-budget-renewal/1"
RENEWAL_LABEL = b"securefed budget renewal v1\n"
"""Precedes the renewal's bytes in what its signer signs."""

_LIMIT = Real(0, above=True)
_BUDGET = Record(
    {"hospital": NAME, "unit": UNIT, "epsilon": _LIMIT, "delta": BUDGET_DELTA, "adjacency": ADJACENCY, "signer": KEY}
)
_POLICY = Record({"format": Choice((POLICY_FORMAT,)), "budget": ListOf(_BUDGET, filled=True)})
_RENEWAL = Record(
    {
        "format": Choice((RENEWAL_FORMAT,)),
        "hospital": NAME,
        "unit": UNIT,
        "serial": Integer(1),
        "epsilon": _LIMIT,
        "reason": PROSE,
    },
    {"fingerprint": DIGEST},
)
_SIGNED = Record({"renewal": _RENEWAL, "signature": SIGNATURE})


@dataclass(frozen=True)
class Policy:
    """The budgets with which the accounts of a ledger begin; their deltas must be those that runs may have."""

    budgets: Mapping[BudgetLine, Budget]

    def __post_init__(self) -> None:
        for budget in self.budgets.values():
            BUDGET_DELTA.check(budget.delta, "delta")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a policy file (TOML).

        Raises:
            LedgerError: It is missing, has unknown or missing keys, values out of range, two budgets for one line, or a
                signer under whose key anybody can sign.
        """
        try:
            value = tomllib.loads(read_regular(path).decode("utf-8"))
            _POLICY.check(value, "")
        except OSError as error:
            raise LedgerError(path, f"cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise LedgerError(path, f"is no budget policy: {error}") from error
        budgets: dict[BudgetLine, Budget] = {}
        for entry in value["budget"]:
            line = BudgetLine(entry["hospital"], entry["unit"])
            if line in budgets:
                raise LedgerError(path, f"gives {line.hospital} two budgets for the unit {line.unit}")
            if is_small_order(entry["signer"]):
                reason = f"names for {line.hospital} a signer under whose key anybody can sign (a point of small order)"
                raise LedgerError(path, f"{reason}; ask its owner for the key in the .pub file of `keys new`")
            adjacency = Adjacency(entry["adjacency"])
            budgets[line] = Budget(entry["epsilon"], entry["delta"], adjacency, entry["signer"])
        return cls(budgets)


@dataclass(frozen=True)
class Renewal:
    """A new absolute limit for a budget line.

    Attributes:
        line: What it covers. With a fingerprint the signer says that none of its patients is in another data set.
        serial: One more than that of the budget it replaces.
        epsilon: The new limit over all runs, those before included.
        reason: Why, for the record.
    """

    line: BudgetLine
    serial: int
    epsilon: float
    reason: str

    def fields(self) -> dict[str, JSON]:
        """Return the renewal as JSON."""
        fields: dict[str, JSON] = {
            "format": RENEWAL_FORMAT,
            "hospital": self.line.hospital,
            "unit": self.line.unit,
            "serial": self.serial,
            "epsilon": self.epsilon,
            "reason": self.reason,
        }
        if self.line.fingerprint != ALL_DATA:
            fields["fingerprint"] = self.line.fingerprint
        return fields

    def sign(self, key: Ed25519PrivateKey) -> "SignedRenewal":
        """Return the renewal with the signature of `key`."""
        return SignedRenewal(self, key.sign(RENEWAL_LABEL + encode_canonical(self.fields())).hex())


@dataclass(frozen=True)
class SignedRenewal:
    """A renewal and the signature (hex) that makes it count."""

    renewal: Renewal
    signature: str

    def is_by(self, signer: str) -> bool:
        """Return whether the holder of this public key (hex) signed."""
        return is_signed(signer, self.signature, RENEWAL_LABEL + encode_canonical(self.renewal.fields()))

    def encode(self) -> bytes:
        """Return the bytes of a renewal file: canonical JSON and a line end."""
        return encode_canonical({"renewal": self.renewal.fields(), "signature": self.signature}) + b"\n"

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Read a renewal file; raises EvidenceError where it is none."""
        try:
            value: Any = decode_canonical(encoded.removesuffix(b"\n"))
            _SIGNED.check(value, "")
        except (CanonicalError, FieldError) as error:
            raise EvidenceError(-1, f"the renewal is damaged: {error}") from error
        return cls(renewal_of(value["renewal"]), value["signature"])


def renewal_of(fields: Mapping[str, Any]) -> Renewal:
    """Return the renewal of its checked JSON."""
    line = BudgetLine(fields["hospital"], fields["unit"], fields.get("fingerprint", ALL_DATA))
    return Renewal(line, fields["serial"], fields["epsilon"], fields["reason"])


RENEWAL_RULE = _RENEWAL
"""Form of a renewal within the ledger."""
