"""One cell of a sweep: run it, go on with it, or find that it is finished."""

import itertools
import json
import shutil
import traceback
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securefed.begun import whole_events
from securefed.ended import reported
from securefed.errors import RunFolderError, SecureFedError
from securefed.locks import locked
from securefed.run_folder import RunFolder
from securefed.sweep.plan import Cell

FINISHED, FAILED, INTERRUPTED, WAITING = "finished", "failed", "interrupted", "waiting"


@dataclass(frozen=True)
class CellResult:
    """What became of a cell.

    Attributes:
        name: Name of its folder.
        status: `finished`, `failed`, `interrupted` or `waiting`.
        summary: Its summary.json where it is finished.
        error: Why it failed.
    """

    name: str
    status: str
    summary: dict[str, Any] | None = None
    error: str = ""


def look_up(folder: Path, cell: Cell) -> CellResult:
    """Return a cell's result without running anything.

    It is finished if its folder holds the summary of this configuration and the report of a run that has ended and
    verifies, failed if that does not verify, and waits otherwise: what was cut off before its report is gone on with.

    Raises:
        RunFolderError: The folder holds the summary of another configuration or a damaged one.
    """
    path = folder / cell.name / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return CellResult(cell.name, WAITING)
    except ValueError as error:
        raise RunFolderError(path, f"is damaged ({error}); remove its folder to run the cell again") from error
    if not isinstance(summary, dict):
        raise RunFolderError(path, "is damaged (not an object); remove its folder to run the cell again")
    if summary.get("config_digest") not in cell.digests:
        raise RunFolderError(path, "belongs to another configuration (or ledger); name another folder with --output")
    verifies = reported(path.parent)
    if verifies is None or (path.parent / "checkpoint").exists():
        return CellResult(cell.name, WAITING)
    if not verifies:
        return CellResult(cell.name, FAILED, error=str(_unverified(path.parent)))
    return CellResult(cell.name, FINISHED, summary)


def require_same_data(
    folder: Path, result: CellResult, fingerprint: str, encoder_digest: str, features_digest: str = ""
) -> None:
    """Refuse a finished cell of other data, or another encoder, than there are now: its line would stand beside theirs.

    Args:
        folder: Folder of all cells.
        result: The cell's.
        fingerprint: SHA-256 (hex) of the data as the cell would find them now.
        encoder_digest: SHA-256 (hex) of the encoder.
        features_digest: SHA-256 (hex) of what a file of features gives; "" for none.

    Raises:
        RunFolderError: It is one.
        KeyFileError: The key is gone that its record names the data under.
    """
    path = folder / result.name
    stated = (result.summary or {}).get("provenance", {})
    run, keyed = RunFolder(path), bool(stated.get("data_keyed"))
    found = {
        "data": (stated.get("data_fingerprint"), run.name_of_data(fingerprint, keyed=keyed)),
        "encoder": (stated.get("encoder_digest"), encoder_digest),
    }
    if features_digest and "features_digest" in stated:
        found["file of features"] = stated["features_digest"], run.name_of_data(features_digest, keyed=keyed)
    for what, (then, now) in found.items():
        if then != now:
            raise RunFolderError(
                path,
                f"is finished, and the {what} of its run differs from what cells that run now would find; restore it, "
                "remove this folder to run the cell again, or name another folder with --output",
            )


def run_cell(folder: Path, cell: Cell, cache_dir: Path | None, workers: int) -> CellResult:
    """Run a cell, or go on with it where an earlier sweep was interrupted; errors of a run become its result.

    So do faults that nobody foresaw, or one of them would end a sweep of days: what happened stands beside the cell's
    folder, in `<name>.traceback.txt`, until it is run again.

    Args:
        folder: Folder of all cells.
        cell: The cell.
        cache_dir: Feature cache.
        workers: Hospitals that work at the same time.
    """
    from audit.errors import AuditError
    from clients.data import DataError
    from clients.encoders import EncoderError
    from protocols.errors import ProtocolError

    trace = folder / f"{cell.name}.traceback.txt"
    try:
        trace.unlink(missing_ok=True)
        return CellResult(cell.name, FINISHED, _summary(folder / cell.name, cell, cache_dir, workers))
    except KeyboardInterrupt:
        return CellResult(cell.name, INTERRUPTED)
    except (SecureFedError, AuditError, DataError, EncoderError, ProtocolError, OSError) as error:
        return CellResult(cell.name, FAILED, error=f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 (a cell is the run that fails alone)
        with suppress(OSError):  # a disk that is full keeps no trace, and the cell has failed all the same
            trace.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
        return CellResult(cell.name, FAILED, error=f"{type(error).__name__}: {error}; see {trace}")


def _summary(path: Path, cell: Cell, cache_dir: Path | None, workers: int) -> dict[str, Any]:
    from securefed.simulation import resume_run, simulate

    if (path / "checkpoint" / "latest.json").exists() or (path / "summary.json").exists():
        result = resume_run(path, cache_dir=cache_dir, workers=workers)
    else:
        if path.exists():  # it did not come to the end of its first round
            _make_way(path)
        result = simulate(cell.config, output=path, cache_dir=cache_dir, workers=workers)
    if not result.is_verified:
        raise _unverified(path)
    return result.summary


def _unverified(path: Path) -> RunFolderError:
    return RunFolderError(path, "holds a record that does not verify: see audit verify")


def _make_way(path: Path) -> None:
    """Keep the record of an interrupted run beside the new one; a run that was refused before its first round goes.

    Raises:
        LogLockedError: A process is still at work in it.
        EvidenceError: Its log does not verify.
    """
    from audit.errors import LogLockedError

    aside = (path.with_name(f"{path.name}.interrupted-{number}") for number in itertools.count(1))
    log = path / "audit.jsonl"
    with locked(log) if log.exists() else nullcontext(True) as held:
        if not held:
            raise LogLockedError(log)
        kinds = {event.kind for event in whole_events(log)}
        if "refused" in kinds and "round_started" not in kinds:  # nothing was released or charged
            shutil.rmtree(path)
        else:
            path.rename(next(name for name in aside if not name.exists()))
