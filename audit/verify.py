"""Verification of a run folder from its files alone: offline, without torch, without trusting whoever ran it.

Every check names the first bad event. What a check needs and does not find is said to be absent; absent is not passed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from audit.check_epsilon import check_epsilon
from audit.check_files import check_bytes, check_config, check_files, check_model
from audit.check_heads import HeadsChecked, check_heads
from audit.errors import AccountingUnavailableError, EvidenceError
from audit.history import RunHistory, read_history
from audit.log import read_events
from audit.merkle import MerkleTree
from audit.report_signature import check_report_signature
from audit.roster import Roster
from audit.study import check_study


class Outcome(StrEnum):
    """How a check ended."""

    PASS = "PASS"  # noqa: S105 (no password)
    FAIL = "FAIL"
    ABSENT = "ABSENT"


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: What was checked.
        outcome: How it ended.
        detail: In words, for a reader who sees nothing else.
        seq: First bad event of a failed check, -1 where the fault lies in no single event.
    """

    name: str
    outcome: Outcome
    detail: str
    seq: int = -1


@dataclass(frozen=True)
class Verification:
    """What verification of a run folder found.

    Attributes:
        folder: The run folder.
        run_id: The run, "" where the log cannot be read.
        events: Events that the log holds.
        root: Merkle root over all of them, hex.
        is_complete: Whether the run reached its end.
        is_pinned: Whether signatures were checked against a roster from outside of the folder.
        checks: All checks in order.
        history: What the log says happened, as it was read for the checks; None where it cannot be read.
    """

    folder: Path
    run_id: str
    events: int
    root: str
    is_complete: bool
    is_pinned: bool
    checks: tuple[Check, ...]
    history: RunHistory | None = None

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.outcome is Outcome.FAIL)

    @property
    def is_verified(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    @property
    def first_bad_event(self) -> int:
        """The earliest event that a failed check names; -1 where nothing failed or no event is to blame."""
        return min((check.seq for check in self.failed if check.seq >= 0), default=-1)

    def require(self) -> None:
        """Raise EvidenceError where something failed, with the earliest bad event."""
        if self.failed:
            first = self.first_bad_event
            check = next((check for check in self.failed if check.seq == first), self.failed[0])
            raise EvidenceError(first, check.detail)


def verify_run(
    folder: Path,
    *,
    roster: Path | None = None,
    heads: Sequence[Path] = (),
    ledger: Path | None = None,
    report: bool = False,
) -> Verification:
    """Verify a run folder.

    Args:
        folder: The run folder; its audit.jsonl is the record, all other files are compared with it.
        roster: The roster that was agreed on before the run. Without it the one in the folder is used, which only shows
            that the run agrees with itself.
        heads: Heads files kept elsewhere, such as a hospital's own.
        ledger: A hospital's ledger, which must tell the same story as the log and hold no overspent budget.
        report: Whether to check the signature of report.json too.

    Returns:
        All checks; nothing that a file holds makes this raise.
    """
    checks: list[Check] = []
    try:
        events = read_events(folder / "audit.jsonl")
    except EvidenceError as error:
        checks.append(Check("log", Outcome.FAIL, f"the log does not verify: {error}", error.seq))
        return Verification(folder, "", 0, "", is_complete=False, is_pinned=False, checks=tuple(checks))
    tree = MerkleTree([event.line for event in events])
    checks.append(Check("log", Outcome.PASS, f"{len(events)} events, each bound to the one before"))
    try:
        history = read_history(events)
    except EvidenceError as error:
        checks.append(Check("history", Outcome.FAIL, f"the log contradicts itself: {error}", error.seq))
        return Verification(
            folder, str(events[0].fields["run_id"]), len(events), tree.root().hex(), False, False, tuple(checks)
        )
    checks.append(Check("history", Outcome.PASS, _rounds_in_words(history)))
    checks.append(_check_heads(folder, history, tree, roster, heads))
    steps: list[tuple[str, Callable[[], str | None]]] = [
        ("configuration", lambda: check_config(folder, history)),
        ("files", lambda: check_files(folder, history)),
        ("model", lambda: check_model(folder, history)),
        ("bytes", lambda: check_bytes(folder, history)),
        ("epsilon", lambda: check_epsilon(folder, history)),
    ]
    if history.started.fields["operation"] == "deployment":
        steps.append(("study", lambda: check_study(folder, history, None if roster is None else Roster.read(roster))))
    if ledger is not None:
        steps.append(("ledger", lambda: _check_ledger(ledger, history)))
    if report:
        steps.append(("report", lambda: _check_report(folder, history)))
    for name, run in steps:
        checks.append(_run(name, run))
    return Verification(
        folder=folder,
        run_id=history.run_id,
        events=len(events),
        root=tree.root().hex(),
        is_complete=history.completed is not None,
        is_pinned=roster is not None,
        checks=tuple(checks),
        history=history,
    )


def _check_heads(
    folder: Path, history: RunHistory, tree: MerkleTree, roster: Path | None, heads: Sequence[Path]
) -> Check:
    try:
        found = check_heads(folder, history, tree, None if roster is None else Roster.read(roster), heads)
    except EvidenceError as error:
        return Check("signatures", Outcome.FAIL, str(error), error.seq)
    if found is None:
        return Check("signatures", Outcome.ABSENT, "nobody signed this log: it shows an order, not who wrote it")
    return Check("signatures", Outcome.PASS, _heads_in_words(found, is_pinned=roster is not None))


def _check_ledger(path: Path, history: RunHistory) -> str:
    from audit.ledger import LedgerError, check_ledger

    try:
        return check_ledger(path, {history.run_id: history.events})
    except LedgerError as error:
        raise EvidenceError(-1, str(error)) from error


def _check_report(folder: Path, history: RunHistory) -> str | None:
    announced = history.last("roster")
    return check_report_signature(folder, None if announced is None else str(announced.fields["server"]))


def _run(name: str, check: Callable[[], str | None]) -> Check:
    try:
        detail = check()
    except EvidenceError as error:
        return Check(name, Outcome.FAIL, str(error), error.seq)
    except AccountingUnavailableError as error:
        return Check(name, Outcome.ABSENT, str(error))
    except (ValueError, ArithmeticError) as error:
        return Check(name, Outcome.FAIL, f"the log holds values that cannot be computed with ({error})")
    if detail is None:
        return Check(name, Outcome.ABSENT, "nothing of it is in the log")
    return Check(name, Outcome.PASS, detail)


def _rounds_in_words(history: RunHistory) -> str:
    again = len(history.rounds) - len(history.results)
    end = "the run reached its end" if history.completed else "THE RUN DID NOT REACH ITS END"
    return f"{len(history.results)} rounds follow one another{f', {again} were done again' if again else ''}; {end}"


def _heads_in_words(found: HeadsChecked, *, is_pinned: bool) -> str:
    whose = (
        "the roster given" if is_pinned else "the roster in the folder itself (give the one agreed on with --roster)"
    )
    kept = f" ({found.kept_elsewhere} copies as hospitals kept them)" if found.kept_elsewhere else ""
    open_end = f"; the last {found.unsigned} events are not signed" if found.unsigned else ""
    return f"{found.heads} tree heads{kept}, signed by {found.signers} parties of {whose}{open_end}"
