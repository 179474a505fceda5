"""Verification of a run folder from its files alone: offline, without torch, without trusting whoever ran it.

Every check names the first bad event. What a check needs and does not find is said to be absent; absent is not passed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from audit.check_epsilon import check_epsilon
from audit.check_files import check_bytes, check_config, check_files, check_model
from audit.check_heads import HeadsChecked, check_heads
from audit.check_report import check_report
from audit.check_sums import check_sums
from audit.data_name import DATA_KEY, named_data
from audit.errors import AccountingUnavailableError, EvidenceError, KeyFileError, NothingToCompareError
from audit.history import RunHistory, read_history
from audit.log import read_events, set_back
from audit.merkle import MerkleTree
from audit.roster import Roster
from audit.study import check_study

_FOREIGN = (ValueError, ArithmeticError, TypeError, AttributeError, LookupError, RecursionError)
"""What reading files can raise that somebody has written with intent: the check fails, verification goes on."""


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
        unsigned_by: Hospitals of the roster that did not countersign the end of the run, or of a run without an end no
            tree head; empty where nobody signed any.
        unsigned: Events at the end that too few hospitals countersigned: those after a crash, or attacks after the run.
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
    unsigned_by: tuple[str, ...] = ()
    unsigned: int = 0

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
        checks.append(Check("log", Outcome.FAIL, _plain(f"the log does not verify: {error}"), error.seq))
        return Verification(folder, "", 0, "", is_complete=False, is_pinned=False, checks=tuple(checks))
    tree = MerkleTree([event.line for event in events])
    checks.append(Check("log", Outcome.PASS, f"{len(events)} events, each bound to the one before"))
    try:
        history = read_history(events)
    except (EvidenceError, *_FOREIGN) as error:
        seq = error.seq if isinstance(error, EvidenceError) else -1
        checks.append(Check("history", Outcome.FAIL, _plain(f"the log contradicts itself: {error}"), seq))
        return Verification(
            folder, str(events[0].fields["run_id"]), len(events), tree.root().hex(), False, False, tuple(checks)
        )
    checks.append(Check("history", Outcome.PASS, _rounds_in_words(history)))
    signatures, signed = _check_heads(folder, history, tree, roster, heads)
    checks.append(signatures)
    steps: list[tuple[str, Callable[[], str | None]]] = [
        ("sums", lambda: check_sums(history)),
        ("configuration", lambda: check_config(folder, history)),
        ("files", lambda: check_files(folder, history)),
        ("model", lambda: check_model(folder, history)),
        ("bytes", lambda: check_bytes(folder, history)),
        ("epsilon", lambda: check_epsilon(folder, history)),
    ]
    if history.started.fields["operation"] == "deployment":
        steps.append(("study", lambda: check_study(folder, history, None if roster is None else Roster.read(roster))))
    if ledger is not None:
        steps.append(("ledger", lambda: _check_ledger(ledger, history, folder)))
    if report:
        steps.append(("report", lambda: check_report(folder, history, tree)))
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
        unsigned_by=() if signed is None else signed.unsigned_by,
        unsigned=0 if signed is None else signed.unsigned,
    )


def _check_heads(
    folder: Path, history: RunHistory, tree: MerkleTree, roster: Path | None, heads: Sequence[Path]
) -> tuple[Check, HeadsChecked | None]:
    """Return the check, and what it found where it passed."""
    passed: list[HeadsChecked] = []

    def check() -> str:
        found = check_heads(folder, history, tree, None if roster is None else Roster.read(roster), heads)
        if found is None:
            raise NothingToCompareError("nobody signed this log: it shows an order, not who wrote it")
        passed.append(found)
        return _heads_in_words(found, is_pinned=roster is not None, is_complete=history.completed is not None)

    return _run("signatures", check), next(iter(passed), None)


def _check_ledger(path: Path, history: RunHistory, folder: Path) -> str:
    from audit.ledger import LedgerError, count_agreeing, run_of_log

    key, charged = folder / DATA_KEY, any(event.kind == "charge" for event in history.events)
    named = partial(named_data, key) if key.exists() else None
    try:
        agreeing = count_agreeing(path, {run_of_log(history.events): history.events}, named)
    except (LedgerError, KeyFileError) as error:
        raise EvidenceError(-1, str(error)) from error
    if not agreeing:
        raise NothingToCompareError(
            f"{path} and the log have no charge in common: it may be the ledger of others, or of a hospital in no sum"
        )
    left = f"; on which data was not compared: {DATA_KEY} is not here" if charged and named is None else ""
    return f"{agreeing} charges of the log agree with the ledger; no budget was exceeded{left}"


def _run(name: str, check: Callable[[], str | None]) -> Check:
    try:
        detail = check()
    except EvidenceError as error:
        return Check(name, Outcome.FAIL, _plain(str(error)), error.seq)
    except (AccountingUnavailableError, NothingToCompareError) as error:
        return Check(name, Outcome.ABSENT, _plain(str(error)))
    except _FOREIGN as error:
        reason = f"the log or a file holds values that cannot be computed with ({type(error).__name__}: {error})"
        return Check(name, Outcome.FAIL, _plain(reason))
    if detail is None:
        return Check(name, Outcome.ABSENT, "nothing of it is in the log")
    return Check(name, Outcome.PASS, _plain(detail))


def _plain(text: str) -> str:
    """Names of files and hospitals may hold what a terminal takes for a command, or nothing can print."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _rounds_in_words(history: RunHistory) -> str:
    again = len(history.rounds) - len(history.results)
    end = "the run reached its end" if history.completed else "THE RUN DID NOT REACH ITS END"
    back = f"; {said}" if (said := set_back(history.events)) else ""
    found = f"{len(history.results)} rounds follow one another{f', {again} were done again' if again else ''}"
    return f"{found}; {end}{back}"


def _heads_in_words(found: HeadsChecked, *, is_pinned: bool, is_complete: bool) -> str:
    whose = (
        "the roster given" if is_pinned else "the roster in the folder itself (give the one agreed on with --roster)"
    )
    kept = f" ({found.kept_elsewhere} copies as hospitals kept them)" if found.kept_elsewhere else ""
    open_end = f"; the last {found.unsigned} events are not signed by enough hospitals" if found.unsigned else ""
    signed = f"signed by {found.parties - len(found.unsigned_by)} of {found.parties} parties of {whose}"
    what = "the end of the run" if is_complete else "any head"
    but = f"; {', '.join(found.unsigned_by)} did not countersign {what}" if found.unsigned_by else ""
    return f"{found.heads} tree heads{kept}, {signed}{but}{open_end}"
