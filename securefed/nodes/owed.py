"""Which hospitals still owe the record of a run a countersignature; without it the record does not verify."""

from pathlib import Path

from audit.heads import read_heads
from audit.history import read_history
from audit.log import read_events
from securefed.run_folder import RunFolder


def owed_signatures(path: Path) -> tuple[str, ...]:
    """Return the hospitals whose update is in a sum and that have signed no head after it; none of a run without heads.

    Args:
        path: The run folder.

    Raises:
        EvidenceError: Log or heads are damaged.
    """
    folder, heads = RunFolder(path), path / "heads.jsonl"
    if not (folder.log.exists() and heads.exists()):
        return ()
    last = {
        name: record.seq
        for record in read_history(read_events(folder.log)).rounds
        for name in record.survivors
        if name not in record.dropouts  # it did not live to see the sum opened, and owes nothing
    }
    signed = [(head.head.size, head.witnesses) for head in read_heads(heads)]
    return tuple(
        name
        for name, seq in sorted(last.items())
        if not any(size > seq and name in witnesses for size, witnesses in signed)
    )
