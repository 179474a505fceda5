"""The entries of a ledger: chained canonical JSON lines, like those of a log, and the state that they add up to."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from audit.accounting import Adjacency, Repeated, mechanism_of
from audit.canonical import CanonicalError, decode_canonical, encode_canonical
from audit.errors import EvidenceError
from audit.ledger.accounts import ALL_DATA, UNITS, Account, Budget, BudgetLine, Charge
from audit.ledger.policy import RENEWAL_RULE, SignedRenewal, renewal_of
from audit.log import GENESIS
from audit.privacy_fields import ADJACENCY, DELTA, MECHANISM, UNIT
from audit.roster import is_small_order
from audit.rules import DIGEST, KEY, NAME, SIGNATURE, TIME, FieldError, Integer, Nullable, Real, Record, Rule, Tagged

_ENVELOPE: dict[str, Rule] = {"seq": Integer(), "prev": DIGEST, "time": TIME}
_CHARGE: dict[str, Rule] = {
    "hospital": NAME,
    "fingerprint": DIGEST,
    "unit": UNIT,
    "run_id": NAME,
    "release_id": NAME,
    "mechanism": MECHANISM,
    "repetitions": Integer(1),
}

ENTRY = Tagged(
    "kind",
    {
        "policy": Record(
            {
                **_ENVELOPE,
                "hospital": NAME,
                "unit": UNIT,
                "epsilon": Real(0, above=True),
                "delta": DELTA,
                "adjacency": ADJACENCY,
                "signer": KEY,
            }
        ),
        "renewed": Record({**_ENVELOPE, "renewal": RENEWAL_RULE, "signature": SIGNATURE}),
        "reserved": Record({**_ENVELOPE, **_CHARGE}),
        "released": Record({**_ENVELOPE, "release_id": NAME}),
        "committed": Record({**_ENVELOPE, "release_id": NAME}),
        "refused": Record({**_ENVELOPE, **_CHARGE, "epsilon": Nullable(Real(0)), "budget": Real(0)}),
    },
)
"""Forms of entries."""

_NEXT = {"reserved": "released", "released": "committed"}


@dataclass
class Spent:
    """One charge and how far it came; it counts from its reservation on.

    It had to fit into all of `lines`, whose limits of epsilon were `limits` then.
    """

    seq: int
    account: Account
    charge: Charge
    lines: tuple[BudgetLine, ...]
    limits: tuple[float, ...]
    state: str = "reserved"


@dataclass
class State:
    """What the entries so far add up to.

    Attributes:
        size: Entries.
        digest: SHA-256 of the last one.
        budgets: Limits by line.
        charges: All charges by release.
        declared: For the lines of single data sets: how many charges there were when they were opened.
    """

    size: int = 0
    digest: str = GENESIS
    budgets: dict[BudgetLine, Budget] = field(default_factory=dict)
    charges: dict[str, Spent] = field(default_factory=dict)
    declared: dict[BudgetLine, int] = field(default_factory=dict)

    def line_of(self, account: Account) -> BudgetLine | None:
        """Return the line that pays for an account; None where there is no budget."""
        for fingerprint in (account.fingerprint, ALL_DATA):
            line = BudgetLine(account.hospital, account.unit, fingerprint)
            if line in self.budgets:
                return line
        return None

    def lines_of(self, account: Account) -> tuple[BudgetLine, ...]:
        """Return every line that a release must fit into: the one that pays first, then those of finer units."""
        finer = UNITS[: UNITS.index(account.unit)]
        found = [self.line_of(account), *(self.line_of(replace(account, unit=unit)) for unit in reversed(finer))]
        return tuple(line for line in found if line is not None)

    def answers_for(self, line: BudgetLine) -> list[Spent]:
        """Return every charge that a line has to answer for, in order.

        Those of its hospital and unit, and those of coarser units, which are about the line's as well. The line of all
        data answers for all data sets, those with lines of their own included: a data set that nobody declared may hold
        any of them. The line of one data set answers for that one, and for those that turned up without a line after it
        was declared; of those before, and of those with lines, its signer has said that they share no patient.
        """
        charges = list(self.charges.values())
        about = [spent for spent in charges if _is_about(spent.account, line)]
        if line.fingerprint == ALL_DATA:
            return about
        apart = {s.account.fingerprint for s in charges[: self.declared[line]] if s.account.hospital == line.hospital}
        apart |= {other.fingerprint for other in self.declared if other.hospital == line.hospital}
        apart.discard(line.fingerprint)
        return [spent for spent in about if spent.account.fingerprint not in apart]

    def composition(self, line: BudgetLine) -> list[Repeated]:
        """Return everything that a line has to answer for, as it is about the line's unit."""
        return [part_of(spent.charge, spent.account, line) for spent in self.answers_for(line)]

    def take(self, encoded: bytes) -> None:
        """Add an entry.

        Raises:
            EvidenceError: The entry is damaged, out of order, or not allowed after those before it.
        """
        seq = self.size
        try:
            value: Any = decode_canonical(encoded)
            ENTRY.check(value, "entry")
        except (CanonicalError, FieldError) as error:
            raise EvidenceError(seq, f"the ledger entry is damaged: {error}") from error
        if value["seq"] != seq or value["prev"] != self.digest:
            raise EvidenceError(seq, "the ledger entry does not follow from the one before it")
        self._apply(value, seq)
        self.size += 1
        self.digest = hashlib.sha256(encoded).hexdigest()

    def encode(self, kind: str, time: str, fields: Mapping[str, Any]) -> bytes:
        """Return the bytes of the next entry."""
        return encode_canonical({"seq": self.size, "prev": self.digest, "time": time, "kind": kind, **fields})

    def _apply(self, value: Mapping[str, Any], seq: int) -> None:
        match value["kind"]:
            case "policy":
                line = BudgetLine(value["hospital"], value["unit"])
                if line in self.budgets:
                    raise EvidenceError(
                        seq, f"{line.hospital} has a budget for {line.unit} already; only a renewal changes it"
                    )
                if is_small_order(value["signer"]):
                    raise EvidenceError(
                        seq, f"anybody can renew the budget of {line.hospital}: its signer is a point of small order"
                    )
                adjacency = Adjacency(value["adjacency"])
                self.budgets[line] = Budget(value["epsilon"], value["delta"], adjacency, value["signer"])
            case "renewed":
                self._renew(SignedRenewal(renewal_of(value["renewal"]), value["signature"]), seq)
            case "reserved":
                self._reserve(value, seq)
            case "refused":
                pass  # costs nothing
            case state:
                spent = self.charges.get(value["release_id"])
                if spent is None or _NEXT.get(spent.state) != state:
                    known = "unknown" if spent is None else spent.state
                    raise EvidenceError(
                        seq, f"the release {value['release_id']!r} is {known} and cannot become {state}"
                    )
                spent.state = state

    def _renew(self, signed: SignedRenewal, seq: int) -> None:
        renewal = signed.renewal
        common = self.budgets.get(BudgetLine(renewal.line.hospital, renewal.line.unit))
        if common is None:
            raise EvidenceError(seq, f"{renewal.line.hospital} has no budget for {renewal.line.unit} to renew")
        old = self.budgets.get(renewal.line, Budget(0.0, common.delta, common.adjacency, common.signer))
        if not signed.is_by(old.signer):
            raise EvidenceError(seq, "the renewal is not signed by the signer of the budget")
        if renewal.serial != old.serial + 1:
            raise EvidenceError(seq, f"the renewal has the serial {renewal.serial}, the next one is {old.serial + 1}")
        if renewal.line not in self.budgets:
            self.declared[renewal.line] = len(self.charges)
        self.budgets[renewal.line] = Budget(renewal.epsilon, old.delta, old.adjacency, old.signer, renewal.serial)

    def _reserve(self, value: Mapping[str, Any], seq: int) -> None:
        if value["release_id"] in self.charges:
            raise EvidenceError(
                seq, f"the release {value['release_id']!r} was charged before; fresh noise is a new release"
            )
        account = Account(value["hospital"], value["fingerprint"], value["unit"])
        if self.line_of(account) is None:
            raise EvidenceError(seq, f"{account.hospital} has no budget for the unit {account.unit}")
        charge = Charge(value["run_id"], value["release_id"], mechanism_of(value["mechanism"]), value["repetitions"])
        lines = self.lines_of(account)
        limits = tuple(self.budgets[line].epsilon for line in lines)
        self.charges[charge.release_id] = Spent(seq, account, charge, lines, limits)


def part_of(charge: Charge, account: Account, line: BudgetLine) -> Repeated:
    """Return a charge as a line has to answer for it.

    A release at a coarser unit clips what the whole of it contributes: without one of its images a patient's
    contribution is another one, as if it had been replaced, and not only there or not.
    """
    return Repeated(charge.mechanism, charge.repetitions, replaced=account.unit != line.unit)


def _is_about(account: Account, line: BudgetLine) -> bool:
    """Whether what is released about an account is about the hospital and unit of a line, which may be finer."""
    return account.hospital == line.hospital and UNITS.index(account.unit) >= UNITS.index(line.unit)
