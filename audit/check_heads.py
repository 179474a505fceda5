"""Signed tree heads against the log: the server's file, the hospitals' copies, and those handed in from outside."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.check_sums import least_summed
from audit.errors import EvidenceError
from audit.heads import SignedHead, TreeHead, read_given_heads, read_whole_heads
from audit.history import RoundRecord, RunHistory
from audit.log import Event
from audit.merkle import MerkleTree
from audit.roster import Roster
from audit.site_folder import site_folder_name


@dataclass(frozen=True)
class HeadsChecked:
    """What was found.

    Attributes:
        heads: Different heads that agree with the log.
        kept_elsewhere: Lines of hospitals' own files among them.
        parties: Parties of the roster, the server among them.
        unsigned_by: Hospitals of the roster that countersigned no head of heads.jsonl over the end of the run; of a run
            without an end those that countersigned none at all.
        unsigned: Events after the last head; after the end of the run those that fewer hospitals countersigned than
            the end needs.
    """

    heads: int
    kept_elsewhere: int
    parties: int
    unsigned_by: tuple[str, ...]
    unsigned: int


def check_heads(
    folder: Path, history: RunHistory, tree: MerkleTree, pinned: Roster | None, handed_in: Sequence[Path]
) -> HeadsChecked | None:
    """Check every head that can be found against the log, and every signature against the roster.

    Args:
        folder: The run folder with roster.json, heads.jsonl and sites/*/heads.jsonl.
        history: The log.
        tree: The tree over its lines.
        pinned: The roster from outside; None takes the one of the folder.
        handed_in: Heads files from outside of the folder.

    Returns:
        What was found, None where there is no head: nobody has signed anything yet.

    Raises:
        EvidenceError: A head does not agree with the log, a signature is wrong or missing, the roster is another one,
            more was done after the last head than a crash leaves unsigned, or too few hospitals signed the end.
    """
    announced = history.last("roster")
    own = read_whole_heads(folder / "heads.jsonl") if (folder / "heads.jsonl").exists() else []
    copies = [
        (path.parent.name, head)
        for path in sorted(folder.glob("sites/*/heads.jsonl"))
        for head in read_whole_heads(path)
    ]
    outside = [(str(path), head) for path in handed_in for head in read_given_heads(path)]
    if announced is None and pinned is None and not (own or copies or outside):
        return None
    rounds = _rounds_finished(history)
    for source, signed in [("heads.jsonl", head) for head in own] + copies + outside:
        _check_head(source, signed, history, tree, rounds)
    roster = _check_roster(folder, announced, pinned)
    seen: set[TreeHead] = set()
    for signed in own:
        signed.verify(roster)
        seen.add(signed.head)
    _check_everybody(own, roster, history)
    for source, signed in copies + outside:
        signed.verify(roster)
        if not signed.witnesses:
            raise EvidenceError(signed.head.size - 1, f"{source}: a kept head carries no countersignature")
        seen.add(signed.head)
    hospitals = {site_folder_name(name): name for name in roster.hospitals}
    for kept_in, signed in copies:
        signed.verify(roster, of=hospitals.get(kept_in, kept_in))
    covered = max((signed.head.size for signed in own), default=0)
    later = max((head.size for head in seen), default=0)
    if later > covered:
        kept = f"a hospital kept a head over {later} events, heads.jsonl ends at {covered}"
        raise EvidenceError(covered, f"{kept}{_after_a_crash(history, covered)}")
    if history.completed is not None and covered <= history.completed.seq:
        left = "the end of the run is not covered by a signed head"
        raise EvidenceError(covered, f"{left}{_after_a_crash(history, covered)}")
    _check_end(own, roster, history)
    open_rounds = [record for record in history.results if record.seq >= covered]
    if len(open_rounds) > 1:  # each is signed before the next begins: a crash leaves one
        last = f"round {open_rounds[0].number} and {len(open_rounds) - 1} more were finished"
        raise EvidenceError(open_rounds[0].seq, f"{last}, and no signed head covers them")
    if not seen:
        return None
    if history.completed is None:
        signed_by = {name for signed in own for name in signed.witnesses}
    else:
        signed_by, covered = end_signers(own, history), _countersigned(own, history)
    return HeadsChecked(
        heads=len(seen),
        kept_elsewhere=len(copies) + len(outside),
        parties=1 + len(roster.hospitals),
        unsigned_by=tuple(name for name in roster.hospitals if name not in signed_by),
        unsigned=len(history.events) - covered,
    )


def end_needs(history: RunHistory) -> int:
    """Return how many hospitals have to countersign the end of a run, which no later sum binds anybody to.

    As many as it takes to open a sum, of whom the protocol lets no server have enough on its side; one where nothing
    was summed under masks.
    """
    return 1 if history.threshold is None or not history.rounds else least_summed(history)


def end_signers(heads: Sequence[SignedHead], history: RunHistory) -> set[str]:
    """Return the hospitals that countersigned one of these heads that covers the end of the run."""
    end = history.completed
    return {name for signed in heads if end is not None and signed.head.size > end.seq for name in signed.witnesses}


def _check_end(heads: Sequence[SignedHead], roster: Roster, history: RunHistory) -> None:
    """Refuse an end, with the results that it vouches for, that the server could have written without the hospitals."""
    if history.completed is None:
        return
    signed_by, needed = end_signers(heads, history), end_needs(history)
    if len(signed_by) < needed:
        missing = ", ".join(name for name in roster.hospitals if name not in signed_by)
        signed = f"{len(signed_by)} of {len(roster.hospitals)} hospitals countersigned the end of the run"
        reason = f"{signed}, {needed} have to; it lacks the countersignature of {missing}"
        step = "in a simulation all sign at once: it was not left like this"
        if history.started.fields["operation"] == "deployment":
            step = "deploy submit asks them again, at any later time"
        raise EvidenceError(history.completed.seq, f"{reason}; {step}")


def _countersigned(heads: Sequence[SignedHead], history: RunHistory) -> int:
    """Return how many events as many hospitals countersigned as have to sign the end, attacks after it among them."""
    after = [signed for signed in heads if history.completed is not None and signed.head.size > history.completed.seq]
    needed, names = end_needs(history), set[str]()
    for signed in sorted(after, key=lambda signed: signed.head.size, reverse=True):
        names |= set(signed.witnesses)
        if len(names) >= needed:
            return signed.head.size
    return 0


def _after_a_crash(history: RunHistory, covered: int) -> str:
    """What to do where it was a crash: that cannot be told from a record that somebody cut, and does not verify."""
    if history.completed is not None and covered > history.completed.seq:
        return "; if an attack on it was cut off there: audit attack has it signed again"
    goes_on = "deploy submit" if history.started.fields["operation"] == "deployment" else "simulate --resume"
    return f"; if the run was cut off there: {goes_on} goes on and has it signed"


def _check_roster(folder: Path, announced: Event | None, pinned: Roster | None) -> Roster:
    if announced is None:
        raise EvidenceError(0, "there are tree heads or a roster, but the log names no roster")
    roster = pinned if pinned is not None else Roster.read(folder / "roster.json")
    if roster.digest != announced.fields["digest"]:
        whose = "agreed on" if pinned is not None else "in the folder"
        raise EvidenceError(announced.seq, f"the log is of another roster than the one {whose}: a key was swapped")
    if (announced.fields["server"], announced.fields["hospitals"]) != (roster.server, roster.hospitals):
        raise EvidenceError(announced.seq, "the keys of the log are not those of its roster")
    return roster


def _rounds_finished(history: RunHistory) -> list[int]:
    """Return the last finished round of training after each event; a run's end states how many there were."""
    finished, last = [], 0
    for event in history.events:
        number = event.fields.get("rounds" if event.kind == "run_completed" else "round")
        moved = event.kind in ("resumed", "run_completed") or "model_digest" in event.fields
        if event.kind in ("round_completed", "resumed", "run_completed") and moved and isinstance(number, int):
            last = number
        finished.append(last)
    return finished


def _check_head(source: str, signed: SignedHead, history: RunHistory, tree: MerkleTree, rounds: Sequence[int]) -> None:
    head = signed.head
    if head.run_id != history.run_id:
        raise EvidenceError(0, f"{source}: a head is of the run {head.run_id!r}, the log of {history.run_id!r}")
    if head.size > len(tree):
        raise EvidenceError(
            len(tree), f"{source}: a signed head covers {head.size} events: the log was cut to {len(tree)}"
        )
    if tree.root(head.size).hex() != head.root:
        raise EvidenceError(
            head.size - 1, f"{source}: the signed head over {head.size} events is of another history (a fork)"
        )
    if history.events[head.size - 1].time != head.time:
        raise EvidenceError(head.size - 1, f"{source}: the signed head has another time than its last event")
    if head.round != rounds[head.size - 1]:
        stated = f"{source}: the signed head over {head.size} events is of round {head.round}"
        raise EvidenceError(head.size - 1, f"{stated}, the last finished one is {rounds[head.size - 1]}")


def _check_everybody(heads: Sequence[SignedHead], roster: Roster, history: RunHistory) -> None:
    """Each hospital whose update is in a sum that these heads cover has signed one of them that covers it.

    A sum whose opening it did not live to see binds it to nothing: it may be gone by the head after it.
    """
    covered = max((signed.head.size for signed in heads), default=0)
    last: dict[str, RoundRecord] = {}
    for record in history.rounds:
        for name in record.survivors if record.seq < covered else ():
            if name not in roster.hospitals:
                raise EvidenceError(record.seq, f"the sum has an update of {name!r}, who is not of the roster")
            if name not in record.dropouts:
                last[name] = record
    for name, record in last.items():
        after = [signed for signed in heads if signed.head.size > record.seq]
        if not any(name in signed.witnesses for signed in after):
            after[0].verify(roster, of=name)
