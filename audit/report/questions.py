"""The 13 questions of a reviewer, answered from the run; what the run cannot answer is an open item.

They follow the evaluation of differential privacy guarantees in NIST SP 800-226 (2025), in our own words.
"""

from typing import Any, NamedTuple

from audit.accounting.fields import mechanism_of
from audit.accounting.mechanisms import Repeated
from audit.accounting.pld import is_closed_form
from audit.bounds import at_most
from audit.history import RunHistory
from audit.report.method import is_shared
from audit.report.privacy import IN_SHARES, ONLY_SUMS, hospitals_of
from audit.report.purpose import declared
from audit.report.utility import measured_at

QUESTIONS = (
    "What are epsilon and delta, and are the original parameters given?",
    "Is delta small against the number of people?",
    "What is the unit of privacy, and how much may one unit contribute?",
    "Which variant of differential privacy is it?",
    "What is the total over all analyses of the same data, and what happens when the budget is spent?",
    "Was anything else released from the same data?",
    "Is the implementation a well-tested library?",
    "What is the utility, and is it equal for all groups?",
    "Who is trusted with what?",
    "Is the result released once or can it be queried?",
    "What about floating point, timing and the random generator?",
    "Who can reach the raw data and the keys?",
    "Is the collection of these data necessary?",
)
_OPEN = "open: to be answered by the controller"
_ACCOUNTANTS = {
    "PLD": "dp-accounting (privacy loss distributions)",
    "RDP": "this project's Renyi bounds",
    "PRV": "this project's privacy random variables",
}
_CLOSED_FORM = "this project's closed form of a privacy loss without sampling (Balle and Wang 2018)"
_SOURCES = {"system": "comes from a cryptographic generator", "seeded": "follows from the seed of the run"}
_CLIPPING = "Clipping and noise are this project's own, with tests that show that faults of each kind are noticed."
_NONE = "No differential privacy is claimed."


class Answer(NamedTuple):
    """An answer of the run; where there is none, or it leaves the question to the controller, that is an open item."""

    text: str
    is_open: bool = False


def questions_section(history: RunHistory, claim: dict[str, Any], utility: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each question with its answer and whether it is open."""
    formal = _claimed(history, claim) if claim["claim"] == "CLAIMED" else _unclaimed(history, claim)
    answers = [
        *formal[:7],
        Answer(_utility(utility, len(hospitals_of(history)))),
        Answer(_trust(history)),
        Answer(
            "A model is released once; the run answers no queries." if is_shared(history) else "No model is shared."
        ),
        formal[7],
        Answer(declared(history, "access_control")),
        Answer(declared(history, "necessity")),
    ]
    return [
        {
            "question": question,
            "answer": answer.text or _OPEN,
            "state": "open" if answer.is_open or not answer.text else "answered",
        }
        for question, answer in zip(QUESTIONS, answers, strict=True)
    ]


def _claimed(history: RunHistory, claim: dict[str, Any]) -> list[Answer]:
    """The answers about the formal guarantee where there is one: questions 1 to 7 and 11."""
    epsilon = "infinite" if claim["epsilon"] is None else at_most(claim["epsilon"])
    stated = f"epsilon {epsilon} at delta {claim['delta']:g} by {claim['accountant']}"
    against = f" {ONLY_SUMS}" if claim["mode"] in IN_SHARES else ""
    charged = len({event.fields["release_id"] for event in history.of_kind("charge")})
    return [
        Answer(f"{stated}{against}; the mechanisms stand in the claim."),
        _delta(claim),
        Answer(f"One {claim['unit']}; its contribution to a step is clipped once."),
        Answer(f"(epsilon, delta), neighbours by {claim['adjacency']}."),
        Answer(
            f"{charged} releases of this run were charged to a ledger that refuses what would exceed the budget."
            if charged
            else "Each hospital charges a ledger of its own, which refuses what would exceed its budget."
            if history.charges_elsewhere
            else "This run was charged to no ledger: other runs on the same data add to what it reveals."
        ),
        Answer("; ".join(claim["unprotected"])),
        Answer(_libraries(claim)),
        Answer(_noise(history)),
    ]


def _delta(claim: dict[str, Any]) -> Answer:
    """Return what delta is: a private record does not say how many people there are, which noise would not cover."""
    return Answer(
        f"open: delta is {claim['delta']:g}; the controller compares it with one over the number of people in the data",
        is_open=True,
    )


def _libraries(claim: dict[str, Any]) -> str:
    """Name who computed epsilon, and who else did, as far as the claim shows it."""
    accountants = {**_ACCOUNTANTS, **({"PLD": _CLOSED_FORM} if _is_closed_form(claim) else {})}
    checks = [accountants[name] for name in claim["cross_checks"]]
    checked = f"checked against {' and '.join(checks)}" if checks else "by no other: it is checked against nothing"
    return f"Epsilon is computed by {accountants[claim['accountant']]}, {checked}. {_CLIPPING}"


def _is_closed_form(claim: dict[str, Any]) -> bool:
    """Whether what is called PLD needed no distribution on a grid, at any hospital."""
    released: dict[str | None, list[Repeated]] = {}
    for event in claim["events"]:
        step = Repeated(mechanism_of(event["mechanism"]), event["repetitions"])
        released.setdefault(event["hospital"], []).append(step)
    return all(is_closed_form(composition, claim["delta"]) for composition in released.values())


def _noise(history: RunHistory) -> str:
    """Say where the noise comes from: what follows from a seed is not said to be cryptographic."""
    stated: Any = {} if history.claim is None else history.claim.fields
    source = _SOURCES.get(stated.get("values", {}).get("noise"), "comes from a source that the record does not state")
    return f"Noise {source}; continuous noise is computed in floating point."


def _unclaimed(history: RunHistory, claim: dict[str, Any]) -> list[Answer]:
    """The answers of questions 1 to 7 and 11 where nothing is claimed, though noise may have been added."""
    is_noisy = bool(history.of_kind("privacy_event"))
    bare = "Everything was: nothing that left a hospital carried noise. What left: " if claim["mode"] == "off" else ""
    released = f"{bare}{'; '.join(claim['unprotected'])}" if is_shared(history) else "Nothing left a hospital."
    implementation, numbers = _sums(history)
    return [
        *[Answer(_NONE)] * 5,
        Answer(released),
        Answer(f"{implementation} {_CLIPPING}" if is_noisy else implementation),
        Answer(_noise(history) if is_noisy else numbers),
    ]


def _sums(history: RunHistory) -> tuple[str, str]:
    """Say whose implementation summed updates, and on what numbers and randomness it stands."""
    protocol = history.last("protocol_described")
    if protocol is None:
        return "Nothing was summed, and no secure aggregation was used.", "Nothing was summed."
    stated: Any = protocol.fields
    if stated["secure_aggregation"]:
        return (
            "The secure aggregation is this project's own; its specification and its attack tests come with it.",
            "Masks come from a cryptographic generator and sums are exact integers.",
        )
    clear = "Nothing was masked: updates were sent in clear."
    is_integers = stated.get("values", {}).get("compression") != "float16-zlib"
    return f"No secure aggregation was used. {clear}", f"{clear} Sums are exact integers." if is_integers else clear


def _utility(utility: dict[str, Any], hospitals: int) -> str:
    mean = utility["mean"].get("ensemble", {}).get("accuracy")
    if mean is None:
        return ""
    whom = measured_at(utility["sites"], "accuracy", hospitals)
    return (
        f"Mean accuracy over {whom} is {100 * mean:.1f} %; each hospital stands in the table. Groups of people "
        "within a hospital were not compared."
    )


def _trust(history: RunHistory) -> str:
    protocol = history.last("protocol_described")
    if protocol is None:
        return "Nothing was sent to anybody."
    if protocol.fields["secure_aggregation"]:
        return "The server sees sums only; the table of adversaries says what each party could learn."
    return "The server sees every update and is trusted with it."
