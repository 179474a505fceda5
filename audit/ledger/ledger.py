"""The budget across runs: every release is charged before it leaves, and refused where it would exceed the limit.

Charges are facts about noise; epsilon is composed anew from all of them. A charge counts from its reservation on and is
never taken back: a crash at any instant keeps it. Several processes may use one ledger; each step is one transaction.
"""

import json
import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from audit.accounting import Repeated, bound_against, mechanism_fields, upper_epsilon
from audit.errors import EvidenceError
from audit.ledger.accounts import Account, Budget, BudgetLine, Charge
from audit.ledger.database import open_database, read_database
from audit.ledger.entries import Spent, State, part_of
from audit.ledger.errors import BudgetExceededError, LedgerError, NoBudgetError, NoLedgerError
from audit.ledger.policy import Policy, SignedRenewal
from audit.log import Clock, system_clock


class FaultPoint(StrEnum):
    """Every instant between two steps at which a process may be killed; tests kill it at each."""

    BEFORE_RESERVE = "before reserve"
    WITHIN_RESERVE = "within reserve, entry written, transaction open"
    AFTER_RESERVE = "after reserve"
    WITHIN_RELEASE = "within release, entry written, transaction open"
    AFTER_RELEASE = "after release"
    WITHIN_COMMIT = "within commit, entry written, transaction open"
    AFTER_COMMIT = "after commit"


def _no_fault(_: FaultPoint) -> None:
    pass


@dataclass(frozen=True)
class AccountStatus:
    """Where an account stands.

    Attributes:
        spent: Upper bound on epsilon of all that the line that pays for the account answers for.
        remaining: What is left of epsilon, of lines of finer units as well that releases have to fit into; the cost of
            further releases does not simply subtract from it.
        charges: Releases that the line answers for, in order.
    """

    spent: float
    remaining: float
    charges: tuple[Spent, ...]


class Ledger:
    """A ledger in a file; a context manager. One object per process and thread.

    Args:
        path: The database, made where it is new.
        clock: Where the times of entries come from; nothing depends on them.
        fault: Called at each FaultPoint.
        read_only: See `reading`.

    Raises:
        LedgerError: The file is no ledger or cannot be used.
        EvidenceError: An entry was changed.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock = system_clock,
        fault: Callable[[FaultPoint], None] = _no_fault,
        *,
        read_only: bool = False,
    ) -> None:
        self.path = path
        self._clock = clock
        self._fault = fault
        self._state = State()
        self._begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"
        self._connection = read_database(path) if read_only else open_database(path)
        try:
            self._catch_up()
        except sqlite3.Error as error:
            self._connection.close()
            raise LedgerError(path, f"is no ledger or cannot be used ({error})") from error
        except EvidenceError:
            self._connection.close()
            raise

    @classmethod
    def existing(cls, path: Path, clock: Clock = system_clock) -> Self:
        """Open a ledger that must be there already; raises NoLedgerError where it is not."""
        _require_file(path)
        return cls(path, clock)

    @classmethod
    def reading(cls, path: Path) -> Self:
        """Return a ledger as it is now, to be read alone; of one that nobody writes no file is made beside it.

        Raises:
            NoLedgerError: There is none, or it cannot be read.
            EvidenceError: An entry was changed.
        """
        _require_file(path)
        return cls(path, read_only=True)

    def install(self, policy: Policy) -> None:
        """Give lines their first budget; lines that have this very budget already are left as they are.

        Raises:
            LedgerError: A line has another budget: only a signed renewal changes it.
        """
        with self._transaction():
            for line, budget in policy.budgets.items():
                known = self._state.budgets.get(line)
                if known is not None and known != budget:
                    reason = f"{line.hospital} has another budget for {line.unit}; only a signed renewal changes it"
                    raise LedgerError(self.path, reason)
                if known is not None:
                    continue
                self._write(
                    "policy",
                    {
                        "hospital": line.hospital,
                        "unit": line.unit,
                        "epsilon": budget.epsilon,
                        "delta": budget.delta,
                        "adjacency": str(budget.adjacency),
                        "signer": budget.signer,
                    },
                )

    def renew(self, signed: SignedRenewal) -> None:
        """Take in a signed renewal.

        Raises:
            EvidenceError: It is not signed by the budget's signer, or is old; nothing is changed.
        """
        with self._transaction():
            self._write("renewed", {"renewal": signed.renewal.fields(), "signature": signed.signature})

    def reserve(self, account: Account, charge: Charge) -> float:
        """Charge a release before it happens; return an upper bound on epsilon with it.

        Raises:
            BudgetExceededError: The release would exceed the budget; the refusal is recorded and nothing is charged.
            LedgerError: The account has no budget, or the release was charged before.

        Its own line must bear it, and those of finer units: a release about a patient is one about each of its images.
        """
        self._fault(FaultPoint.BEFORE_RESERVE)
        epsilon = self._charge(account, charge, in_force=True)
        self._fault(FaultPoint.AFTER_RESERVE)
        return epsilon

    def foresee(self, account: Account, charge: Charge, *, record: bool = True) -> float:
        """Return what a charge would bring epsilon to, and charge nothing: for a whole run before its first release.

        Args:
            account: Whose data.
            charge: What would be released.
            record: Whether a refusal is recorded.

        Raises:
            BudgetExceededError: It would exceed the budget; the refusal is recorded.
            NoBudgetError: The account has no budget.
        """
        return self._charge(account, charge, in_force=False, record=record)

    def _charge(self, account: Account, charge: Charge, *, in_force: bool, record: bool = True) -> float:
        refused: BudgetExceededError | None = None
        with self._transaction():
            if self._state.line_of(account) is None:
                raise NoBudgetError(
                    self.path, f"{account.hospital} has no budget for the unit {account.unit}; install a policy first"
                )
            if (known := self._state.charges.get(charge.release_id)) is not None:
                raise LedgerError(
                    self.path,
                    f"the release {charge.release_id!r} was charged before by the run {known.charge.run_id!r}; fresh "
                    "noise is a new release: go on with that run, or start one in a folder of its own",
                )
            bounds = [(one, self._with(one, account, charge)) for one in self._state.lines_of(account)]
            fields = {
                "hospital": account.hospital,
                "fingerprint": account.fingerprint,
                "unit": account.unit,
                "run_id": charge.run_id,
                "release_id": charge.release_id,
                "mechanism": mechanism_fields(charge.mechanism),
                "repetitions": charge.repetitions,
            }
            exceeded = [(one, cost) for one, cost in bounds if cost > self._state.budgets[one].epsilon]
            if exceeded:
                line, epsilon = exceeded[0]
                budget = self._state.budgets[line]
                stated = epsilon if math.isfinite(epsilon) else None
                if record:
                    self._write("refused", {**fields, "epsilon": stated, "budget": budget.epsilon})
                whom = account.hospital, line.unit
                refused = BudgetExceededError(*whom, epsilon, budget.epsilon, account.unit, foreseen=not in_force)
            elif in_force:
                self._write("reserved", fields)
                self._fault(FaultPoint.WITHIN_RESERVE)
        if refused is not None:
            raise refused
        return bounds[0][1]

    def _with(self, line: BudgetLine, account: Account, charge: Charge) -> float:
        """Return an upper bound on what a line would answer for together with a charge."""
        budget, more = self._state.budgets[line], part_of(charge, account, line)
        return bound_against([*self._state.composition(line), more], budget.epsilon, budget.delta, budget.adjacency)

    def release(self, release_id: str) -> None:
        """Record that a reserved release leaves now; only after this may it be sent.

        Raises:
            EvidenceError: It is not reserved.
        """
        with self._transaction():
            self._write("released", {"release_id": release_id})
            self._fault(FaultPoint.WITHIN_RELEASE)
        self._fault(FaultPoint.AFTER_RELEASE)

    def commit(self, release_id: str) -> None:
        """Record that a release has been sent.

        Raises:
            EvidenceError: It was not released.
        """
        with self._transaction():
            self._write("committed", {"release_id": release_id})
            self._fault(FaultPoint.WITHIN_COMMIT)
        self._fault(FaultPoint.AFTER_COMMIT)

    def status(self, account: Account) -> AccountStatus:
        """Return where an account stands.

        Raises:
            LedgerError: It has no budget.
        """
        line = self._line_of(account)
        costs = {one: self._spent(one) for one in self._state.lines_of(account)}
        return AccountStatus(
            spent=costs[line],
            remaining=max(0.0, min(self._state.budgets[one].epsilon - cost for one, cost in costs.items())),
            charges=tuple(self._state.answers_for(line)),
        )

    def _line_of(self, account: Account) -> BudgetLine:
        self._catch_up()
        line = self._state.line_of(account)
        if line is None:
            raise LedgerError(self.path, f"{account.hospital} has no budget for the unit {account.unit}")
        return line

    def _spent(self, line: BudgetLine) -> float:
        budget = self._state.budgets[line]
        return upper_epsilon(self._state.composition(line), budget.delta, budget.adjacency)

    def budget_of(self, account: Account) -> Budget:
        """Return the limit that an account is under.

        Raises:
            LedgerError: It has no budget.
        """
        return self._state.budgets[self._line_of(account)]

    def budgets(self) -> dict[BudgetLine, Budget]:
        """Return the present limit of every line."""
        self._catch_up()
        return dict(self._state.budgets)

    def charges(self, run_id: str | None = None) -> tuple[Spent, ...]:
        """Return all charges, or those of one run, in order."""
        self._catch_up()
        return tuple(s for s in self._state.charges.values() if run_id is None or s.charge.run_id == run_id)

    def at_last_charge(self, line: BudgetLine) -> tuple[list[Repeated], float]:
        """Return what a line had to answer for, and its limit, when a release had to fit into it for the last time.

        What other lines paid for since then, or a limit that was lowered, can put it above its limit today: that
        refuses what comes next, and nobody has overspent. A line that never bore a release has nothing and no limit.
        """
        self._catch_up()
        found = self._state.answers_for(line)
        last = next((spent for spent in reversed(found) if line in spent.lines), None)
        if last is None:
            return [], math.inf
        then = [part_of(spent.charge, spent.account, line) for spent in found if spent.seq <= last.seq]
        return then, last.limits[last.lines.index(line)]

    def entries(self, kind: str | None = None) -> tuple[dict[str, Any], ...]:
        """Return all entries, or those of one kind, as verified JSON in order."""
        self._catch_up()
        rows = self._connection.execute("SELECT line FROM entries ORDER BY seq")
        found = tuple(json.loads(bytes(line)) for (line,) in rows)
        return tuple(entry for entry in found if kind is None or entry["kind"] == kind)

    @property
    def digest(self) -> str:
        """SHA-256 of the last entry: names the whole ledger."""
        self._catch_up()
        return self._state.digest

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Hold the write lock over a block; what it wrote is durable after it, or undone whole.

        A ledger that is read alone has no lock to hold, and refuses the writing.
        """
        before = (self._state.size, self._state.digest)
        try:
            self._connection.execute(self._begin)
        except sqlite3.Error as error:
            raise LedgerError(self.path, f"cannot be locked ({error})") from error
        try:
            self._catch_up()
            before = (self._state.size, self._state.digest)
            yield
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if (self._state.size, self._state.digest) != before:
                self._state = State()
            if isinstance(error, sqlite3.Error):
                raise LedgerError(self.path, f"cannot be written ({error})") from error
            raise

    def _catch_up(self) -> None:
        """Read the entries that other processes have added."""
        rows = self._connection.execute(
            "SELECT seq, line FROM entries WHERE seq >= ? ORDER BY seq", (self._state.size,)
        )
        for seq, line in rows:
            if seq != self._state.size:
                raise EvidenceError(self._state.size, "a ledger entry is missing")
            self._state.take(bytes(line))

    def _write(self, kind: str, fields: dict[str, Any]) -> None:
        time = self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        seq, line = self._state.size, self._state.encode(kind, time, fields)
        self._state.take(line)
        self._connection.execute("INSERT INTO entries (seq, line) VALUES (?, ?)", (seq, line))


def _require_file(path: Path) -> None:
    if not path.is_file():
        wrong = "is no ledger" if path.exists() else "does not exist"
        raise NoLedgerError(path, f"{wrong}; `audit ledger policy` makes one from a budget policy")
