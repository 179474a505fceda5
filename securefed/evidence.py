"""What a run writes into its event log, and when: before the fact where a later reader must rely on it."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol, Self

from audit.canonical import JSON
from audit.history import RunHistory, read_history
from audit.log import Clock, EventLog
from audit.parties import SimulatedParties
from audit.round_members import losses_by_stage
from clients.data import DataWarning
from clients.encoders import FeatureBundle
from protocols.roster import IdentityKey, IdentitySeed
from protocols.stages import Stage
from securefed.aggregation import OpenedRound
from securefed.config import RunConfig, config_digest, config_to_mapping
from securefed.errors import ConfigError, RoundAbortedError, RunFolderError
from securefed.provenance import software_versions, source_of
from securefed.run_folder import ByteRow, RunFolder

_WAYS = {"upload": "up", "download": "down"}
_DIRECTIONS = {way: direction for direction, way in _WAYS.items()}


class Parties(Protocol):
    """Who signs the evidence of a run."""

    def announce(self, log: EventLog) -> None:
        """Record the roster in the log of a new run."""
        ...

    def publish(self, log: EventLog, round: int, reachable: Sequence[str]) -> object:
        """Sign the log as it is, and have the hospitals that can be reached countersign."""
        ...


def simulated_parties(folder: RunFolder, sites: Sequence[str]) -> tuple[SimulatedParties, dict[str, IdentityKey]]:
    """Return the parties of a simulation and {site: its long-term key}, which also signs its protocol messages."""
    folders = {site: folder.site(site) for site in sites}
    parties = SimulatedParties(folder.path, folders)
    keys = {site: IdentityKey(IdentitySeed((path / "identity.key").read_bytes())) for site, path in folders.items()}
    return parties, keys


class RunEvidence:
    """The event log of one run, in the words of the federation; after every round its head is signed by all parties.

    Args:
        log: The log.
        sites: Names of the hospitals.
        parties: Who signs: all of a simulation, or the server and the far ends of a deployment.
    """

    def __init__(self, log: EventLog, sites: Sequence[str], parties: Parties) -> None:
        self._log = log
        self._sites = tuple(sites)
        self._parties = parties

    @property
    def log(self) -> EventLog:
        """The log itself, for what is charged to it."""
        return self._log

    @classmethod
    def begin(
        cls,
        folder: RunFolder,
        config: RunConfig,
        sites: Sequence[str],
        now: Clock,
        parties: Parties,
        operation: str = "simulation",
    ) -> "RunEvidence":
        """Start the log of a new run."""
        header: dict[str, JSON] = {
            "run_id": folder.name,
            "operation": operation,
            "software": software_versions(),
            "seeded": True,  # partitions, start, batches, rounding; of noise see `privacy_claim`
            **source_of(),
        }
        evidence = cls(EventLog.create(folder.log, header, now), sites, parties)
        values = config_to_mapping(config)
        with evidence.closed_on_error():
            evidence._log.append("config", {"digest": config_digest(config), "values": values})
            parties.announce(evidence._log)
            evidence._purpose(config)
        return evidence

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Let go of the log where a block fails, so that whoever takes the run up again can have it."""
        try:
            yield
        except BaseException:
            self._log.close()
            raise

    @classmethod
    def reopen(cls, folder: RunFolder, sites: Sequence[str], now: Clock, parties: Parties) -> "RunEvidence":
        """Open the log of an interrupted run.

        Raises:
            EvidenceError: It does not verify.
            RunFolderError: The run has ended.
        """
        log = EventLog.open(folder.log, now)
        if log.events[-1].kind == "run_completed":
            log.close()
            raise RunFolderError(folder.path, "has ended already; start a new run without --resume")
        evidence = cls(log, sites, parties)
        if not evidence.has("roster"):  # killed while the log was begun
            with evidence.closed_on_error():
                parties.announce(log)
        return evidence

    def data(
        self, bundle: FeatureBundle, name: str, warnings: Sequence[DataWarning], keyed: str = "", patients: str = ""
    ) -> None:
        """Record what is trained on: names, digests and what was found in the data; no file names.

        Args:
            bundle: The features of the data; of a private run with the keyed digest of those of a file.
            name: Name of the data set.
            warnings: What was found in the data.
            keyed: What a private run calls the data in place of their fingerprint (audit/data_name.py). Its record has
                no count that follows from the images: of the findings the kinds, of the encoder's work nothing.
            patients: What it calls the grouping of its training images by patient, "" where patients are not its unit.
        """
        described: dict[str, JSON] = {
            "name": name,
            "fingerprint": keyed or bundle.data_fingerprint,
            "sites": [site.site for site in bundle.sites],
            "classes": list(bundle.classes),
        }
        if keyed:
            described["keyed"] = True
        if patients:
            described["patient_grouping"] = patients
        if warnings:
            counts = Counter[str]()
            for warning in warnings:  # some broken images are found in the files, others in decoding
                counts[warning.kind] += warning.count
            described["warnings"] = [kind if keyed else f"{kind}: {count}" for kind, count in counts.items()]
        if bundle.global_site is not None:
            described["held_out_site"] = bundle.global_site.site
        self._log.append("data_described", described)
        encoder: dict[str, JSON] = {"name": bundle.encoder_name, "digest": bundle.encoder_digest}
        work: dict[str, JSON] = {"images_encoded": bundle.images_encoded, "cache_hits": bundle.cache_hits}
        work["seconds"] = round(bundle.encode_seconds, 3)
        if bundle.features_digest:
            encoder["features"] = bundle.features_digest
        described = {**encoder, "embed_dim": bundle.embed_dim, **({} if keyed else work)}
        self._log.append("encoder_described", described)

    def study(self, name: str, digest: str, approvals: Mapping[str, str]) -> None:
        """Record what all hospitals have approved, and their signatures {hospital: hex}."""
        self._log.append("study", {"name": name, "digest": digest, "approvals": dict(approvals)})

    def has(self, kind: str) -> bool:
        """Return whether the log holds an event of a kind."""
        return any(event.kind == kind for event in self._log.events)

    def describes(self, fingerprint: str) -> bool:
        """Return whether the log describes data of this fingerprint."""
        described = (event.fields["fingerprint"] for event in self._log.events if event.kind == "data_described")
        return fingerprint in described

    def agreed(
        self,
        name: str,
        fingerprint: str,
        absent: Sequence[str],
        classes: Sequence[str],
        encoder: tuple[str, str, int],
    ) -> None:
        """Record what a deployment trains on: keyed digests of the hospitals; the encoder by name, digest and width.

        Args:
            name: Name of the study.
            fingerprint: One digest over the keyed digests of the hospitals that are there.
            absent: The hospitals that it leaves out.
            classes: Names of the classes.
            encoder: Name, digest and width.
        """
        described: dict[str, JSON] = {"name": name, "fingerprint": fingerprint, "keyed": True}
        if absent:
            described["warnings"] = [f"the digest leaves out {', '.join(absent)}, not there when the run began"]
        self._log.append("data_described", {**described, "sites": list(self._sites), "classes": list(classes)})
        self._log.append("encoder_described", {"name": encoder[0], "digest": encoder[1], "embed_dim": encoder[2]})

    def data_of(self, hospital: str, digest: str, earlier: str | None) -> None:
        """Record what a hospital calls its data that came later, or that called other data (`earlier`) its own."""
        fields: dict[str, JSON] = {"hospital": hospital, "digest": digest}
        self._log.append("data_of_hospital", fields if earlier is None else {**fields, "earlier": earlier})

    def refused(self, hospital: str, code: str, reason: str) -> None:
        """Record that a hospital refused a message, in its own words."""
        self._log.append("refused", {"what": code, "reason": reason, "hospital": hospital})

    def check_same_data(self, bundle: FeatureBundle, keyed: str = "", patients: str = "") -> None:
        """Refuse to resume on other data (`keyed`, `patients` as for `data`) or another encoder than the log says."""
        described = {event.kind: event.fields for event in self._log.events}
        for kind, field, found in (
            ("data_described", "fingerprint", keyed or bundle.data_fingerprint),
            ("data_described", "patient_grouping", patients),
            ("encoder_described", "digest", bundle.encoder_digest),
            ("encoder_described", "features", bundle.features_digest),
        ):
            otherwise = "" if field == "patient_grouping" else found  # none is bound by earlier versions
            if kind in described and described[kind].get(field, otherwise) != found:
                what = f"the {field} of {kind.split('_')[0]}"
                raise ConfigError("--resume", f"{what} differs from the run's; restore it, or start anew")

    def _purpose(self, config: RunConfig) -> None:
        """Record the declared purpose, once."""
        if (stated := config.purpose.stated()) and not self.has("purpose"):
            self._log.append("purpose", {"values": dict(stated)})

    def check_same_config(self, config: RunConfig) -> None:
        """Refuse to resume with another configuration than the log says; record it, and the purpose, where not yet."""
        logged = next((event.fields for event in self._log.events if event.kind == "config"), None)
        if logged is None:
            self._log.append("config", {"digest": config_digest(config), "values": config_to_mapping(config)})
        elif logged["digest"] != config_digest(config):
            raise ConfigError(
                "--resume",
                "config.toml is not the configuration that the run was begun with: restore it, or start anew",
            )
        self._purpose(config)

    def check_same_model(self, number: int, model_digest: str) -> None:
        """Refuse to resume from another model than the log says a round ended with.

        Args:
            number: The round of the checkpoint.
            model_digest: Digest of the model in it.
        """
        ended = [e.fields for e in self._log.events if e.kind == "round_completed" and e.fields["round"] == number]
        if not ended or ended[-1].get("model_digest") != model_digest:
            raise RunFolderError(
                self._log.path.parent,
                f"holds a checkpoint whose model is not the one that round {number} ended with; start a new run",
            )

    def protocol_or_resumed(self, described: Mapping[str, Any], claim: Mapping[str, Any], number: int) -> None:
        """Record how updates are summed and what privacy is claimed; or that the run goes on after a round."""
        if self.has("privacy_claim"):
            self._log.append("resumed", {"round": number})
            return
        if not self.has("protocol_described"):
            self._log.append("protocol_described", dict(described))
        self.claim(claim)

    def claim(self, claim: Mapping[str, Any]) -> None:
        """Record what privacy is claimed, once: a process may have ended before it came to that."""
        if not self.has("privacy_claim"):
            self._log.append("privacy_claim", dict(claim))

    def round_started(self, number: int, cohort: Sequence[str], model_digest: str) -> None:
        """Record that a round begins, before anything is sent."""
        self._log.append("round_started", {"round": number, "cohort": list(cohort), "model_digest": model_digest})

    def opening(self, number: int, survivors: Sequence[str]) -> None:
        """Record over whom a sum is about to be opened: it may be repeated over these hospitals only."""
        self._log.append("opening", {"round": number, "survivors": list(survivors)})

    def opened_before(self, number: int, model_digest: str) -> tuple[str, ...]:
        """Return who was in the first sum of a round that may have been opened over a model, nobody where none was.

        The first: a later one over other hospitals can stand there and have been refused by them.
        """
        same = False
        for event in self._log.events:
            fields: Mapping[str, Any] = event.fields
            if event.kind == "round_started":
                same = (fields["round"], fields["model_digest"]) == (number, model_digest)
            elif same and event.kind in {"opening", "round_completed"}:
                return tuple(fields["survivors"])
        return ()

    def round_completed(
        self, number: int, opened: OpenedRound, cohort: Sequence[str], model_digest: str | None = None
    ) -> None:
        """Record survivors, digest of the opened sum and every byte of a round; and the model, where it moved.

        What was clamped is summed as a share: the count that is recorded is that share of all coordinates in the sum.
        """
        fields: dict[str, JSON] = {
            "round": number,
            "cohort": list(cohort),
            "survivors": list(opened.survivors),
            "dropouts": dict(opened.dropouts),
            "aggregate_digest": opened.digest,
            "bytes": byte_tree(opened.byte_rows),
            "session": opened.session,
        }
        if model_digest is not None:
            fields["model_digest"] = model_digest
        clamped = round(opened.mean_clamped * opened.mean_update.size * len(opened.survivors))
        if clamped:
            fields["clamped"] = clamped
        if opened.rejected:
            fields["rejected"] = dict(opened.rejected)
        self._log.append("round_completed", fields)

    def round_aborted(self, error: RoundAbortedError) -> list[ByteRow]:
        """Record that a round ended without a sum; return what had been sent."""
        fields: dict[str, JSON] = {"round": error.round_number, "stage": error.stage, "cause": error.cause[:4000]}
        if error.dropouts:
            fields["dropouts"] = dict(error.dropouts)
        rows = [row for row in error.byte_rows if isinstance(row, ByteRow)]
        if rows:
            fields["bytes"] = byte_tree(rows)
        self._log.append("round_aborted", fields)
        return rows

    def history(self) -> RunHistory:
        """Return what the log says so far."""
        return read_history(self._log.events)

    def sent(self) -> list[ByteRow]:
        """Return the bytes of everything that the log says was sent: of rounds aborted or done again too."""
        found: list[ByteRow] = []
        for attempt in self.history().attempts:
            rows = sorted(attempt.byte_rows(), key=lambda row: (Stage(row.stage).rank, row.way))
            found += [ByteRow(r.round, r.client, _DIRECTIONS[r.way], r.stage, r.kind, r.bytes) for r in rows]
        return found

    def checkpoint(self, number: int, model_digest: str) -> None:
        """Record that a round is final: a run that is taken up again goes on after it."""
        self._log.append("checkpoint", {"round": number, "model_digest": model_digest})

    def sign(self, number: int) -> None:
        """Have the log after a round signed by the server and every hospital that is there."""
        self._parties.publish(self._log, number, self._sites)

    def evaluated(self, chosen_round: int, sites: Mapping[str, Mapping[str, Mapping[str, float | int | None]]]) -> None:
        """Record the kept model's metrics on test data, {site: {part: {metric: value}}}; they leave no hospital."""
        values = {site: {part: dict(metrics) for part, metrics in parts.items()} for site, parts in sites.items()}
        self._log.append(
            "evaluation", {"round": chosen_round, "split": "test", "leaves_hospital": False, "values": values}
        )

    def dropouts_by_stage(self) -> dict[str, int]:
        """Return how often a site was lost at each stage, over all rounds that the log has."""
        return losses_by_stage(self._log.events)

    def interrupted(self, number: int, reason: str) -> None:
        """Record that the run stopped before its end."""
        self._log.append("interrupted", {"round": number, "reason": reason})

    def completed(self, *, rounds: int, chosen_round: int, files: Mapping[str, str], model_digest: str | None) -> None:
        """Record the end of the run and the digests of its result files."""
        fields: dict[str, JSON] = {"rounds": rounds, "chosen_round": chosen_round, "files": dict(files)}
        if model_digest is not None:
            fields["model_digest"] = model_digest
        self._log.append("run_completed", fields)
        self._parties.publish(self._log, rounds, self._sites)

    def __enter__(self) -> Self:
        """Return the evidence."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the log."""
        self._log.close()


def byte_tree(rows: Sequence[ByteRow]) -> dict[str, JSON]:
    """Return {client: {up or down: {stage: {kind: bytes}}}} of a round."""
    tree: Any = defaultdict(lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(int))))
    for row in rows:
        tree[row.site][_WAYS[row.direction]][row.stage][row.kind] += row.bytes
    return {
        client: {way: {stage: dict(kinds) for stage, kinds in stages.items()} for way, stages in ways.items()}
        for client, ways in tree.items()
    }


def utc_now() -> datetime:
    """Return the time of this machine in UTC."""
    from datetime import UTC

    return datetime.now(UTC)
