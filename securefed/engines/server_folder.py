"""Where the server of a deployment keeps its study, its key and what its runs leave."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from securefed.locks import locked
from securefed.study import read_study

PROGRESS: Final = "progress.jsonl"


class ServerFolder:
    """Paths of the server's folder of a study.

    Attributes:
        study: The study.
        approvals: One file a hospital.
        key: The server's signing key.
        patience: How long exchanges wait, JSON.
        runs: The run folder of the study lies in here.
        progress: One JSON object a line: what happens, and when.
        lock: Held by the job that runs the study.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.study = path / "study.toml"
        self.approvals = path / "approvals"
        self.key = path / "server.key"
        self.patience = path / "patience.json"
        self.runs = path / "runs"
        self.progress = path / PROGRESS
        self.lock = path / ".lock"

    def run_folder(self) -> Path:
        """Return the run folder of the study; its name is the run's id."""
        study = read_study(self.study)
        return self.runs / f"{study.name}-{study.digest[:12]}"

    def is_in_use(self) -> bool:
        """Return whether a job runs the study at this moment."""
        if not self.lock.exists():
            return False
        with locked(self.lock) as held:
            return not held

    def open_journal(self) -> IO[str]:
        """Open the journal for the job that holds the lock; a line that a full disk has cut off is ended first."""
        stream = self.progress.open("a", encoding="utf-8")
        if self.progress.read_bytes()[-1:] not in (b"", b"\n"):
            stream.write("\n")
        return stream

    def journal(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of the journal so far; those that were cut off are passed over."""
        if self.progress.exists():
            for line in self.progress.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
                if line.endswith("\n") and (event := _event(line)) is not None:
                    yield event


def _event(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None
