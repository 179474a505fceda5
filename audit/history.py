"""What a log says happened, read once for verification and report, and what no honest run can say."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from audit.errors import EvidenceError
from audit.log import Event
from audit.round_members import check_aborted, check_members, check_opening

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class ByteCount:
    """Bytes of one kind between the server and a client: one number of the log."""

    round: int
    client: str
    way: str
    stage: str
    kind: str
    bytes: int


class _Counted:
    """An attempt at a round of which every byte was counted."""

    number: int
    bytes: Fields

    def total(self, way: str) -> int:
        """Return the bytes sent `up` or `down`."""
        return sum(row.bytes for row in self.byte_rows() if row.way == way)

    def byte_rows(self, client: str | None = None) -> Iterable[ByteCount]:
        """Yield every count of the attempt, or those of one client."""
        for name, ways in self.bytes.items() if client is None else [(client, self.bytes.get(client, {}))]:
            for way, stages in ways.items():
                for stage, kinds in stages.items():
                    for kind, count in kinds.items():
                        yield ByteCount(self.number, name, way, stage, kind, count)


@dataclass(frozen=True)
class RoundRecord(_Counted):
    """One finished round.

    Attributes:
        seq: Its event.
        number: From 1.
        cohort: Hospitals that were asked.
        survivors: Hospitals in the sum.
        dropouts: {hospital: stage} of those that were lost.
        aggregate_digest: SHA-256 (hex) of the opened sum.
        model_digest: SHA-256 (hex) of the model after it; None where the model did not move.
        bytes: {client: {up or down: {stage: {kind: bytes}}}}.
        superseded: Whether a resumed run did it again; its bytes were sent and its releases made all the same.
    """

    seq: int
    number: int
    cohort: tuple[str, ...]
    survivors: tuple[str, ...]
    dropouts: Mapping[str, str]
    aggregate_digest: str
    model_digest: str | None
    bytes: Fields
    superseded: bool

    @property
    def opened_by(self) -> int:
        """Hospitals in the sum that were there until it was opened."""
        return len(set(self.survivors) - set(self.dropouts))


@dataclass(frozen=True)
class AbortedRound(_Counted):
    """One attempt at a round that ended without a sum.

    Attributes:
        seq: Its event.
        number: The round.
        stage: Where it ended.
        cause: Why.
        dropouts: {hospital: stage} of those that were lost.
        bytes: {client: {up or down: {stage: {kind: bytes}}}} of what had been sent.
    """

    seq: int
    number: int
    stage: str
    cause: str
    dropouts: Mapping[str, str]
    bytes: Fields


@dataclass(frozen=True)
class RunHistory:
    """A log, sorted by what its events are about.

    Attributes:
        run_id: The run.
        started: The first event.
        events: All events.
        rounds: Every finished round in the order of the log, superseded ones included.
        completed: The last event of a run that reached its end.
        claim: The last privacy_claim, if there is one.
        cut_short: Attempts at rounds whose end the log lacks, as after a kill: nobody has counted what they sent.
    """

    run_id: str
    started: Event
    events: tuple[Event, ...]
    rounds: tuple[RoundRecord, ...]
    completed: Event | None
    claim: Event | None
    cut_short: int

    def of_kind(self, kind: str) -> tuple[Event, ...]:
        """Return the events of a kind."""
        return tuple(event for event in self.events if event.kind == kind)

    def last(self, kind: str) -> Event | None:
        """Return the last event of a kind."""
        found = self.of_kind(kind)
        return found[-1] if found else None

    @property
    def charges_elsewhere(self) -> bool:
        """Whether releases are charged at the hospitals: their ledgers and private logs are not part of this record."""
        return self.started.fields.get("operation") == "deployment" and not self.of_kind("charge")

    @property
    def threshold(self) -> int | None:
        """How many hospitals it takes to open a sum; None where vectors are sent in clear, 1 where none is stated."""
        protocol = self.last("protocol_described")
        if protocol is None or not protocol.fields["secure_aggregation"]:
            return None
        stated = protocol.fields.get("threshold", 1)
        return stated if isinstance(stated, int) else 1

    @property
    def results(self) -> tuple[RoundRecord, ...]:
        """The rounds that the result stands on, in order."""
        return tuple(record for record in self.rounds if not record.superseded)

    @property
    def training(self) -> tuple[RoundRecord, ...]:
        """Those of the results that moved the model; a round after them only sums scores of the last one."""
        return tuple(record for record in self.results if record.model_digest is not None)

    def byte_total(self, way: str, *, all_sent: bool = False) -> int:
        """Return the bytes sent `up` or `down`; `all_sent` counts rounds done again twice, and aborted ones too."""
        return sum(attempt.total(way) for attempt in (self.attempts if all_sent else self.results))

    @property
    def aborted(self) -> tuple[AbortedRound, ...]:
        """The attempts at rounds that ended without a sum, in order."""
        return tuple(map(_aborted, self.of_kind("round_aborted")))

    @property
    def attempts(self) -> tuple[RoundRecord | AbortedRound, ...]:
        """All rounds and attempts that ended, those done again among them, in the order of the log."""
        return tuple(sorted((*self.rounds, *self.aborted), key=lambda attempt: attempt.seq))


def read_history(events: Sequence[Event]) -> RunHistory:
    """Return the history of verified events.

    Raises:
        EvidenceError: The first event that contradicts an earlier one.
    """
    reader = _Reader()
    for event in events:
        reader.take(event)
    return RunHistory(
        run_id=str(events[0].fields["run_id"]),
        started=events[0],
        events=tuple(events),
        rounds=tuple(reader.records()),
        completed=reader.completed,
        claim=reader.claim,
        cut_short=reader.cut_short,
    )


@dataclass
class _Accounted:
    """For whom privacy events bear what the open round releases.

    Attributes:
        hospitals: Those with an event of their own.
        all: Whether an event concerns all.
        shares: The most shares of noise that an event counts in the sum.
    """

    hospitals: set[str] = field(default_factory=set)
    all: bool = False
    shares: int = 0


class _Reader:
    """The state that a log is in after each event; refuses what cannot follow."""

    def __init__(self) -> None:
        self.completed: Event | None = None
        self.claim: Event | None = None
        self._given_up = 0
        self._rounds: list[Event] = []
        self._superseded: set[int] = set()
        self._open: Event | None = None
        self._opening: frozenset[str] | None = None
        self._models: dict[int, str] = {}
        """{round: digest of the model after it}; that of 0 is the one that the first round began with."""
        self._last = 0
        self._accounted = _Accounted()
        self._releases: set[tuple[int, str, str]] = set()
        self._once: dict[str, Event] = {}

    def take(self, event: Event) -> None:
        fields: Fields = event.fields
        if self.completed is not None and event.kind != "attack":
            raise EvidenceError(event.seq, f"{event.kind} follows the end of the run (event {self.completed.seq})")
        match event.kind:
            case "config" | "study" | "roster" | "data_described" | "encoder_described" | "protocol_described":
                self._take_once(event)
            case "privacy_claim":
                if self._models:
                    raise EvidenceError(event.seq, "the privacy claim was made after the first round had begun")
                self.claim = event
            case "round_started":
                self._start_round(event, fields)
            case "opening":
                started = self._expect_open(event, fields["round"])
                self._opening = check_opening(event.seq, fields, started.fields["cohort"], self._opening)
            case "round_completed":
                self._complete_round(event, fields)
            case "round_aborted":
                self._expect_open(event, fields["round"])
                check_aborted(event.seq, fields)
                self._open = None
            case "privacy_event":
                self._account(event, fields)
            case "checkpoint":
                self._check_model(event, fields["round"], fields["model_digest"])
            case "resumed":
                self._resume(event, fields)
            case "run_completed":
                self._complete(event, fields)

    @property
    def cut_short(self) -> int:
        """Attempts that were given up by a kill, and one in progress where the log ends."""
        return self._given_up + (self._open is not None)

    def records(self) -> Iterable[RoundRecord]:
        for event in self._rounds:
            fields: Fields = event.fields
            yield RoundRecord(
                seq=event.seq,
                number=fields["round"],
                cohort=tuple(fields["cohort"]),
                survivors=tuple(fields["survivors"]),
                dropouts=fields["dropouts"],
                aggregate_digest=fields["aggregate_digest"],
                model_digest=fields.get("model_digest"),
                bytes=fields["bytes"],
                superseded=event.seq in self._superseded,
            )

    def _take_once(self, event: Event) -> None:
        if event.kind in self._once:
            raise EvidenceError(event.seq, f"{event.kind} stands twice (first as event {self._once[event.kind].seq})")
        self._once[event.kind] = event

    def _start_round(self, event: Event, fields: Fields) -> None:
        if fields["round"] != self._last + 1:
            raise EvidenceError(event.seq, f"round {fields['round']} begins after round {self._last}")
        if self._open is not None:
            raise EvidenceError(
                event.seq, f"round {fields['round']} begins before the one of event {self._open.seq} ended"
            )
        if fields["model_digest"] != self._models.setdefault(self._moved, fields["model_digest"]):
            raise EvidenceError(
                event.seq, f"round {fields['round']} begins with another model than the last one ended with"
            )
        self._open, self._opening = event, None
        # What a hospital has released of this round for this model, it sends again bit for bit: charged once.
        again = (fields["round"], str(fields["model_digest"])[:16])
        self._accounted = _Accounted({name for *release, name in self._releases if tuple(release) == again})

    def _complete_round(self, event: Event, fields: Fields) -> None:
        started = self._expect_open(event, fields["round"])
        check_members(event.seq, fields, started.fields["cohort"], self._opening)
        if self.claim is not None and self.claim.fields["claim"] == "CLAIMED":
            self._check_accounted(event, set(fields["survivors"]))
        self._rounds.append(event)
        self._last = fields["round"]
        if "model_digest" in fields:
            self._models[self._last] = fields["model_digest"]
        self._open = None

    @property
    def _moved(self) -> int:
        """The last round that moved the model, 0 before the first."""
        return next(reversed(self._models), 0)

    def _check_model(self, event: Event, number: int, digest: object) -> None:
        if self._models.get(number) != digest:
            raise EvidenceError(event.seq, f"{event.kind} states another model than the one of round {number}")

    def _check_accounted(self, event: Event, survivors: set[str]) -> None:
        """Refuse a release that no privacy event bears: one over all hospitals, or one of each that is in the sum."""
        accounted = self._accounted
        if not accounted.all and not accounted.hospitals:
            raise EvidenceError(event.seq, "privacy is claimed and no privacy event was recorded before this release")
        without = sorted(survivors - accounted.hospitals)
        if not accounted.all and without:
            raise EvidenceError(
                event.seq, f"privacy is claimed and nothing was accounted for {', '.join(without)} before this release"
            )
        if accounted.shares > len(survivors):
            reason = f"{accounted.shares} shares of noise were accounted in a sum over {len(survivors)} hospitals"
            raise EvidenceError(event.seq, reason)

    def _account(self, event: Event, fields: Fields) -> None:
        """Note for whom a release was accounted; the id of one hospital's names its round and model (audit/SPEC.md)."""
        is_open = self._open is not None and self._open.fields["round"] == fields.get("round")
        if "round" in fields and self._models and not is_open:  # a hospital's own log has no rounds
            raise EvidenceError(event.seq, f"a release of round {fields['round']} was accounted outside of that round")
        self._accounted.shares = max(self._accounted.shares, fields["mechanism"].get("shares", 0))
        if "hospital" not in fields:
            self._accounted.all = True
            return
        self._accounted.hospitals.add(fields["hospital"])
        parts = str(fields.get("release_id", "")).split("/")
        if "round" in fields and len(parts) >= 4:
            self._releases.add((int(fields["round"]), parts[2], fields["hospital"]))

    def _expect_open(self, event: Event, number: int) -> Event:
        if self._open is None or self._open.fields["round"] != number:
            raise EvidenceError(event.seq, f"round {number} ends without having begun")
        return self._open

    def _resume(self, event: Event, fields: Fields) -> None:
        number = fields["round"]
        if number > self._last:
            raise EvidenceError(event.seq, f"the run resumes after round {number}, which was not completed")
        self._superseded |= {record.seq for record in self._kept() if _number(record) > number}
        self._models = {moved: digest for moved, digest in self._models.items() if moved <= number}
        if "model_digest" in fields:
            self._check_model(event, self._moved, fields["model_digest"])
        self._last = number
        self._given_up += self._open is not None
        self._open = None

    def _complete(self, event: Event, fields: Fields) -> None:
        chosen, rounds, moved = fields["chosen_round"], fields["rounds"], self._moved
        if chosen > rounds or (self._models and rounds > moved):
            raise EvidenceError(event.seq, "more rounds are counted than the log holds")
        if rounds < moved:
            raise EvidenceError(event.seq, f"{rounds} rounds are counted, the log holds {moved}")
        if self._models.get(chosen) != fields.get("model_digest"):
            raise EvidenceError(event.seq, f"the kept model is not the one of round {chosen}")
        self.completed = event

    def _kept(self) -> list[Event]:
        return [record for record in self._rounds if record.seq not in self._superseded]


def _number(record: Event) -> int:
    number = record.fields["round"]
    assert isinstance(number, int)  # noqa: S101 (narrows the type)
    return number


def _aborted(event: Event) -> AbortedRound:
    fields: Fields = event.fields
    return AbortedRound(
        seq=event.seq,
        number=fields["round"],
        stage=fields["stage"],
        cause=fields["cause"],
        dropouts=fields.get("dropouts", {}),
        bytes=fields.get("bytes", {}),
    )
