"""Epsilon recomputed from the privacy events of a log, and compared with every place that states it."""

import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from audit.accounting.calibrate import upper_epsilon
from audit.accounting.epsilon import Epsilon
from audit.accounting.mechanisms import Adjacency, Composition, Mechanism, Repeated, merged
from audit.accounting.views import against_broken_aggregation, against_colluders
from audit.attempts import Attempts
from audit.bounds import LARGEST_CLAIM, at_most
from audit.check_releases import check_target
from audit.check_terms import IN_SHARES
from audit.errors import EvidenceError, NothingToCompareError
from audit.history import RunHistory
from audit.log import Event
from audit.regular_file import parse_json, read_regular, shown

_TOLERANCE = 1e-4
"""Relative; releases of `dp-accounting` may differ in the last digits."""

_MOST_VALUES = 200
"""Different ones that are computed: a run states a few of each hospital, and no file may make verification wait."""

_ACCOUNTANTS = ("PLD", "RDP")
"""Whose bound a stated epsilon can be."""


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


def seen_by(composition: Composition, view: str, colluders: int = 0, unopened: int = 0) -> Composition:
    """Return a composition as an adversary of a `view` (audit/privacy_fields.py) sees it.

    Everybody includes whoever breaks the aggregation: a share of noise protects from it no better than that one share.
    That one has also seen the `unopened` vectors that left for sums that were never to be opened.
    """
    if view in ("everybody", "aggregation-broken"):
        return against_broken_aggregation(composition, unopened)
    return against_colluders(composition, colluders)


def check_epsilon(folder: Path, history: RunHistory) -> str | None:
    """Recompute every stated epsilon, and the one of summary.json.

    Returns:
        What was found in words, None where the run claims nothing and records no privacy event.

    Raises:
        EvidenceError: A stated epsilon is not the one of the events, or their noise not the one of the target.
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
    check_target(history)
    _check_stated(history)
    if claimed:
        _check_all_stated(history)
        _check_claimable(stated)
    worst = _check_summary(folder, history) if history.completed is not None else None
    if not stated and worst is None:
        raise NothingToCompareError("the log records what was released, and nothing in it states an epsilon yet")
    found = f"{len(stated)} stated values recomputed"
    return found if worst is None else f"{found}; epsilon {at_most(worst)} as summary.json says"


def _check_stated(history: RunHistory) -> None:
    """Compute every stated epsilon from the events before it; the same one once, for all hospitals alike."""
    from audit.accounting.epsilon import account
    from audit.accounting.fields import mechanism_of

    adjacency = _adjacency(history)
    upper, whole = cache(partial(upper_epsilon, adjacency=adjacency)), cache(partial(account, adjacency=adjacency))
    released: dict[object, dict[Mechanism, int]] = {None: {}}
    attempts = Attempts()
    for event in history.events:
        attempts.take(event)
        fields: Mapping[str, Any] = event.fields
        if event.kind == "privacy_event":
            counts, mechanism = released.setdefault(fields.get("hospital"), {}), mechanism_of(fields["mechanism"])
            counts[mechanism] = counts.get(mechanism, 0) + fields["repetitions"]
        if event.kind != "epsilon":
            continue
        if fields["accountant"] not in _ACCOUNTANTS:
            reason = f"an epsilon is stated by {fields['accountant']}: accountants are {' and '.join(_ACCOUNTANTS)}"
            raise EvidenceError(event.seq, reason)
        parts = [*released[None].items(), *released.get(fields.get("hospital", ""), {}).items()]
        composition = [Repeated(mechanism, count) for mechanism, count in parts]
        seen = merged(seen_by(composition, fields["view"], fields.get("colluders", 0), attempts.unopened))
        if upper.cache_info().currsize >= _MOST_VALUES:
            raise EvidenceError(event.seq, f"more than {_MOST_VALUES} different epsilons are stated: no run does that")
        _compare(event, "upper", _value(fields["upper"]), upper(seen, fields["delta"]))
        if "lower" in fields or "cross_checks" in fields:
            _check_bracket(event, whole(seen, fields["delta"]))


def _check_all_stated(history: RunHistory) -> None:
    """A claimed run that has ended states, after its last release, each epsilon that the claim is held to."""
    if history.completed is None or history.claim is None:
        return
    due = {("everybody", 0)}
    if history.claim.fields["mode"] in IN_SHARES:
        config = history.last("config")
        values: Any = {} if config is None else config.fields["values"]
        known = values.get("privacy", {}).get("max_colluders", 0)
        due = {("aggregate-only", 0), ("aggregate-only", known), ("aggregation-broken", 0)}
    last = max((event.seq for event in history.of_kind("privacy_event")), default=0)
    after = [event.fields for event in history.of_kind("epsilon") if event.seq > last]
    if lacks := due - {(fields["view"], fields.get("colluders", 0)) for fields in after}:
        view, colluders = min(lacks)
        against = f"{view} with {colluders} colluders" if colluders else view
        reason = f"privacy is claimed, and no epsilon is stated against {against} after the last release"
        raise EvidenceError(history.completed.seq, reason)


def _check_claimable(stated: Sequence[Event]) -> None:
    """Nothing is claimed above LARGEST_CLAIM, against those whom the claim is about."""
    for event in stated:
        upper = _value(event.fields["upper"])
        if event.fields["view"] != "aggregation-broken" and upper > LARGEST_CLAIM * (1 + _TOLERANCE):
            shown_upper = at_most(upper) if math.isfinite(upper) else "without bound"
            raise EvidenceError(
                event.seq, f"epsilon is {shown_upper}, and privacy is claimed: above {LARGEST_CLAIM:g} nothing can be"
            )


def _check_bracket(event: Event, found: Epsilon) -> None:
    """The lower bound and what other accountants found are those that are found here."""
    fields: Mapping[str, Any] = event.fields
    if fields.get("lower") is not None:
        _compare(event, "lower", _value(fields["lower"]), 0.0 if found.lower is None else found.lower)
    for name, value in fields.get("cross_checks", {}).items():
        if name not in found.cross_checks:
            raise EvidenceError(event.seq, f"states a cross-check by {name}, which there is none of here")
        _compare(event, name, value, found.cross_checks[name])


def _compare(event: Event, name: str, stated: float, found: float) -> None:
    if not _equal(stated, found):
        what = "epsilon" if name == "upper" else f"epsilon ({name})"
        shown = stated if math.isfinite(stated) else None
        raise EvidenceError(event.seq, f"states {what} {shown}, the events before it give {found:.6g}")


def _check_summary(folder: Path, history: RunHistory) -> float:
    """The epsilon of summary.json is the largest over the hospitals, against whom the claim holds."""
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
    _check_views(history, privacy)
    return found


def _check_views(history: RunHistory, privacy: Mapping[str, Any]) -> None:
    """With noise in shares, what summary.json states against each adversary is what the log states last."""
    assert history.completed is not None  # noqa: S101 (narrows the type)
    claim = history.claim
    if "epsilon_by_adversary" not in privacy:
        if claim is not None and claim.fields["claim"] == "CLAIMED" and claim.fields["mode"] in IN_SHARES:
            reason = "summary.json does not state epsilon_by_adversary of the privacy that is claimed"
            raise EvidenceError(history.completed.seq, reason)
        return
    logged = {(e.fields["view"], e.fields.get("colluders", 0)): e.fields["upper"] for e in history.of_kind("epsilon")}
    sums: dict[Any, Any] = {known: upper for (view, known), upper in logged.items() if view == "aggregate-only"}
    most = max(sums, default=0)
    expected = {
        "aggregate_only": sums.get(0),
        "colluders": {str(most): sums.get(most)},
        "aggregation_broken": logged.get(("aggregation-broken", 0)),
    }
    if privacy["epsilon_by_adversary"] != expected:
        stated = f"summary.json states epsilon_by_adversary {shown(privacy['epsilon_by_adversary'])}"
        raise EvidenceError(history.completed.seq, f"{stated}, the log states {shown(expected)}")


def _check_nothing_claimed(folder: Path, history: RunHistory, *, released: bool) -> None:
    """A summary may state what the releases would have cost (with noise from a seed, say) if it says NOT CLAIMED."""
    if history.completed is None:
        return
    privacy = _privacy_of_summary(folder, history.completed.seq)
    stated = privacy.get("epsilon")
    if str(privacy.get("claim", "")).startswith("CLAIMED"):
        raise EvidenceError(history.completed.seq, "summary.json claims privacy, the log claims nothing")
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
