"""Whether a run has begun: it has once its log holds one whole line. Before that nothing was promised to anybody."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from audit.log import Event, parse_events
from securefed.errors import RunFolderError

_BEFORE_THE_LOG: Final = frozenset(
    {".writable", "config.toml", "config.toml.part", "study.toml", "study.toml.part", "audit.jsonl"}
)
"""What a server writes into its run folder up to the first line of the log."""


def last_event(log: Path) -> str | None:
    """Return the kind of a log's last whole event; None where it has none.

    What follows that event was cut off, and is taken away when the log is opened.

    Raises:
        EvidenceError: The log does not verify.
    """
    events = whole_events(log)
    return events[-1].kind if events else None


def whole_events(log: Path) -> Sequence[Event]:
    """Return a log's whole events, as `last_event` finds them; raises EvidenceError where it does not verify."""
    content = log.read_bytes() if log.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    return parse_events(whole) if whole else []


def clear_unbegun(path: Path) -> None:
    """Delete from a server's run folder what it wrote before the first line of its log, if it came no further.

    Raises:
        RunFolderError: There is no such line, and the folder holds other things.
    """
    if not path.is_dir() or last_event(path / "audit.jsonl") is not None:
        return
    left = sorted(path.iterdir())
    others = [file.name for file in left if file.name not in _BEFORE_THE_LOG]
    if others:
        raise RunFolderError(
            path, f"holds no log of a run and yet {', '.join(others)}; put the log back, or move the folder away"
        )
    for file in left:
        file.unlink()
