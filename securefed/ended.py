"""What is left to do when a run's record is complete; and the same for a run that was cut off just there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audit.errors import EvidenceError
from audit.heads import covered_events
from audit.log import Clock, EventLog
from audit.parties import SimulatedParties
from audit.report import verdict_lines, write_report
from audit.report.build import decode_report
from audit.report.write import FORMATS
from audit.report_signature import SIGNATURE_FILE, read_signed_report
from audit.roster import Roster
from securefed.begun import last_event
from securefed.checkpoint import delete_checkpoint
from securefed.errors import RunFolderError
from securefed.run_folder import RunFolder


def close_folder(folder: RunFolder) -> tuple[tuple[str, ...], bool]:
    """Delete the checkpoint of a run that has ended and write its report.

    Returns:
        The verdict in three lines, and whether the record verifies against the files of the folder.
    """
    delete_checkpoint(folder)
    report, _ = write_report(folder.path, key=folder.path / "server.key")
    return tuple(verdict_lines(report)), report["identity"]["is_verified"]


def finish_ended(folder: RunFolder, now: Clock) -> tuple[dict[str, Any], tuple[str, ...], bool] | None:
    """Do what was left undone of a run whose log has its end; return its summary and what `close_folder` does.

    None for any other run.

    That is: sign the end of the log, delete the checkpoint (it holds every hospital's MLP), write the report; a report
    that says that the record does not verify is written anew.

    Raises:
        RunFolderError: The run has ended and nothing is left to do, or it was never begun.
        EvidenceError: The log does not verify.
        LogWriteError, LogLockedError: It cannot be opened.
    """
    if last_event(folder.log) is None:
        raise RunFolderError(
            folder.path,
            "has no log, or one that was never begun: nothing can go on; start a new run without --resume, in another "
            "folder or after this one was deleted",
        )
    with EventLog.open(folder.log, now) as log:
        end = next((event for event in log.events if event.kind == "run_completed"), None)
        if end is None:
            return None
        covered = covered_events(folder.path / "heads.jsonl")
        if covered > end.seq and not folder.checkpoint.exists() and reported(folder.path) is True:
            raise RunFolderError(folder.path, "has ended already; start a new run without --resume")
        if covered <= end.seq:
            _sign(folder, log, end.fields["rounds"])
    summary = folder.read_json(folder.summary)
    return summary, *close_folder(folder)


def reported(path: Path) -> bool | None:
    """Return whether the report of a run that has ended says that its record verifies; None where it has no report.

    One that is not the report that was signed, as its writing leaves it where it is cut off, is none.
    """
    if not all((path / name).exists() for name in (*(f"report.{ending}" for ending in FORMATS), SIGNATURE_FILE)):
        return None
    try:
        signed = read_signed_report(path, Roster.read(path / "roster.json").server)
        identity = decode_report(signed.encoded if signed else b"")["identity"]
    except (OSError, EvidenceError):
        return None
    return bool(identity["is_verified"]) if identity["is_complete"] else None


def _sign(folder: RunFolder, log: EventLog, rounds: object) -> None:
    roster = next((event.fields["hospitals"] for event in log.events if event.kind == "roster"), {})
    sites = {site: folder.site(site) for site in roster} if isinstance(roster, Mapping) else {}
    SimulatedParties(folder.path, sites).publish(log, rounds if isinstance(rounds, int) else 0, list(sites))
