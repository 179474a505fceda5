"""Epsilon recomputed from the privacy events of a log, and compared with every place that states it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audit.accounting.mechanisms import Adjacency, Composition, Repeated
from audit.accounting.views import against_broken_aggregation, against_colluders
from audit.bounds import at_most
from audit.errors import EvidenceError, NothingToCompareError
from audit.history import RunHistory
from audit.log import Event
from audit.regular_file import parse_json, read_regular, shown

_TOLERANCE = 1e-4
"""Relative; releases of `dp-accounting` may differ in the last digits."""


def composition_of(history: RunHistory, hospital: str | None, *, until: int | None = None) -> list[Repeated]:
    """Return what was released about a hospital's data: its own privacy events and those that concern all.

    Args:
        history: The log; events of rounds that were done again count, as what was sent was sent.
        hospital: Its name; None for events that concern all hospitals alone.
        until: Only events before this one.
    """
    from audit.accounting.fields import mechanism_of

    composition = []
    for event in history.of_kind("privacy_event"):
        fields: Mapping[str, Any] = event.fields
        if until is not None and event.seq >= until:
            break
        if fields.get("hospital") in (None, hospital):
            composition.append(Repeated(mechanism_of(fields["mechanism"]), fields["repetitions"]))
    return composition


def seen_by(composition: Composition, view: str, colluders: int = 0) -> Composition:
    """Return a composition as an adversary of a `view` (audit/privacy_fields.py) sees it."""
    if view == "aggregation-broken":
        return against_broken_aggregation(composition)
    return against_colluders(composition, colluders)


def check_epsilon(folder: Path, history: RunHistory) -> str | None:
    """Recompute the last epsilon of each hospital, view and delta, and the one of summary.json.

    Returns:
        What was found in words, None where the run claims nothing and records no privacy event.

    Raises:
        EvidenceError: A stated epsilon is not the one of the events, or one falls although more was released.
        AccountingUnavailableError: `dp-accounting` is needed and not installed.
        NothingToCompareError: Something was released and no epsilon is stated, as where a run was cut off.
    """
    claimed = history.claim is not None and history.claim.fields["claim"] == "CLAIMED"
    stated = history.of_kind("epsilon")
    released = bool(history.of_kind("privacy_event"))
    if not claimed:
        _check_nothing_claimed(folder, history, released=released)
    if not stated and not released:
        if claimed and history.rounds:
            assert history.claim is not None  # noqa: S101
            raise EvidenceError(history.claim.seq, "privacy is claimed and the log records no privacy event")
        return None
    last = _last_of_each(stated)
    for event in last:
        _check_stated(event, history)
    worst = _check_summary(folder, history) if history.completed is not None else None
    if not last and worst is None:
        raise NothingToCompareError("the log records what was released, and nothing in it states an epsilon yet")
    found = f"{len(last)} of {len(stated)} stated values recomputed (the last of each hospital, view and delta)"
    return found if worst is None else f"{found}; epsilon {at_most(worst)} as summary.json says"


def _last_of_each(stated: tuple[Event, ...]) -> list[Event]:
    """The last statement of each hospital, view and delta; within one series epsilon never falls."""
    last: dict[tuple[Any, ...], Event] = {}
    for event in stated:
        fields: Mapping[str, Any] = event.fields
        key = (fields.get("hospital"), fields["view"], fields.get("colluders", 0), fields["delta"])
        before = last.get(key)
        if before is not None and _value(fields["upper"]) < _value(before.fields["upper"]) * (1 - _TOLERANCE):
            raise EvidenceError(event.seq, f"epsilon falls below that of event {before.seq}, which cannot be")
        last[key] = event
    return list(last.values())


def _check_stated(event: Event, history: RunHistory) -> None:
    from audit.accounting.calibrate import upper_epsilon

    fields: Mapping[str, Any] = event.fields
    composition = composition_of(history, fields.get("hospital"), until=event.seq)
    seen = seen_by(composition, fields["view"], fields.get("colluders", 0))
    found = upper_epsilon(seen, fields["delta"], _adjacency(history))
    if not _equal(_value(fields["upper"]), found):
        raise EvidenceError(event.seq, f"states epsilon {fields['upper']}, the events before it give {found:.6g}")


def _check_summary(folder: Path, history: RunHistory) -> float:
    """The epsilon of summary.json is the largest over the hospitals, against whom the claim holds."""
    from audit.accounting.calibrate import upper_epsilon

    assert history.completed is not None  # noqa: S101 (narrows the type)
    assert history.claim is not None  # noqa: S101
    privacy = _privacy_of_summary(folder, history.completed.seq)
    delta = history.claim.fields.get("delta")
    if not isinstance(delta, float | int):
        raise EvidenceError(history.claim.seq, "privacy is claimed without a delta")
    hospitals = {event.fields.get("hospital") for event in history.of_kind("privacy_event")}
    distinct = {tuple(composition_of(history, None if name is None else str(name))) for name in hospitals}
    found = max(upper_epsilon(composition, delta, _adjacency(history)) for composition in distinct)
    if privacy.get("delta") != delta or not _equal(_value(privacy.get("epsilon")), found):
        raise EvidenceError(
            history.completed.seq,
            f"summary.json states epsilon {shown(privacy.get('epsilon'))} at delta {shown(privacy.get('delta'))}, "
            f"the events give {found:.6g} at {delta:g}",
        )
    return found


def _check_nothing_claimed(folder: Path, history: RunHistory, *, released: bool) -> None:
    """A summary may state what the releases would have cost (with noise from a seed, say) if it says NOT CLAIMED."""
    if history.completed is None:
        return
    privacy = _privacy_of_summary(folder, history.completed.seq)
    stated = privacy.get("epsilon")
    if released and str(privacy.get("claim", "")).startswith("NOT CLAIMED"):
        return
    if stated is not None:
        raise EvidenceError(
            history.completed.seq, f"summary.json states epsilon {shown(stated)}, the log claims nothing"
        )


def _privacy_of_summary(folder: Path, seq: int) -> Mapping[str, Any]:
    try:
        summary = parse_json(read_regular(folder / "summary.json"))
        privacy = summary.get("privacy", {})
    except (OSError, ValueError, AttributeError) as error:
        raise EvidenceError(seq, f"summary.json cannot be read ({error})") from error
    if not isinstance(privacy, dict):
        raise EvidenceError(seq, "summary.json: privacy is no object")
    return privacy


def _adjacency(history: RunHistory) -> Adjacency:
    stated = None if history.claim is None else history.claim.fields.get("adjacency")
    return Adjacency.ADD_OR_REMOVE_ONE if stated is None else Adjacency(str(stated))


def _value(stated: object) -> float:
    """A stated epsilon; null stands for infinity."""
    return float(stated) if isinstance(stated, float | int) else math.inf


def _equal(stated: float, found: float) -> bool:
    return stated == found or abs(stated - found) <= _TOLERANCE * max(1.0, abs(found))
