"""What is left of a run that has ended: countersignatures that hospitals owe its record, and the model owed to them.

Without the signature of a hospital in a sum, or of enough hospitals under its end, the record does not verify. A
hospital that did not answer CloseRun may be without the model.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from audit.check_heads import end_needs, end_signers
from audit.heads import read_heads
from audit.history import read_history
from audit.log import read_events
from securefed.errors import RunFolderError
from securefed.run_folder import RunFolder

_OWED_MODEL: Final = "owed_model.json"


def owed_signatures(path: Path) -> tuple[str, ...]:
    """Return the hospitals that the record of a run waits for; none of a run without heads.

    They are in a sum and have signed no head after it, or have not signed the end of a run that too few have signed.

    Args:
        path: The run folder.

    Raises:
        EvidenceError: Log or heads are damaged.
    """
    folder, heads = RunFolder(path), path / "heads.jsonl"
    if not (folder.log.exists() and heads.exists()):
        return ()
    history, signed = read_history(read_events(folder.log)), read_heads(heads)
    last = {
        name: record.seq
        for record in history.rounds
        for name in record.survivors
        if name not in record.dropouts  # it did not live to see the sum opened, and owes nothing
    }
    owing = {
        name for name, seq in last.items() if not any(one.head.size > seq and name in one.witnesses for one in signed)
    }
    announced, at_the_end = history.last("roster"), end_signers(signed, history)
    if history.completed is not None and announced is not None and len(at_the_end) < end_needs(history):
        hospitals: Any = announced.fields["hospitals"]
        owing |= set(hospitals) - at_the_end
    return tuple(sorted(owing))


def owed_model(path: Path) -> tuple[str, ...]:
    """Return the hospitals that have not said yet that they keep the model of a run.

    Args:
        path: The run folder.

    Raises:
        RunFolderError: The list of them is damaged.
    """
    folder, file = RunFolder(path), path / _OWED_MODEL
    if not file.exists():
        return ()
    names = folder.read_json(file).get("hospitals")
    if not isinstance(names, list):
        raise RunFolderError(file, "is damaged; delete it and submit again if every hospital has its model")
    return tuple(sorted(str(name) for name in names))


def is_owed(path: Path) -> bool:
    """Return whether another job would have something to fetch or to hand out; raises as the two above."""
    return bool(owed_signatures(path) or owed_model(path))


def note_owed_model(folder: RunFolder, hospitals: Collection[str]) -> None:
    """Remember, beside the run's results, the hospitals that have not said yet that they keep the model.

    Raises:
        RunFolderError: The disk refuses.
    """
    file = folder.path / _OWED_MODEL
    if hospitals:
        folder.write_json(file, {"hospitals": sorted(hospitals)})
    else:
        file.unlink(missing_ok=True)
