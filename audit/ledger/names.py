"""Under which names runs and their releases stand in ledgers: no two runs under one, whatever their folders are called.

A ledger serves many runs, and an entry counts as paid for the run alone that made it. The name of a run's folder does
not tell runs apart: it comes again in another parent folder, or after the first one was deleted.
"""

import hashlib
from collections.abc import Iterable, Sequence

from audit.log import Event

_LONGEST = 56
"""Characters of a name that stand in a release's; with what is added to it, a release's name fits into 200."""

_DIGITS = 16


def run_in_ledgers(run_id: str, mark: str) -> str:
    """Return the name of a run in ledgers, the first part of its release ids: its own, a dot, and 16 digits.

    Args:
        run_id: The run's own name.
        mark: Digest (hex) of what no other run of that name shares: the roster of a simulation, whose keys are drawn
            for the run; in a deployment the study, all runs of which stand in one private log at each hospital.
    """
    return _told_apart(run_id, f"{mark}/{run_id}")


def run_of_log(events: Sequence[Event]) -> str:
    """Return the name in ledgers of the run of a log; its own where the log states neither a study nor a roster."""
    run_id = str(events[0].fields["run_id"])
    marks = {event.kind: str(event.fields["digest"]) for event in events if event.kind in ("study", "roster")}
    mark = marks.get("study", marks.get("roster"))
    return run_id if mark is None else run_in_ledgers(run_id, mark)


def release_name(run: str, number: int | str, what: str, hospital: str) -> str:
    """Return the name of a release, `RUN/ROUND/WHAT/HOSPITAL`: at most 200 characters, of which none is cut off.

    Args:
        run: The run's name in ledgers.
        number: The round, or the rounds in words.
        what: What is released: the first 16 digits of the digest of the model that the hospital received, or which
            vector of the round it is.
        hospital: The hospital; one with a long name is told from others by a digest.
    """
    return f"{run}/{number}/{what}/{hospital if len(hospital) <= _LONGEST else _told_apart(hospital, hospital)}"


def last_round_of(run: str, releases: Iterable[str]) -> int:
    """Return the last round of a run among the names of releases, 0 where there is none."""
    split = (name.split("/") for name in releases if name.startswith(f"{run}/"))
    return max((int(number) for _, number, *_ in split), default=0)


def _told_apart(name: str, whole: str) -> str:
    return f"{name[:_LONGEST]}.{hashlib.sha256(whole.encode()).hexdigest()[:_DIGITS]}"
