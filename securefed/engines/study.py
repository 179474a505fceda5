"""What the engines run for a study: the server's loop over an engine's transport, from the server's own folder."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from audit.report import write_report
from audit.signing_key import load_key
from protocols.transport import Patience
from securefed.deploy.errors import DeploymentError
from securefed.engines.exchange import EngineTransport
from securefed.engines.names import SERVER_FOLDER
from securefed.engines.server_folder import ServerFolder
from securefed.locks import locked
from securefed.nodes.advice import advice
from securefed.nodes.owed import is_owed, owed_model, owed_signatures
from securefed.nodes.server import serve
from securefed.nodes.start import StudyStart
from securefed.observer import Observer, RoundView
from securefed.study import read_approval, read_study
from securefed.study.terms import terms_of

_LETS_GO_SECONDS: Final = 5.0
"""How long a job waits for whoever only looks whether one is running."""


def serve_study(transport: EngineTransport) -> None:
    """Run the study of the folder that the server's administrator has named, or go on with it; write its report.

    Of a run that has ended and lacks its report, that is written. A study whose journal says `completed` is left alone,
    unless its record lacks a countersignature, or a hospital has not confirmed the kept model: they are asked again.

    Raises:
        DeploymentError: Another job runs the study; nothing of its journal or run folder is touched.
        Exception: Whatever ends the study; the journal has it as `failed`.
    """
    folder = ServerFolder(Path(os.environ[SERVER_FOLDER]))
    with locked(folder.lock, _LETS_GO_SECONDS) as held:
        if not held:
            raise DeploymentError(f"another job runs the study of {folder.path}; wait until it has ended")
        lines = list(folder.journal())
        completed = bool(lines) and lines[-1]["event"] == "completed"
        if not completed or is_owed(folder.run_folder()):
            _serve(folder, transport)


def _serve(folder: ServerFolder, transport: EngineTransport) -> None:
    start = StudyStart(
        study=read_study(folder.study),
        approvals=[read_approval(path) for path in sorted(folder.approvals.iterdir())],
        key=load_key(folder.key),
    )
    patience = Patience(**json.loads(folder.patience.read_text(encoding="utf-8")))
    folder.runs.mkdir(exist_ok=True)
    with folder.open_journal() as stream:
        journal = Journal(stream)
        journal.write("started", run=folder.run_folder().name, hospitals=sorted(transport.nodes()))
        try:
            transport.fewest = terms_of(start.study).example.min_survivors
            summary = serve(start, folder.run_folder(), transport, patience=patience, observer=journal)
            run = folder.run_folder()
            for text in advice(owed_signatures(run), owed_model(run), journal.refusals):
                journal.warned(text)
            write_report(folder.run_folder(), key=folder.key)
        except Exception as error:
            journal.write("failed", error=type(error).__name__, reason=str(error))
            raise
        journal.write("completed", chosen_round=summary["chosen_round"], fam_sha256=summary["fam_sha256"])


class Journal(Observer):
    """Writes what happens as lines of JSON, each flushed at once.

    Attributes:
        refusals: {hospital: code of its last refusal} since the last round that was finished.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.refusals: dict[str, str] = {}

    def write(self, event: str, **fields: object) -> None:
        """Write one line."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()

    def warned(self, text: str) -> None:
        """A hospital refuses, or something else deserves a look."""
        self.write("warning", text=text)

    def refused(self, hospital: str, code: str, reason: str) -> None:
        """A hospital refuses a message."""
        super().refused(hospital, code, reason)
        self.refusals[hospital] = code

    def round_finished(self, view: RoundView) -> None:
        """A round is final."""
        self.refusals.clear()
        self.write(
            "round",
            round=view.number,
            rounds=view.rounds,
            lost=view.lost,
            upload_bytes=view.upload_bytes,
            download_bytes=view.download_bytes,
            seconds=round(view.seconds, 3),
            accuracy_before=view.accuracy_before,
        )
