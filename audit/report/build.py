"""One report from the files of a run folder: the same files give the same bytes, on any machine, at any time."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audit.accounting.calibrate import upper_epsilon
from audit.accounting.mechanisms import Adjacency
from audit.bounds import percent_at_most
from audit.canonical import encode_canonical
from audit.check_epsilon import composition_of
from audit.errors import EvidenceError
from audit.history import RunHistory
from audit.log import Event, set_back
from audit.report.communication import communication_section
from audit.report.form import REPORT, REPORT_FORMAT
from audit.report.method import is_shared, method_of
from audit.report.noise import noise_section, round_noise
from audit.report.pitfalls import pitfalls_section
from audit.report.privacy import claim_section, epsilon_by_round, hospitals_of, is_claimed, trust_section
from audit.report.purpose import SIGN_OFF, purpose_section
from audit.report.questions import questions_section
from audit.report.standing import ledger_section
from audit.report.utility import utility_section
from audit.report.verdicts import hospital_sentence, verdicts_section
from audit.rules import FieldError
from audit.verify import Verification, verify_run

Report = dict[str, Any]


def build_report(
    folder: Path, *, roster: Path | None = None, heads: Sequence[Path] = (), ledger: Path | None = None
) -> Report:
    """Return the report of a run folder as JSON; its form is audit/report/schema.json.

    Args:
        folder: The run folder.
        roster: The roster agreed on before the run.
        heads: Heads files kept elsewhere.
        ledger: A ledger that must tell the same as the log; the report then says what is spent and left in it.

    Raises:
        EvidenceError: The log cannot be read at all, so that nothing can be said about the run.
        AccountingUnavailableError: Privacy is claimed and no accountant is installed.
    """
    verification = verify_run(folder, roster=roster, heads=heads, ledger=ledger)
    history = verification.history
    if history is None:
        verification.require()
    assert history is not None  # noqa: S101 (a log that cannot be read has failed a check)
    claim = claim_section(history)
    utility = utility_section(history)
    communication = communication_section(history)
    read, standings = ({}, {}) if ledger is None else ledger_section(ledger, history, verification)
    hospitals = _hospitals(history, claim, read, standings)
    report: Report = {
        "format": REPORT_FORMAT,
        "verdicts": verdicts_section(history, verification, claim, communication, standings),
        "identity": _identity(history, verification),
        "data": _data(history),
        "purpose": purpose_section(history),
        "claim": claim,
        "protocol": _protocol(history),
        "noise": noise_section(history),
        "trust": trust_section(history),
        "hospitals": hospitals,
        "rounds": _rounds(history),
        "aborted": _aborted(history),
        "communication": communication,
        "empirical": _empirical(history),
        "utility": utility,
        "questions": questions_section(history, claim, utility),
        "pitfalls": pitfalls_section(history, claim),
        "limitations": _limitations(history, verification),
        "sign_off": list(SIGN_OFF),
        **({"ledger": read} if read else {}),
    }
    try:
        REPORT.check(report, "report")
    except FieldError as error:
        raise EvidenceError(-1, f"the record holds what no report can state: {error}") from error
    return decode_report(encode_report(report))


def encode_report(report: Report) -> bytes:
    """Return the canonical bytes of report.json, which a signature is over: one line and a line end."""
    return encode_canonical(report) + b"\n"


def decode_report(encoded: bytes) -> Report:
    """Read report.json; raises EvidenceError where it is none of this version."""
    try:
        report = json.loads(encoded)
        REPORT.check(report, "report")
    except ValueError as error:
        raise EvidenceError(-1, f"this is no report of version 1: {error}") from error
    assert isinstance(report, dict)  # noqa: S101 (checked just now)
    return report


def _identity(history: RunHistory, verification: Verification) -> Report:
    header: Any = history.started.fields
    config, roster, ended = history.last("config"), history.last("roster"), history.completed
    keys: Any = {} if roster is None else roster.fields
    final: Any = {} if ended is None else ended.fields
    return {
        "run_id": history.run_id,
        "operation": header["operation"],
        "method": method_of(history),
        "started": history.started.time,
        "ended": None if ended is None else ended.time,
        "seeded": bool(header.get("seeded", False)),
        "commit": header.get("commit"),
        "modified": header.get("modified"),
        "software": dict(header.get("software", {})),
        "config_digest": None if config is None else config.fields["digest"],
        "model_digest": final.get("model_digest"),
        "rounds": final.get("rounds", len(history.training)),
        "chosen_round": final.get("chosen_round"),
        "events": verification.events,
        "root": verification.root,
        "is_verified": verification.is_verified,
        "is_complete": verification.is_complete,
        "is_pinned": verification.is_pinned,
        "first_bad_event": verification.first_bad_event,
        "checks": [
            {"name": check.name, "outcome": str(check.outcome), "detail": check.detail[:4000], "event": check.seq}
            for check in verification.checks
        ],
        "server_key": keys.get("server"),
        "hospital_keys": dict(keys.get("hospitals", {})),
    }


def _data(history: RunHistory) -> Report:
    data, encoder = history.last("data_described"), history.last("encoder_described")
    known: Any = {} if data is None else data.fields
    frozen: Any = {} if encoder is None else encoder.fields
    return {
        "name": known.get("name"),
        "fingerprint": known.get("fingerprint"),
        "keyed": bool(known.get("keyed", False)),
        "hospitals": hospitals_of(history),
        "held_out": known.get("held_out_site"),
        "classes": list(known.get("classes", [])),
        "warnings": [*known.get("warnings", []), *map(_came_later, history.of_kind("data_of_hospital"))],
        "encoder": frozen.get("name"),
        "encoder_digest": frozen.get("digest"),
        "embed_dim": frozen.get("embed_dim"),
    }


def _came_later(event: Event) -> str:
    said: Any = event.fields
    what = "stated its data later" if "earlier" not in said else "approved again with other data while the run went on"
    return f"{said['hospital']} {what} (event {event.seq})"


def _protocol(history: RunHistory) -> Report:
    event = history.last("protocol_described")
    if event is None:
        return {}
    fields: Any = event.fields
    return dict(fields.get("values", {})) | {name: value for name, value in fields.items() if name != "values"}


def _hospitals(history: RunHistory, claim: Report, ledger: Report, standings: Report) -> list[Report]:
    found = []
    for name in hospitals_of(history):
        rows = [row for attempt in history.attempts for row in attempt.byte_rows(name)]
        charges: Any = [event.fields for event in history.of_kind("charge") if event.fields["hospital"] == name]
        entry = {
            "name": name,
            "rounds": sum(name in record.survivors for record in history.training),
            "sent": sum(row.bytes for row in rows if row.way == "up"),
            "received": sum(row.bytes for row in rows if row.way == "down"),
            "epsilon": _epsilon_of(history, name),
            "epsilon_after": _last(charges, "epsilon_after"),
            "budget": _last(charges, "budget"),
            "charges": len({fields["release_id"] for fields in charges}),
            "refused": sum(event.fields.get("hospital") == name for event in history.of_kind("refused")),
            "renewals": sum(event.fields["hospital"] == name for event in history.of_kind("budget_renewed")),
        }
        limits = {f"budget_{field}": _last(charges, field) for field in ("delta", "adjacency")}
        entry |= {name: value for name, value in limits.items() if value is not None}
        entry |= {"in_ledger": standings[name]} if name in standings else {}
        found.append({**entry, "sentence": hospital_sentence(entry, history, claim, ledger)})
    return found


def _last(charges: Any, field: str) -> Any:
    return next((fields[field] for fields in reversed(charges) if field in fields), None)


def _epsilon_of(history: RunHistory, hospital: str) -> float | None:
    if not is_claimed(history):
        return None
    assert history.claim is not None  # noqa: S101 (narrows the type)
    stated: Any = history.claim.fields
    adjacency = Adjacency(stated.get("adjacency", "add-or-remove-one"))
    value = upper_epsilon(composition_of(history, hospital), stated["delta"], adjacency)
    return value if value < float("inf") else None


def _rounds(history: RunHistory) -> list[Report]:
    stated = epsilon_by_round(history)
    noise = round_noise(history)
    return [
        {
            "round": record.number,
            "cohort": len(record.cohort),
            "survivors": len(record.survivors),
            "dropouts": dict(record.dropouts),
            "noise": noise.get(record.number, ""),
            "epsilon": stated.get(record.number),
            "aggregate_digest": record.aggregate_digest,
            "superseded": record.superseded,
            "trains": record.model_digest is not None,
            "bytes": {"up": record.total("up"), "down": record.total("down")},
        }
        for record in history.rounds
    ]


def _aborted(history: RunHistory) -> list[Report]:
    return [
        {
            "round": attempt.number,
            "stage": attempt.stage,
            "cause": attempt.cause,
            "dropouts": dict(attempt.dropouts),
            "bytes": {"up": attempt.total("up"), "down": attempt.total("down")},
            "event": attempt.seq,
        }
        for attempt in history.aborted
    ]


def _empirical(history: RunHistory) -> list[Report]:
    found = []
    for event in history.of_kind("attack"):
        fields: Any = event.fields
        kept = {name: fields[name] for name in ("name", "setting", "outcome")}
        found.append({**kept, "reason": fields.get("reason", ""), "values": dict(fields["values"])})
    return found


def _most_clamped(history: RunHistory) -> float:
    """Return the largest share, in [0, 1], of the coordinates in a round's sum that hospitals had clamped."""
    protocol = history.last("protocol_described")
    size: Any = protocol.fields["dimension"] if protocol else 0
    seqs = {record.seq for record in history.results}
    completed = [event for event in history.of_kind("round_completed") if event.seq in seqs]
    rounds: Any = [event.fields for event in completed if "clamped" in event.fields]
    return max((round_["clamped"] / max(1, size * len(round_["survivors"])) for round_ in rounds), default=0.0)


def _limitations(history: RunHistory, verification: Verification) -> list[str]:
    found = []
    if history.started.fields["operation"] == "simulation":
        found.append("All parties ran on one machine: the record shows how the protocol went, not who ran it.")
    if not verification.is_pinned:
        found.append("The roster of keys came with the run: whoever made the run may have made the keys.")
    if is_shared(history) and not is_claimed(history):
        found.append("A sum over few hospitals can reveal much about each of them; only noise bounds that.")
    if clamped := _most_clamped(history):
        found.append(
            f"Hospitals clamped up to {percent_at_most(clamped)} of the coordinates of a round's updates to their "
            "public range: what was beyond it did not move the model in that round."
        )
    if history.last("encoder_described") is not None:
        found.append("The frozen encoder was trained on other data, whose privacy is not a matter of this record.")
    if said := set_back(history.events):
        found.append(f"{said[0].upper()}{said[1:]}: its times do not say when, or for how long, it was written.")
    found.append("The record shows what the software wrote; it cannot show that the machine ran this software.")
    return found
