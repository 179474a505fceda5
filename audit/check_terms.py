"""What a log says of its sums and its privacy against the configuration that it was begun with."""

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from audit.check_sums import check_fewest
from audit.errors import EvidenceError
from audit.events import KINDS
from audit.history import RunHistory
from audit.log import Event

Fields = Mapping[str, Any]

IN_SHARES: Final = ("distributed", "hospital")
"""Modes in which the hospitals of a sum add the noise in shares."""


def check_terms(history: RunHistory) -> None:
    """Check that the log's protocol and privacy claim are those of its configuration.

    Raises:
        EvidenceError: One is not, or the log claims privacy and has no configuration; names the event.
    """
    _check_names(history)
    event = history.last("config")
    if event is None:
        if history.claim is not None and history.claim.fields["claim"] == "CLAIMED":
            raise EvidenceError(history.claim.seq, "privacy is claimed in a log that states no configuration")
        return
    values: Any = event.fields["values"]
    secure: Fields = values.get("secure_aggregation", {})
    privacy: Fields = values.get("privacy", {})
    _check_protocol(history, secure)
    if history.claim is not None:
        _check_claim(history.claim, privacy, masked=bool(secure.get("enabled")))
    _check_facts(history, privacy, secure)
    if secure.get("enabled") and privacy.get("mode") in IN_SHARES and history.last("protocol_described") is not None:
        check_fewest(history, secure.get("losses", 0))


def _check_names(history: RunHistory) -> None:
    """What has a field of its own stands there alone: beside it a reader could take the one for the other."""
    for event in _with_facts(history):
        declared = KINDS[event.kind]
        stated: Any = event.fields.get("values", {})
        if twice := sorted({*declared.fields, *declared.optional}.intersection(stated)):
            raise EvidenceError(event.seq, f"{event.kind} states {twice[0]} under values, which is a field of its own")


def _with_facts(history: RunHistory) -> list[Event]:
    """The events that state facts of the noise under `values`."""
    return [event for event in (history.last("protocol_described"), history.claim) if event is not None]


def _check_facts(history: RunHistory, privacy: Fields, secure: Fields) -> None:
    """Facts of the noise in shares are those configured, and one in both events; without shares there are none."""
    names = {"clip_norm": "clip_norm", "colluders": "max_colluders", "noise_mechanism": "mechanism"}
    configured = {fact: privacy.get(name) for fact, name in names.items()}
    if privacy.get("noise_multiplier"):
        configured["noise_multiplier"] = privacy["noise_multiplier"]
    if privacy.get("dropout_noise") != "auto":
        configured["dropout_noise"] = privacy.get("dropout_noise")
    if privacy.get("mode", "off") not in IN_SHARES:
        configured = dict.fromkeys((*names, "noise_multiplier", "dropout_noise", "min_survivors"))
    if secure.get("compression") not in (None, "auto"):
        configured["compression"] = secure["compression"]
    first: dict[str, Any] = {}
    for event in _with_facts(history):
        stated: Any = event.fields.get("values", {})
        for name, value in configured.items():
            if name in stated and stated[name] != value:
                differs(event, name, f"{name} = {stated[name]}", value)
        for name, value in stated.items():
            if first.setdefault(name, value) != value:
                reason = f"{event.kind} has {name} = {value}, protocol_described has {first[name]}"
                raise EvidenceError(event.seq, reason)


def _check_protocol(history: RunHistory, secure: Fields) -> None:
    described = history.last("protocol_described")
    if described is None:
        if history.rounds and secure.get("enabled"):
            raise EvidenceError(history.rounds[0].seq, "sums were opened, and the log describes no protocol for them")
        return
    fields: Fields = described.fields
    stated = {"enabled": fields["secure_aggregation"]}
    if fields["secure_aggregation"]:
        stated["threat_model"] = fields.get("threat_model")
        for name, automatic in (("threshold", 0), ("corrupt", -1)):
            if secure.get(name) != automatic:
                stated[name] = fields.get(name)
        if secure.get("corrupt") == -1 and fields.get("corrupt") != fields["clients"] // 5:
            differs(described, "secure_aggregation.corrupt", fields.get("corrupt"), "-1, one in five")
    for name, value in stated.items():
        if secure.get(name) != value:
            differs(described, f"secure_aggregation.{name}", value, secure.get(name))
    for record in history.rounds:
        if len(record.cohort) != fields["clients"]:
            reason = f"{len(record.cohort)} hospitals were asked in round {record.number}, the protocol is for"
            raise EvidenceError(record.seq, f"{reason} {fields['clients']}")


def _check_claim(claim: Event, privacy: Fields, *, masked: bool) -> None:
    """Mode, unit, neighbours, delta and target are those configured, and nothing is claimed that cannot be kept."""
    mode = privacy.get("mode", "off")
    expected: dict[str, Any] = {"mode": mode}
    if mode != "off":
        expected |= {name: privacy.get(name) for name in ("unit", "adjacency", "delta")}
        expected["target_epsilon"] = privacy.get("epsilon") or None
    for name in ("mode", "unit", "adjacency", "delta", "target_epsilon"):
        if claim.fields.get(name) != expected.get(name):
            differs(claim, f"privacy.{name}", claim.fields.get(name), expected.get(name))
    _check_values(claim, mode, privacy)
    if claim.fields["claim"] != "CLAIMED":
        return
    hindrances = {
        "without noise": mode == "off",
        "with noise that follows from a seed": privacy.get("noise") != "system",
        "with one share of noise in each vector, and vectors in clear": mode in IN_SHARES and not masked,
    }
    for hindrance, hinders in hindrances.items():
        if hinders:
            raise EvidenceError(claim.seq, f"privacy is claimed {hindrance}, as config.toml has it")


def _check_values(claim: Event, mode: object, privacy: Fields) -> None:
    """What the claim says of the training is configured, where the configuration has it; a report stands on it.

    Where there is noise it says from which source.
    """
    stated: Any = claim.fields.get("values", {})
    configured = {name: privacy.get(name) for name in ("noise", "coupling", "normaliser", "centring_steps")}
    configured["sampling_rate"] = 1.0 if mode == "hospital" else privacy.get("sampling_rate")
    configured["steps_a_round"] = privacy.get("steps") if mode == "local" else 1
    due = {"noise"} if mode != "off" else set[str]()
    for name, value in configured.items():
        if name in due.union(stated) and stated.get(name) != value:
            differs(claim, f"privacy: {name}", f"{name} = {stated.get(name)}", value)


def differs(event: Event, key: str, stated: object, configured: object) -> NoReturn:
    """Refuse an event that has another value than the configuration."""
    raise EvidenceError(event.seq, f"{event.kind} has {stated}, config.toml has {key} = {configured}")
