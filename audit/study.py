"""The study of a run in its evidence: the file's digest, and every hospital's signature over it."""

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from audit.canonical import encode_canonical
from audit.errors import EvidenceError
from audit.history import RunHistory
from audit.log import Event
from audit.regular_file import read_regular
from audit.roster import Roster, is_signed

APPROVAL_FORMAT: Final = "securefed-approval/1"
APPROVAL_LABEL: Final = b"securefed study approval v1\n"
"""Precedes the bytes that a hospital signs."""


def approval_message(hospital: str, study: str) -> bytes:
    """Return what a hospital signs: the label, then canonical JSON of format, hospital and the study's digest."""
    return APPROVAL_LABEL + encode_canonical({"format": APPROVAL_FORMAT, "hospital": hospital, "study": study})


def check_study(folder: Path, history: RunHistory, pinned: Roster | None) -> str:
    """Check that study.toml is the study of a deployment's log, is of the roster, approved by all, and was kept to.

    Raises:
        EvidenceError: It is not, or the log names none; names the event.
    """
    event = history.last("study")
    if event is None:
        raise EvidenceError(0, "the log of a deployment names no study")
    path = folder / "study.toml"
    try:
        values = tomllib.loads(read_regular(path).decode("utf-8"))
        digest = hashlib.sha256(encode_canonical(values)).hexdigest()
    except (OSError, ValueError, RecursionError) as error:
        raise EvidenceError(event.seq, f"study.toml cannot be read ({error})") from error
    if digest != event.fields["digest"]:
        raise EvidenceError(event.seq, "study.toml is not the study that the hospitals approved")
    if values.get("name") != event.fields["name"]:
        raise EvidenceError(event.seq, f"the log names the study {event.fields['name']}, study.toml another one")
    roster = pinned if pinned is not None else Roster.read(folder / "roster.json")
    if values.get("roster") != {"server": roster.server, "hospitals": dict(roster.hospitals)}:
        raise EvidenceError(event.seq, "the study is of another roster")
    _check_approvals(event, roster, digest)
    _check_configuration(history, values)
    return (
        f"study.toml was approved by all {len(roster.hospitals)} hospitals ({digest[:16]}...), and the run kept to it"
    )


def _check_approvals(event: Event, roster: Roster, digest: str) -> None:
    approvals = event.fields["approvals"]
    assert isinstance(approvals, Mapping)  # noqa: S101 (narrows the type)
    for hospital, key in roster.hospitals.items():
        if hospital not in approvals:
            raise EvidenceError(event.seq, f"{hospital} has not approved the study")
        if not is_signed(key, str(approvals[hospital]), approval_message(hospital, digest)):
            raise EvidenceError(event.seq, f"the approval of {hospital} is not signed by its key")
    if strangers := sorted(set(approvals) - set(roster.hospitals)):
        raise EvidenceError(event.seq, f"the study was approved by {strangers[0]}, who is not of the roster")


def _check_configuration(history: RunHistory, study: Mapping[str, Any]) -> None:
    """Every value of every section of the study is in the configuration of the log; encoder and data are the agreed."""
    config = history.last("config")
    if config is None:
        raise EvidenceError(0, "the log of a deployment states no configuration")
    logged: Any = config.fields["values"]
    encoder = study.get("encoder", {})
    sections = {name: values for name, values in study.items() if isinstance(values, Mapping) and name != "roster"}
    for section, values in {**sections, "encoder": {"name": encoder.get("name")}}.items():
        for name, value in values.items():
            found = logged.get(section, {}).get(name)
            if encode_canonical({"is": found}) != encode_canonical({"is": value}):
                reason = f"the configuration has {section}.{name} = {found}, the study that was approved {value}"
                raise EvidenceError(config.seq, reason)
    agreed = {
        "encoder_described": encoder,
        "data_described": {"classes": study.get("classes"), "sites": sorted(study["roster"]["hospitals"])},
    }
    for kind, values in agreed.items():
        for event in history.of_kind(kind):
            for name, value in values.items():
                if (found := event.fields.get(name)) != value:
                    raise EvidenceError(event.seq, f"{kind} has {name} = {found}, the study that was approved {value}")
