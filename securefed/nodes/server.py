"""A server node: one study from Hello to the kept model, over any transport. It holds no data, no MLP and no label.

What it writes is a run folder like that of a simulation, without anything that only a hospital knows: metrics stay at
the hospitals. A node that was stopped goes on from its folder with the next `serve`.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.heads import read_heads
from audit.log import Clock, EventLog
from protocols.transport import Patience, Transport
from securefed.aggregation import Aggregator
from securefed.begun import clear_unbegun, last_event
from securefed.checkpoint import Checkpoint, Snapshot, delete_checkpoint, load_checkpoint, save_checkpoint
from securefed.config import write_config
from securefed.deploy.errors import DeploymentError
from securefed.errors import RoundAbortedError
from securefed.evidence import RunEvidence, utc_now
from securefed.federation import Federation, OutOfSight, RoundReport
from securefed.model_card import model_card
from securefed.model_file import load_vector, save_vector, vector_digest
from securefed.nodes.control import ControlStage, encode_request
from securefed.nodes.data_digests import DataDigests, one_digest
from securefed.nodes.numbering import next_attempt
from securefed.nodes.owed import note_owed_model, owed_model
from securefed.nodes.parties import RemoteParties
from securefed.nodes.start import StudyStart
from securefed.observer import Observer, RoundView
from securefed.privacy.at_server import server_privacy
from securefed.provenance import software_versions
from securefed.round_rows import ClampingWatch
from securefed.run_folder import RunFolder, read_byte_rows
from securefed.study.terms import terms_of
from securefed.summary import summarise

Vector = NDArray[np.float32]

DEFAULT_PATIENCE = Patience(timeout=600.0, grace=30.0, quorum=1.0)


def serve(
    start: StudyStart,
    path: Path,
    transport: Transport,
    *,
    patience: Patience = DEFAULT_PATIENCE,
    observer: Observer | None = None,
    now: Clock = utc_now,
) -> dict[str, Any]:
    """Run a study to its end, or go on with one whose run folder exists; of one that has ended, return the summary.

    Args:
        start: Study, approvals and key.
        path: The run folder; its name is the run's id.
        transport: Reaches the hospitals.
        patience: How long exchanges wait. A matter of speed; the threshold is the study's.
        observer: Who watches.
        now: Clock of the log.

    Returns:
        The content of summary.json.

    Raises:
        ConfigError, DeploymentError: The study cannot begin.
        RunFolderError: The folder holds something else than a run.
        RoundAbortedError: Too few hospitals were left; the finished rounds are kept, call again to go on.
        EvidenceError: The folder's log does not verify.
    """
    start.check()
    return _ServerRun(start, path, transport, patience, observer or Observer(), now).run()


class _ServerRun:
    """One study in progress."""

    def __init__(
        self, start: StudyStart, path: Path, transport: Transport, patience: Patience, observer: Observer, now: Clock
    ) -> None:
        self._study, self._approvals = start.study, start.approvals
        self._transport, self._patience, self._observer, self._now = transport, patience, observer, now
        self._path = path
        self._begin = self._round_began = time.perf_counter()
        self._refusals: list[tuple[str, str, str]] = []
        self._noted = self._before_round = 0
        self._sites = tuple(sorted(self._study.roster.hospitals))
        self._parties = RemoteParties(
            path, start.key, self._study.roster, self._study.digest, transport, patience, self._refused
        )
        self._terms = terms_of(self._study)

    def run(self) -> dict[str, Any]:
        clear_unbegun(self._path)
        resumed = (self._path / "config.toml").is_file()
        folder = RunFolder.open(self._path) if resumed else RunFolder.create(self._path, "", self._now(), self._path)
        if resumed and last_event(folder.log) == "run_completed":
            return self._conclude(folder)
        evidence = self._reopen(folder) if resumed else self._create(folder)
        with evidence:
            data, checkpoint = DataDigests(folder), load_checkpoint(folder)
            finished = checkpoint.current.number if checkpoint else 0
            self._greet(evidence, 0, ended=finished == self._study.config.federation.rounds)
            self._require_enough()
            self._describe_data(evidence, data)
            return self._rounds(folder, evidence, data, checkpoint)

    def _greet(self, evidence: RunEvidence, round_id: int, *, ended: bool = False) -> None:
        """Say Hello to hospitals that have not greeted back yet.

        Raises:
            DeploymentError: Most of those that are there have signed more of the run's log than there is of it here.
        """
        replies = self._parties.greet(self._path.name, round_id, ended=ended)
        ahead = {name: reply["witnessed"] for name, reply in replies.items() if reply["witnessed"] > len(evidence.log)}
        if 2 * len(ahead) > len(self._parties.said_hello):
            raise DeploymentError(
                f"{', '.join(sorted(ahead))} signed up to {max(ahead.values())} events of the run {self._path.name}, "
                f"and its log in {self._path} has {len(evidence.log)}: the study was run from another folder, or this "
                "one was put back from an earlier copy. Go on in the folder with the whole log; a second run needs a "
                "study of its own (another name or seed), approved anew"
            )
        for name in sorted(ahead):
            self._refused(
                name, "evidence", f"has signed {ahead[name]} events of this run, {len(evidence.log)} are here"
            )
        self._note_refusals(evidence)

    def _describe_data(self, evidence: RunEvidence, data: DataDigests) -> None:
        """Have the record say whose data it covers, as far as hospitals have said by now."""
        said = self._parties.data
        if not evidence.has("data_described"):
            absent = [name for name in self._sites if name not in said]
            encoder = (self._study.encoder, self._study.encoder_digest, self._study.embed_dim)
            evidence.agreed(self._study.name, one_digest(said), absent, self._study.classes, encoder)
        elif data.known or not evidence.describes(one_digest(said)):
            for name, digest in data.news(said).items():
                if name in data.known:
                    self._observer.warned(f"{name} has approved the study again with other data; the record says so")
                evidence.data_of(name, digest, data.known.get(name))
        data.keep(said)

    def _create(self, folder: RunFolder) -> RunEvidence:
        write_config(self._study.config, folder.config)
        folder.write_text(folder.path / "study.toml", self._study.encode().decode())
        evidence = RunEvidence.begin(
            folder, self._study.config, self._sites, self._now, self._parties, operation="deployment"
        )
        with evidence.closed_on_error():
            self._record_study(evidence)
        return evidence

    def _record_study(self, evidence: RunEvidence) -> None:
        approvals = {approval.hospital: approval.signature for approval in self._approvals}
        evidence.study(self._study.name, self._study.digest, approvals)

    def _conclude(self, folder: RunFolder) -> dict[str, Any]:
        """Do what was left when the last event of the log was written.

        That is signatures, the kept model of hospitals that have not confirmed it, and the end of the checkpoint.
        """
        self._require_same_study(folder)
        with RunEvidence(EventLog.open(folder.log, self._now), self._sites, self._parties) as evidence:
            path = folder.path / "heads.jsonl"
            heads = read_heads(path) if path.exists() else []
            last = heads[-1] if heads else None
            unsigned = last is None or last.head.size < len(evidence.log) or set(self._sites) - set(last.witnesses)
            owed, summary = owed_model(folder.path), folder.read_json(folder.summary)
            if unsigned or owed:
                self._parties.greet(self._path.name, ended=True)
            if owed:
                self._hand_out(folder, owed, summary["chosen_round"], load_vector(folder))
            if unsigned:
                evidence.sign(self._study.config.federation.rounds)
        delete_checkpoint(folder)
        return summary

    def _require_same_study(self, folder: RunFolder) -> None:
        written = hashlib.sha256((folder.path / "study.toml").read_bytes()).digest()
        if written != hashlib.sha256(self._study.encode()).digest():
            raise DeploymentError(f"{folder.path} is a run of another study; move it away and start again")

    def _reopen(self, folder: RunFolder) -> RunEvidence:
        self._require_same_study(folder)
        evidence = RunEvidence.reopen(folder, self._sites, self._now, self._parties)
        with evidence.closed_on_error():
            evidence.check_same_config(self._study.config)
            if not evidence.has("study"):  # killed while the log was begun
                self._record_study(evidence)
        return evidence

    def _rounds(
        self, folder: RunFolder, evidence: RunEvidence, data: DataDigests, checkpoint: Checkpoint | None
    ) -> dict[str, Any]:
        config = self._study.config
        aggregator = Aggregator(self._terms, self._transport, patience=self._patience, attempt=self._attempt(evidence))
        clamping = ClampingWatch(self._terms, self._observer)
        privacy = server_privacy(config, evidence.log, self._sites, self._terms.noise)
        federation = Federation(OutOfSight(), aggregator, self._terms.initial_vector, config.federation.select)
        finished = checkpoint.current.number if checkpoint else 0
        if checkpoint is not None:
            federation.restore(checkpoint)
        evidence.protocol_or_resumed(self._terms.describe(), privacy.claim(), finished)
        if finished:  # a round that a kill left unsigned must not be joined by another
            evidence.sign(finished)
        folder.replace_rows(folder.bytes, evidence.sent())

        def before(number: int, digest: str) -> None:
            self._round_began, self._before_round = time.perf_counter(), len(self._refusals)
            privacy.check_round(number)
            self._greet(evidence, number)
            self._describe_data(evidence, data)
            evidence.round_started(number, self._sites, digest)
            privacy.round_started(number, digest)

        def after(report: RoundReport) -> None:
            digest = vector_digest(report.checkpoint.current.vector)
            evidence.round_completed(report.number, report.opened, self._sites, digest)
            folder.append_rows(folder.bytes, report.opened.byte_rows)
            save_checkpoint(folder, report.checkpoint)
            evidence.checkpoint(report.number, digest)
            evidence.sign(report.number)
            aggregator.close_again(self._parties.reached)
            self._note_refusals(evidence)
            clamping.see(report.number, report.opened.mean_clamped)
            self._observer.round_finished(self._view(report))

        aggregator.before_round, aggregator.before_opening = before, privacy.before_opening
        aggregator.opening = evidence.opening
        aggregator.opened_before = partial(self._opened_before, evidence)
        aggregator.refused = self._refused
        try:
            kept = federation.run(config.federation.rounds, after)
        except RoundAbortedError as error:
            self._note_refusals(evidence)
            folder.append_rows(folder.bytes, evidence.round_aborted(error))
            refused = self._refusals[self._before_round :]
            unpaid = sorted({hospital for hospital, code, _ in refused if code == "budget"})
            few = len(self._sites) - len(unpaid) < self._terms.example.min_survivors
            if few or set(unpaid) & set(error.before):
                raise error.for_want_of_budget(unpaid) from error
            raise
        closing = aggregator.closing_round
        if closing is not None:
            evidence.round_completed(config.federation.rounds + 1, closing, self._sites)
            folder.append_rows(folder.bytes, closing.byte_rows)
        self._describe_data(evidence, data)
        return self._finish(folder, evidence, kept, federation.seconds, privacy.finish())

    def _opened_before(self, evidence: RunEvidence, number: int, digest: str) -> tuple[str, ...]:
        """Return who was in a sum over this model that may have been opened: they are asked alone.

        Where one of them is gone and vectors cost nothing, everybody is asked: if that sum was not opened after all,
        nobody refuses, and whoever did open it refuses another.
        """
        before = evidence.opened_before(number, digest)
        is_free = self._terms.noise is None
        return () if is_free and set(before) - set(self._parties.said_hello) else before

    def _finish(
        self,
        folder: RunFolder,
        evidence: RunEvidence,
        kept: Snapshot,
        seconds: Mapping[str, float],
        privacy: Mapping[str, Any],
    ) -> dict[str, Any]:
        config = self._study.config
        save_vector(folder, kept.vector, self._study.embed_dim, config, len(self._study.classes))
        summary = summarise(
            config,
            evaluations=[],
            global_evaluation=None,
            byte_rows=read_byte_rows(folder.bytes),
            training=evidence.history().training,
            rounds_completed=config.federation.rounds,
            chosen_round=kept.number,
            secure_aggregation=self._terms.summary(evidence.dropouts_by_stage()),
            seconds={**seconds, "total": time.perf_counter() - self._begin},
            fam_sha256=vector_digest(kept.vector),
            provenance={
                "study": self._study.digest,
                "encoder": self._study.encoder,
                "encoder_digest": self._study.encoder_digest,
                "software": software_versions(),
            },
            privacy=privacy,
        )
        folder.write_json(folder.summary, summary)
        folder.write_text(folder.card, model_card(self._path.name, self._study.classes, summary))
        self._parties.greet(self._path.name, config.federation.rounds, ended=True)
        self._hand_out(folder, self._sites, kept.number, kept.vector)
        self._note_refusals(evidence)
        evidence.completed(
            rounds=config.federation.rounds,
            chosen_round=kept.number,
            files={
                path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.results() if path.exists()
            },
            model_digest=summary["fam_sha256"],
        )
        delete_checkpoint(folder)
        return summary

    def _hand_out(self, folder: RunFolder, hospitals: Sequence[str], chosen: int, vector: Vector) -> None:
        """Send the kept model, and remember the hospitals that do not say that they keep it."""
        model = np.ascontiguousarray(vector, dtype="<f4").tobytes()
        frame = encode_request(ControlStage.CLOSE_RUN, {"run_id": self._path.name, "chosen_round": chosen}, model)
        last = self._study.config.federation.rounds + 1
        kept = self._parties.ask(ControlStage.CLOSE_RUN, dict.fromkeys(hospitals, frame), last)
        note_owed_model(folder, set(hospitals) - set(kept))

    def _attempt(self, evidence: RunEvidence) -> int:
        """A number of attempts above that of every round which some hospital has seen, as far as it is borne out."""
        last = {name: reply["last_round"] for name, reply in self._parties.said_hello.items()}
        taken_up = 1 + sum(event.kind == "resumed" for event in evidence.log.events)
        attempt, ahead = next_attempt(last, taken_up)
        for name in ahead:
            reason = (
                f"says it has seen round {last[name]}, far beyond the others; its node's state has to be looked into"
            )
            self._refused(name, "last_round", reason)
        self._note_refusals(evidence)
        return attempt

    def _require_enough(self) -> None:
        needed = self._terms.parameters(self._terms.channels.server().codec, 1).min_survivors
        there = self._parties.said_hello
        if len(there) < needed:
            reasons = [f"{name}: {code}: {reason}" for name, code, reason in self._refusals]
            absent = sorted(set(self._sites) - set(there) - {name for name, _, _ in self._refusals})
            reasons += [f"{name}: no answer" for name in absent]
            raise DeploymentError(
                f"{len(there)} of {len(self._sites)} hospitals are ready, {needed} are needed. " + "; ".join(reasons)
            )

    def _refused(self, hospital: str, code: str, reason: str) -> None:
        self._refusals.append((hospital, code, reason))
        self._observer.refused(hospital, code, reason)

    def _note_refusals(self, evidence: RunEvidence) -> None:
        for hospital, code, reason in self._refusals[self._noted :]:
            evidence.refused(hospital, code, reason)
        self._noted = len(self._refusals)

    def _view(self, report: RoundReport) -> RoundView:
        carried = {"upload": 0, "download": 0}
        for row in report.opened.byte_rows:
            carried[row.direction] += row.bytes
        up, down = (carried[way] / len(self._sites) for way in ("upload", "download"))
        seconds, self._round_began = time.perf_counter() - self._round_began, time.perf_counter()
        rounds, lost = self._study.config.federation.rounds, dict(report.opened.dropouts)
        score = report.opened.mean_score
        before = score if self._study.config.federation.select == "best-val" else None
        return RoundView(report.number, rounds, score, up, lost, down, seconds, before)
