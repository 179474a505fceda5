"""What the report says about privacy: the claim with its numbers, and the guarantee against each adversary."""

import math
from collections.abc import Sequence
from typing import Any, Final

from audit.accounting.calibrate import upper_epsilon
from audit.accounting.epsilon import Epsilon, account
from audit.accounting.mechanisms import Adjacency, Composition
from audit.accounting.views import against_broken_aggregation, against_colluders
from audit.attempts import unopened_in
from audit.bounds import at_most, finite, percent_at_most
from audit.check_epsilon import composition_of
from audit.empirical.tradeoff import curve_of
from audit.history import RunHistory
from audit.report.method import beside_updates, is_shared, shared_model, without_noise

_DELTAS = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
_FALSE_POSITIVES = (0.001, 0.01, 0.1)
_POINTS = 12
_NOTHING_LEFT = (
    "No differential privacy is claimed. Nothing left the hospitals in this run; whatever is published of it may "
    "reveal something about the people in their data."
)
NEIGHBOURS: Final = {"add-or-remove-one": "adding or removing", "replace-one": "replacing"}
"""What the change from a data set to its neighbour is called, by adjacency."""
UNITS: Final = {
    "image": "one training image at a hospital",
    "patient": "all training images of one patient at a hospital",
    "hospital": "all data of one hospital",
}
"""What that change is about, by unit of privacy: images that nothing was trained on are in no claim."""
IN_SHARES = ("distributed", "hospital")
"""Modes in which no hospital adds all of the noise: each knows its share, and a promise holds less against it."""
ONLY_SUMS = "against whoever sees only the sums and what follows from them"


def is_claimed(history: RunHistory) -> bool:
    """Return whether the run claims differential privacy."""
    return history.claim is not None and history.claim.fields["claim"] == "CLAIMED"


def hospitals_of(history: RunHistory) -> list[str]:
    """Return the hospitals of a run, in the order of the data; whoever took part without data described comes last."""
    data = history.last("data_described")
    if data is not None:
        held_out = data.fields.get("held_out_site")
        sites: Any = data.fields["sites"]
        found = [site for site in sites if site != held_out]
    else:
        found = []
    took_part = {name for record in history.rounds for name in record.cohort}
    return [*found, *sorted(took_part - set(found))]


def worst_composition(history: RunHistory, delta: float, adjacency: Adjacency) -> tuple[Composition, Epsilon]:
    """Return what was released about the hospital that pays most, and what it costs."""
    names: Sequence[str | None] = hospitals_of(history) or [None]
    distinct = {tuple(composition_of(history, name)) for name in names}
    costs = [(composition, account(composition, delta, adjacency)) for composition in distinct]
    return max(costs, key=lambda cost: cost[1].upper)


def claim_section(history: RunHistory) -> dict[str, Any]:
    """Return the formal claim; without one, that there is none and why."""
    claim = history.claim
    stated: Any = {} if claim is None else claim.fields
    section: dict[str, Any] = {
        "mode": stated.get("mode", "off"),
        "claim": "NOT CLAIMED",
        "reason": stated.get("reason", "the log states no privacy claim"),
        "statement": _NOTHING_LEFT
        if not is_shared(history)
        else (
            "No differential privacy is claimed. What left the hospitals, and the shared model, may reveal something "
            "about the people in their data; a sum alone leaks."
        ),
        "unit": None,
        "adjacency": None,
        "delta": None,
        "target_epsilon": stated.get("target_epsilon"),
        "epsilon": None,
        "lower": None,
        "accountant": None,
        "cross_checks": {},
        "contradictions": [],
        "by_delta": [],
        "attacker": [],
        "events": _events(history),
        "unprotected": without_noise(history)
        if stated.get("mode", "off") == "off"
        else list(stated.get("unprotected", [])),
    }
    if not is_claimed(history):
        return section
    delta, adjacency = stated["delta"], Adjacency(stated.get("adjacency", "add-or-remove-one"))
    composition, found = worst_composition(history, delta, adjacency)
    profile = [(value, upper_epsilon(composition, value, adjacency)) for value in _DELTAS]
    pairs = [(epsilon, value) for value, epsilon in [*profile, (delta, found.upper)]]
    curve = curve_of(composition, adjacency, pairs, coarse=True)
    attacker = [{"false_positives": rate, "true_positives": curve.found(rate)} for rate in _FALSE_POSITIVES]
    unit, neighbours = UNITS[stated.get("unit", "image")], NEIGHBOURS[adjacency]
    section |= {
        "claim": "CLAIMED",
        "unit": stated.get("unit", "image"),
        "adjacency": str(adjacency),
        "delta": delta,
        "epsilon": finite(found.upper),
        "lower": found.lower,
        "accountant": found.accountant,
        "cross_checks": dict(found.cross_checks),
        "contradictions": list(found.contradictions),
        "by_delta": [{"delta": value, "epsilon": finite(epsilon)} for value, epsilon in profile],
        "attacker": attacker,
        "statement": _statement(found.upper, delta, f"{neighbours} {unit}", attacker, _observer(stated)),
    }
    if stated["mode"] in IN_SHARES and math.isfinite(found.upper):
        section["statement"] += _participant(upper_epsilon(against_colluders(composition, 1), delta, adjacency))
    return section


def covered(claim: dict[str, Any]) -> str:
    """Return what the claim of a report covers, as the signed record says it; so long that a sentence can hold it."""
    beside = " Not covered is what the section Scope lists." if claim["unprotected"] else ""
    return f"The claim covers {claim['reason'][:2000]}.{beside}"


def _observer(stated: dict[str, Any]) -> str:
    """For whom the epsilon of the claim holds."""
    alone = "one who sees the sums and what follows from them, and knows nobody's noise,"
    return alone if stated["mode"] in IN_SHARES else "an observer"


def _participant(epsilon: float) -> str:
    """What the claim is worth where a hospital that took part, and so knows its own share of the noise, looks on."""
    cost = f"epsilon is {at_most(epsilon)}" if math.isfinite(epsilon) else "nothing is promised"
    return f" Against a hospital that took part, which knows its own noise, or a server that it helps, {cost}."


def _statement(epsilon: float, delta: float, change: str, attacker: Sequence[dict[str, float]], observer: str) -> str:
    """The claim as a formula, and for who does not think in exponentials."""
    if not math.isfinite(epsilon):
        return "The releases of this run cannot be accounted: their cost is infinite, nothing follows from the claim."
    wrong, found = 100 * attacker[1]["false_positives"], percent_at_most(attacker[1]["true_positives"])
    return (
        f"Of what the claim covers, the chance of any outcome that {observer} may see changes by a factor of at most "
        f"exp({at_most(epsilon)}), apart from a probability of {delta:g}, by {change}. In other words: whoever tries "
        f"to tell from it what was trained on, and is wrong about {wrong:g} % of what was not, finds at most {found} "
        "of what was."
    )


def epsilon_by_round(history: RunHistory) -> dict[int, float]:
    """Return {round: epsilon after it, of the hospital that pays most}, as the log states it or its events give it.

    Computed for at most 12 rounds, evenly spread and the last among them, by a coarser and slightly larger bound.
    """
    stated: dict[int, float] = {}
    for event in history.of_kind("epsilon"):
        fields: Any = event.fields
        if "round" in fields and fields["upper"] is not None:
            stated[fields["round"]] = max(stated.get(fields["round"], 0.0), fields["upper"])
    if stated or not is_claimed(history) or not history.results:
        return stated
    assert history.claim is not None  # noqa: S101 (narrows the type)
    claimed: Any = history.claim.fields
    adjacency = Adjacency(claimed.get("adjacency", "add-or-remove-one"))
    records = history.results
    chosen = {round(place * (len(records) - 1) / (_POINTS - 1)) for place in range(_POINTS)}
    names: Sequence[str | None] = hospitals_of(history) or [None]
    for place in sorted(chosen):
        seen = {tuple(composition_of(history, name, until=records[place].seq)) for name in names}
        costs = [upper_epsilon(composition, claimed["delta"], adjacency, coarse=True) for composition in seen]
        if math.isfinite(max(costs)):
            stated[records[place].number] = max(costs)
    return stated


def trust_section(history: RunHistory) -> list[dict[str, Any]]:
    """Return who sees what, what protects against each, and epsilon where one is claimed; nobody where nothing left."""
    if not is_shared(history):
        return []
    protocol = history.last("protocol_described")
    values: Any = {} if protocol is None else protocol.fields
    masked = bool(values.get("secure_aggregation", False))
    active = values.get("threat_model") == "active"
    corrupt = values.get("corrupt", 0)
    costs = _costs(history, corrupt)
    if masked:
        helped = {0: "no hospital helps", 1: "one hospital helps"}.get(corrupt, f"{corrupt} hospitals help")
        honest = "may lie" if active else "follows the protocol"
        server = f"Pairwise masks hide single updates from a server that {honest} and that {helped}."
        colluder = "The same masks; but hospitals that pool what they know can subtract their own part of a sum."
    else:
        server = "Nothing: updates were sent in clear."
        colluder = "Transport only: a hospital sees no update of another, but the server could pass them on."
    return [
        {
            "adversary": "the server",
            "sees": _seen_by_server(history, masked=masked),
            "protection": server,
            "epsilon": costs["helped"] if masked else costs["broken"],
        },
        {
            "adversary": "another hospital",
            "sees": "every global model, and its own update",
            "protection": colluder,
            "epsilon": costs["colluder"],
        },
        {
            "adversary": "whoever breaks the aggregation",
            "sees": _single_updates(history),
            "protection": "Noise that each hospital adds itself, if it does.",
            "epsilon": costs["broken"],
        },
        {
            "adversary": "whoever gets the shared model",
            "sees": f"the final {shared_model(history)} and nothing of a round",
            "protection": "What protects the sum protects the model made of it.",
            "epsilon": costs["aggregate"],
        },
    ]


def _seen_by_server(history: RunHistory, *, masked: bool) -> str:
    """What a server opens: sums, or single messages; with all that is in them."""
    updates = "the sum of the updates of a round and who took part" if masked else "every update of every hospital"
    return "; ".join([updates, *(f"{'mean ' if masked else ''}{what}" for what in beside_updates(history))])


def _single_updates(history: RunHistory) -> str:
    """What whoever breaks the aggregation sees: more than the recorded sums, where rounds were begun again."""
    more = unopened_in(history.events)
    return (
        f"single updates, up to {more} of each hospital for sums that were never opened" if more else "single updates"
    )


def _costs(history: RunHistory, corrupt: int) -> dict[str, float | None]:
    """Return epsilon against whoever sees sums alone, with `corrupt` helpers, with one, and against single vectors."""
    if not is_claimed(history):
        return {"aggregate": None, "helped": None, "colluder": None, "broken": None}
    assert history.claim is not None  # noqa: S101 (narrows the type)
    stated: Any = history.claim.fields
    delta, adjacency = stated["delta"], Adjacency(stated.get("adjacency", "add-or-remove-one"))
    composition, found = worst_composition(history, delta, adjacency)
    views = {
        "helped": tuple(against_colluders(composition, corrupt)),
        "colluder": tuple(against_colluders(composition, 1)),
        "broken": against_broken_aggregation(composition, unopened_in(history.events)),
    }
    costs = {
        name: found.upper if view == tuple(composition) else upper_epsilon(view, delta, adjacency)
        for name, view in views.items()
    }
    return {"aggregate": finite(found.upper), **{name: finite(cost) for name, cost in costs.items()}}


def _events(history: RunHistory) -> list[dict[str, Any]]:
    """The mechanisms of the run as they were recorded, equal ones counted together."""
    from audit.accounting.fields import mechanism_fields, mechanism_of

    counts: dict[Any, int] = {}
    for event in history.of_kind("privacy_event"):
        fields: Any = event.fields
        key = (fields.get("hospital"), mechanism_of(fields["mechanism"]))
        counts[key] = counts.get(key, 0) + fields["repetitions"]
    return [
        {"hospital": hospital, "mechanism": mechanism_fields(mechanism), "repetitions": count}
        for (hospital, mechanism), count in counts.items()
    ]
