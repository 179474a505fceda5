"""One run from start to end: prepare, federate, evaluate, write the folder; and the same from a checkpoint."""

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from audit.data_name import create_data_key, named_data
from clients.data import DataWarning, ImageDataset
from clients.encoders import FeatureBundle, parse_encoder
from clients.method.threads import one_thread_each, usable_cores
from protocols.roster import IdentityKey, Roster
from securefed.aggregation import Aggregator
from securefed.baselines import NOTHING_SHARED, require_training, train_alone
from securefed.begun import last_event
from securefed.checkpoint import Checkpoints, Snapshot, load_checkpoint
from securefed.cohort import check_cohort
from securefed.compression_pilot import settle_compression
from securefed.config import RunConfig, load_config, write_config
from securefed.dropouts import check_schedule
from securefed.ended import close_folder, finish_ended
from securefed.errors import ConfigError, DivergedError, RoundAbortedError
from securefed.evidence import RunEvidence, simulated_parties, utc_now
from securefed.federation import Federation, RoundReport
from securefed.first_lines import first_lines
from securefed.hospitals import Hospitals
from securefed.model_file import vector_digest
from securefed.nodes.simulated import SimulatedSites
from securefed.observer import Observer, RoundView, noting_how_to_go_on
from securefed.outcome import Outcome, write_outcome
from securefed.preparation import encode_sites, load_sites, resolve_device
from securefed.privacy.bearing import require_noise
from securefed.privacy.rules import check_privacy, require_patients
from securefed.privacy.run import LocalPrivacy, named_patients, start_privacy
from securefed.privacy.shared_run import SharedPrivacy
from securefed.privacy.spending import BUDGETS_OF_DEALT_CLIENTS, check_ledger_is_there, with_absolute_ledger
from securefed.round_rows import ClampingWatch, keep_rows, round_rows
from securefed.run_folder import MetricRow, RunFolder, require_run_name
from securefed.sum_terms import SumTerms
from securefed.summary import measured, privacy_off, unclaimed

Now = Callable[[], datetime]

CHECKPOINT_EVERY = 1.0
"""Seconds from one checkpoint to the next at least: a round that is shorter than its checkpoint takes waits for it."""


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: Its folder.
        summary: Content of summary.json.
        verdict: Three lines for a reader: privacy claim, bytes, verification of the record.
        is_verified: Whether the record verifies against the files of the folder.
    """

    folder: RunFolder
    summary: dict[str, Any]
    verdict: tuple[str, ...]
    is_verified: bool


def simulate(
    config: RunConfig,
    *,
    output: Path | None = None,
    runs_dir: Path = Path("runs"),
    cache_dir: Path | None = None,
    observer: Observer | None = None,
    now: Now = utc_now,
    workers: int | None = None,
) -> RunResult:
    """Run a whole federation on this machine and write its folder.

    Args:
        config: What to run.
        output: The run folder; None makes a new one in `runs_dir`.
        runs_dir: Folder of all runs.
        cache_dir: Folder of the feature cache; None takes the user's.
        observer: Who watches.
        now: Clock of the event log and of the folder's name.
        workers: Hospitals that train at the same time, each on one thread of the processor; None takes as many as
            there are cores. The result does not depend on it.

    Raises:
        ConfigError, DataError, EncoderError, ProtocolError: The run cannot be as configured.
        RoundAbortedError: A round lost too many hospitals; the finished rounds are kept.
        DivergedError: A hospital's model predicts nothing finite.
        RunFolderError: The results cannot be written.
    """
    require_run_name(output)
    observer = observer or Observer()
    config = with_absolute_ledger(config)
    check_ledger_is_there(config.privacy)
    config = settle_compression(config, cache_dir, observer, workers)
    return _Run(config, cache_dir, observer, now, workers).start(output, runs_dir)


def resume_run(
    path: Path,
    *,
    cache_dir: Path | None = None,
    observer: Observer | None = None,
    now: Now = utc_now,
    workers: int | None = None,
) -> RunResult:
    """Go on with an interrupted run after its last finished round; the result is that of an uninterrupted one.

    Of a run that was cut off after the end of its record, the checkpoint is deleted and the report written.

    Raises:
        RunFolderError: There is no run, or it has ended.
        EvidenceError: Its event log does not verify.
    """
    folder = RunFolder.open(path)
    return _Run(load_config(folder.config), cache_dir, observer or Observer(), now, workers).resume(folder)


class _Run:
    """One run in progress."""

    def __init__(
        self, config: RunConfig, cache_dir: Path | None, observer: Observer, now: Now, workers: int | None
    ) -> None:
        self._config = config
        self._workers = 1 if config.privacy.enabled and config.privacy.ledger else workers or usable_cores()
        self._cache = cache_dir
        self._observer = observer
        self._now = now
        self._start = time.perf_counter()
        self._round = 0
        self._identities: dict[str, IdentityKey] = {}

    def start(self, output: Path | None, runs_dir: Path) -> RunResult:
        config = self._config
        device = resolve_device(config.federation.device)
        dataset, warnings = load_sites(config.data, config.federation.seed)
        check_cohort(config, dataset.sites)
        _require_validation(config, [site for site in dataset.sites if not dataset.select(site, "val")])
        require_training(config, [site for site in dataset.sites if not dataset.select(site, "train")])
        check_privacy(config)
        if config.privacy.enabled:
            require_noise(config)
            for site in dataset.sites:
                require_patients(config.privacy.unit, site, (r.patient for r in dataset.select(site, "train")))
        check_schedule(config, dataset.sites)
        parse_encoder(config.encoder.name)  # a misspelt name leaves no folder behind
        folder = RunFolder.create(runs_dir, f"{config.federation.method}-{dataset.name}", self._now(), output)
        write_config(config, folder.config)
        if config.privacy.enabled:
            create_data_key(folder.data_key)
        self._observer.started(folder.path, first_lines(config))
        if config.privacy.ledger and config.data.clients:
            self._observer.warned(BUDGETS_OF_DEALT_CLIENTS)
        with self._noting(folder):
            parties, self._identities = simulated_parties(folder, dataset.sites)
            with RunEvidence.begin(folder, config, dataset.sites, self._now, parties) as evidence:
                bundle = self._encode(folder, dataset, device, warnings)
                names = self._keyed(folder, bundle), named_patients(self._config, folder, dataset)
                evidence.data(bundle, dataset.name, (*warnings, *bundle.warnings), *names)
                return self._train_and_end(folder, evidence, bundle, device, dataset)

    def resume(self, folder: RunFolder) -> RunResult:
        ended = finish_ended(folder, self._now)
        if ended is not None:
            return RunResult(folder, *ended)
        config = self._config
        device = resolve_device(config.federation.device)
        dataset, warnings = load_sites(config.data, config.federation.seed)
        self._observer.started(folder.path, first_lines(config))
        with self._noting(folder):
            parties, self._identities = simulated_parties(folder, dataset.sites)
            with RunEvidence.reopen(folder, dataset.sites, self._now, parties) as evidence:
                evidence.check_same_config(config)
                bundle = self._encode(folder, dataset, device, warnings)
                names = self._keyed(folder, bundle), named_patients(self._config, folder, dataset)
                evidence.check_same_data(bundle, *names)
                if not evidence.has("data_described"):  # the run was left while images were encoded
                    evidence.data(bundle, dataset.name, (*warnings, *bundle.warnings), *names)
                return self._train_and_end(folder, evidence, bundle, device, dataset)

    def _encode(self, folder: RunFolder, dataset: Any, device: str, warnings: Sequence[DataWarning]) -> FeatureBundle:
        private = self._config.privacy.enabled  # a detail names an image
        for warning in (found for found in warnings if found.severity == "warning"):
            self._observer.warned(warning.message if private else warning.in_full)
        bundle = encode_sites(self._config, dataset, device, self._cache, self._observer)
        for warning in bundle.warnings:
            self._observer.warned(warning.message if private else warning.in_full)
        if private and bundle.features_digest:  # a record has the name of these, as of the data
            return replace(bundle, features_digest=named_data(folder.data_key, bundle.features_digest))
        return bundle

    def _keyed(self, folder: RunFolder, bundle: FeatureBundle) -> str:
        """Return what the record of a private run calls its data; "" where their fingerprint may stand in it."""
        return named_data(folder.data_key, bundle.data_fingerprint) if self._config.privacy.enabled else ""

    def _noting(self, folder: RunFolder) -> AbstractContextManager[None]:
        return noting_how_to_go_on(folder.path, lambda: last_event(folder.log) is not None, lambda: self._round)

    def _train_and_end(
        self, folder: RunFolder, evidence: RunEvidence, bundle: FeatureBundle, device: str, dataset: ImageDataset
    ) -> RunResult:
        try:
            with one_thread_each():
                if self._config.aggregates:
                    outcome = self._federate(folder, evidence, bundle, device, dataset)
                else:
                    evidence.claim(unclaimed(self._config))
                    outcome = self._train_alone(folder, bundle, device)
        except KeyboardInterrupt:
            evidence.interrupted(self._round, "stopped by the user")
            raise
        except RoundAbortedError as error:
            folder.append_rows(folder.bytes, evidence.round_aborted(error))
            raise
        except DivergedError as error:
            evidence.interrupted(error.round_number, str(error))
            raise
        seconds = {"encode": bundle.encode_seconds, **outcome.seconds, "total": time.perf_counter() - self._start}
        summary = write_outcome(folder, self._config, bundle, outcome, seconds, self._keyed(folder, bundle))
        evidence.evaluated(outcome.chosen_round, measured(summary))
        evidence.completed(
            rounds=outcome.rounds,
            chosen_round=outcome.chosen_round,
            files={path.name: _digest(path) for path in folder.results() if path.exists()},
            model_digest=summary["fam_sha256"],
        )
        return RunResult(folder, summary, *close_folder(folder))

    def _federate(
        self, folder: RunFolder, evidence: RunEvidence, bundle: FeatureBundle, device: str, dataset: ImageDataset
    ) -> Outcome:
        """Run the rounds, with what differential privacy adds to them."""
        terms = SumTerms(self._config, Roster.of(self._identities), bundle.embed_dim, len(bundle.classes))
        private = start_privacy(self._config, evidence, folder, dataset, terms.noise)
        if private is None:
            with closing(self._hospitals(bundle, device)) as plain:
                return self._rounds(folder, evidence, bundle, terms, plain, None)
        try:
            hospitals = private.hospitals(bundle, device, self._workers)
            for note in private.notes():
                self._observer.noted(note)
            return self._rounds(folder, evidence, bundle, terms, hospitals, private)
        finally:
            private.close()

    def _rounds(
        self,
        folder: RunFolder,
        evidence: RunEvidence,
        bundle: FeatureBundle,
        terms: SumTerms,
        hospitals: Hospitals,
        private: LocalPrivacy | SharedPrivacy | None,
    ) -> Outcome:
        config = self._config
        _require_validation(config, [site.site for site in bundle.sites if not site.val.labels.size])
        if terms.compression.reason:
            self._observer.noted(terms.compression.reason)
        images = {site.site: len(site.train.labels) for site in bundle.sites}
        sites = SimulatedSites(self._identities, terms, hospitals, self._workers, images)
        aggregator = Aggregator(terms, sites, sites, verifier=sites.verifier)
        clamping = ClampingWatch(terms, self._observer)
        federation = Federation(hospitals, aggregator, terms.initial_vector, config.federation.select)
        checkpoint = load_checkpoint(folder)
        self._round = checkpoint.current.number if checkpoint else 0
        if checkpoint is not None:
            evidence.check_same_model(self._round, vector_digest(checkpoint.current.vector))
            federation.restore(checkpoint)
            checkpoint = None  # it may be large, and the hospitals have what they need
        claim = private.claim() if private else unclaimed(config)
        evidence.protocol_or_resumed(terms.describe(), claim, self._round)
        if self._round:  # a round that a kill left unsigned must not be joined by another
            evidence.sign(self._round)
        if private is not None:
            private.check_run(config.federation.rounds, self._round)
        keep_rows(folder, self._round, bundle, self._observer)
        folder.replace_rows(folder.bytes, evidence.sent())

        def before_round(number: int, digest: str) -> None:
            if private is not None:
                private.check_round(number)
            evidence.round_started(number, hospitals.sites, digest)

        aggregator.before_round = before_round
        if private is not None:
            aggregator.before_opening = private.before_opening

        def finished(report: RoundReport) -> None:
            digest = vector_digest(report.checkpoint.current.vector)
            evidence.round_completed(report.number, report.opened, hospitals.sites, digest)
            folder.append_rows(folder.bytes, report.opened.byte_rows)
            # Of a private run nobody is told whose training diverged: that follows from images, and no noise is on it.
            if private is None and (diverged := hospitals.diverged()):
                evidence.sign(report.number)
                raise DivergedError(diverged, report.number)
            folder.append_rows(folder.metrics, round_rows(report))
            clamping.see(report.number, report.opened.mean_clamped)
            if checkpoints.finish(report.checkpoint):
                evidence.checkpoint(report.number, digest)
            evidence.sign(report.number)
            self._round = report.number
            self._observer.round_finished(_view(report, config.federation.rounds))

        # What a hospital has released with noise it would have to pay for again.
        every = CHECKPOINT_EVERY if private is None else 0.0
        with closing(Checkpoints(folder, config.federation.rounds, every)) as checkpoints:
            federation.moved = checkpoints.begin
            try:
                kept: Snapshot = federation.run(config.federation.rounds, finished)
            except BaseException:
                if left := checkpoints.leave():
                    evidence.checkpoint(left.current.number, vector_digest(left.current.vector))
                raise
        if (last := aggregator.closing_round) is not None:
            evidence.round_completed(config.federation.rounds + 1, last, hospitals.sites)
            folder.append_rows(folder.bytes, last.byte_rows)
        hospitals.load_private_states(kept.private)
        return Outcome(
            hospitals=hospitals,
            vector=kept.vector,
            rounds=config.federation.rounds,
            chosen_round=kept.number,
            secure_aggregation=terms.summary(evidence.dropouts_by_stage()),
            privacy=private.finish() if private else privacy_off(config),
            training=evidence.history().training,
            seconds=federation.seconds,
        )

    def _hospitals(self, bundle: FeatureBundle, device: str) -> Hospitals:
        federation = self._config.federation
        return Hospitals(
            bundle,
            self._config.training,
            federation.method,
            federation.seed,
            device,
            workers=self._workers,
            rounds=federation.rounds,
        )

    def _train_alone(self, folder: RunFolder, bundle: FeatureBundle, device: str) -> Outcome:
        config = self._config
        hospitals = self._hospitals(bundle, device)
        folder.keep_rows_until(folder.metrics, 0)

        def finished(number: int, rows: list[MetricRow]) -> None:
            folder.append_rows(folder.metrics, rows)
            self._round = number
            shown = [row.value for row in rows if row.part == "ensemble"]
            mean = sum(shown) / len(shown) if shown else float("nan")
            self._observer.round_finished(RoundView(number, config.federation.rounds, mean, 0.0, {}))

        start = time.perf_counter()
        with closing(hospitals):
            rounds = train_alone(config, hospitals, bundle, finished)
        return Outcome(
            hospitals=hospitals,
            vector=NOTHING_SHARED,
            rounds=rounds,
            chosen_round=0,
            secure_aggregation={"enabled": False},
            privacy=privacy_off(config),
            seconds={"train": time.perf_counter() - start, "aggregate": 0.0},
        )


def _require_validation(config: RunConfig, empty: Sequence[str]) -> None:
    """Refuse to choose a round by scores that the sites `empty`, without validation images, cannot give."""
    if config.aggregates and config.federation.select == "best-val" and empty:
        raise ConfigError(
            "federation.select",
            f"best-val needs validation images at every site and {', '.join(empty)} has none; "
            "use --set federation.select=last or another split",
        )


def _view(report: RoundReport, rounds: int) -> RoundView:
    accuracy = [parts["ensemble"] for parts in report.val_accuracy.values()]
    uploads = sum(row.bytes for row in report.opened.byte_rows if row.direction == "upload")
    clients = len({row.site for row in report.opened.byte_rows}) or 1
    mean = sum(accuracy) / len(accuracy) if accuracy else float("nan")
    return RoundView(report.number, rounds, mean, uploads / clients, dict(report.opened.dropouts))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
