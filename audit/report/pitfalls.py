"""The checklist for training with differential privacy, ticked from what the run recorded.

It follows the list of pitfalls in the documentation of jax_privacy (2026), in our own words.
"""

from typing import Any

from audit.history import RunHistory

CONSTANTS = ("normaliser", "sampling_rate", "steps_a_round")
"""Values of the privacy claim that are fixed before the run, whatever the data are."""

_SOURCES = {"system": "PASS", "cryptographic": "PASS", None: "NOT SHOWN"}

RECORDED = (
    ("sensitivity equals the clip norm", "sensitivity_checked"),
    ("no operation across examples", "per_example_validated"),
    ("empty batches still add noise", "empty_batches"),
    ("non-finite gradients are dropped", "non_finite_dropped"),
)
"""Pitfalls, and the value of the privacy claim by which a run records that it avoids each."""

_HOW = {"sensitivity_checked": "every hospital replayed its steps on made-up records before the first round"}
"""In what way, where that is more than what the software states of itself."""

_NO_EPSILON = "noise was added, but nothing is claimed of it: this report computes no epsilon"


def pitfalls_section(history: RunHistory, claim: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the checklist; where nothing is claimed and no noise was added, nothing of it applies."""
    if claim["claim"] != "CLAIMED" and not history.of_kind("privacy_event"):
        return [
            {
                "name": "training with differential privacy",
                "outcome": "NOT APPLICABLE",
                "detail": "No noise was added: there is nothing to get wrong, and no protection by it either.",
            }
        ]
    stated: Any = {} if history.claim is None else history.claim.fields
    values = stated.get("values", {})
    source = values.get("noise")
    constants = [f"{name.replace('_', ' ')} {values[name]}" for name in CONSTANTS if name in values]
    rows = [
        ("accounting matches the sampling", *_accounting(claim)),
        ("accountants agree", *_agreement(claim)),
        (
            "neighbouring relation is stated",
            "PASS" if "adjacency" in stated else "FAIL",
            f"neighbours by {stated.get('adjacency', 'add-or-remove-one')}, one {stated.get('unit', 'image')}",
        ),
        (
            "randomness is cryptographic",
            _SOURCES.get(source, "FAIL"),
            f"source of noise and samples: {source or 'not recorded'}",
        ),
        (
            "normaliser, rate and steps are public constants",
            "PASS" if len(constants) == len(CONSTANTS) else "NOT SHOWN",
            f"stated before the first round: {', '.join(constants) or 'none'}",
        ),
        (
            "side information is listed",
            "PASS" if "unprotected" in stated else "NOT SHOWN",
            "; ".join(claim["unprotected"]) or "the run lists none",
        ),
    ]
    for name, key in RECORDED:
        shown = values.get(key)
        outcome = "NOT SHOWN" if shown is None else ("PASS" if shown else "FAIL")
        how = _HOW.get(key, "as the software states of itself") if shown else "the run recorded that it does not"
        rows.append((name, outcome, "the run recorded nothing of it" if shown is None else how))
    return [{"name": name, "outcome": outcome, "detail": detail} for name, outcome, detail in rows]


def _accounting(claim: dict[str, Any]) -> tuple[str, str]:
    """Return the outcome and how it is shown: of noise on which no claim stands, nothing was composed."""
    if claim["claim"] != "CLAIMED":
        return "NOT SHOWN", _NO_EPSILON
    how = "epsilon was composed from the recorded mechanisms, each with its sampling"
    return "PASS" if claim["epsilon"] is not None else "FAIL", how


def _agreement(claim: dict[str, Any]) -> tuple[str, str]:
    """Return the outcome and how it is shown: an accountant by itself agrees with nobody."""
    if claim["claim"] != "CLAIMED":
        return "NOT SHOWN", _NO_EPSILON
    if claim["contradictions"]:
        return "FAIL", "; ".join(claim["contradictions"])
    if claim["epsilon"] is None:
        return "NOT SHOWN", "no finite epsilon was computed: there is nothing to compare"
    if not claim["cross_checks"]:
        return "NOT SHOWN", f"one accountant only, {claim['accountant']}: no other has computed these mechanisms"
    return "PASS", f"the bounds of {', '.join([claim['accountant'], *claim['cross_checks']])} contain one another"
