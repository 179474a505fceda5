"""The first page: one line a claim, and one plain sentence a hospital."""

from collections.abc import Collection, Sequence
from typing import Any

from audit.bounds import at_least, at_most
from audit.check_sums import check_sums, least_summed
from audit.errors import EvidenceError
from audit.history import RunHistory
from audit.log import Event
from audit.report.method import alone, is_shared, scoring_rounds, training_rounds, what_stays
from audit.report.privacy import IN_SHARES, ONLY_SUMS, covered, is_claimed
from audit.verify import Verification

_PROTECTED = {
    "image": "Its training images are",
    "patient": "The training images of each of its patients, together, are",
    "hospital": "All of its data, as one, are",
}


def verdicts_section(
    history: RunHistory,
    verification: Verification,
    claim: dict[str, Any],
    communication: dict[str, Any],
    in_ledger: Collection[str] = (),
) -> list[dict[str, str]]:
    """Return what is claimed and whether it holds; `in_ledger` are hospitals whose ledger was compared and agrees."""
    return [
        _record(history, verification),
        _aggregation(history),
        _privacy(history, verification, claim),
        _budget(history, in_ledger),
        _attacks(history),
        _bytes(verification, communication),
    ]


def hospital_sentence(
    entry: dict[str, Any], history: RunHistory, claim: dict[str, Any], ledger: dict[str, Any] | None = None
) -> str:
    """Return what the run means for one hospital, in words; `ledger` says which state of one was read."""
    name = entry["name"]
    if not is_shared(history):
        return f"{name} {alone(history)}"
    if not history.results:
        return f"{name} took part in no round that reached its end."
    masked = history.threshold is not None
    took = f"{name} took part in {_participation(name, history)}, sent {megabytes(entry['sent'])} and received "
    again = ", rounds aborted or done again included" if len(history.attempts) > len(history.results) else ""
    if history.cut_short:
        again += ", attempts that were cut short not counted"
    took += f"{megabytes(entry['received'])}{again}. {what_stays(history)} "
    how = "Its updates left under masks that only a sum removes. " if masked else "Its updates left in clear. "
    return took + how + _protection(entry, claim, ledger or {}, masked=masked)


def _participation(name: str, history: RunHistory) -> str:
    """Count the rounds in whose sum a hospital is, those that only score apart."""
    trained = [name in record.survivors for record in history.training]
    scored = sum(name in record.survivors for record in history.results) - sum(trained)
    took = f"{sum(trained)} of {training_rounds(len(trained))}"
    return f"{took} and in {scoring_rounds(scored)}" if scored else took


def _protection(entry: dict[str, Any], claim: dict[str, Any], ledger: dict[str, Any], *, masked: bool) -> str:
    """Return what bounds that one learns something about a hospital's patients from what it sent."""
    if claim["claim"] != "CLAIMED":
        read = "the sum" if masked else "each of its updates, read in clear,"
        return f"No differential privacy is claimed: {read} may reveal something about its patients."
    if entry["epsilon"] is None:
        return "Its differential privacy could not be accounted: nothing may be concluded from the claim."
    cost = f"epsilon {at_most(entry['epsilon'])} at delta {claim['delta']:g}"
    privacy = f"{_PROTECTED[claim['unit']]} protected, in what the claim covers, with {cost}"
    privacy += f" {ONLY_SUMS}, and with a larger one against hospitals." if claim["mode"] in IN_SHARES else "."
    if "in_ledger" in entry:
        return f"{privacy} {_standing_now(entry['in_ledger'], ledger)}"
    return privacy if entry["budget"] is None else f"{privacy} {_standing(entry, claim)}"


def _standing_now(standing: dict[str, Any], ledger: dict[str, Any]) -> str:
    """Return a hospital's budget, and what its ledger says is spent and left of it after all runs so far."""
    spent = "more than can be accounted" if standing["spent"] is None else f"at most {at_most(standing['spent'])}"
    stands = f"{spent} is spent and at least {at_least(standing['remaining'])} left"
    bound = standing["spent"] is not None and standing["remaining"] < standing["budget"] - standing["spent"]
    finer = " (budgets of finer units leave no more)" if bound and standing["unit"] != "image" else ""
    return f"Its budget over all runs is {budget_of(standing)}; by its ledger as of {as_of(ledger)} {stands}{finer}."


def as_of(ledger: dict[str, Any]) -> str:
    """Return which state of a ledger was read: its last entry, by the number that `audit ledger history` gives it."""
    return f"entry {ledger['entries'] - 1} ({ledger['time'][:19].replace('T', ' ')} UTC)"


def _standing(entry: dict[str, Any], claim: dict[str, Any]) -> str:
    """Return a hospital's budget, and what its log says was spent and left of it when this run was last charged."""
    budget, spent = f"Its budget over all runs is {budget_of(entry)}.", entry["epsilon_after"]
    if spent is None:
        return budget
    finer = "" if claim["unit"] == "image" else ", unless budgets of finer units left less"
    left = at_least(max(0.0, entry["budget"] - spent))
    then = f"After this run's last charge at most {at_most(spent)} of it was spent and at least {left} left{finer}."
    return f"{budget} {then}"


def budget_of(entry: dict[str, Any]) -> str:
    """Return a hospital's budget in words, with what the record says of it: epsilon means nothing without its delta."""
    delta, adjacency = entry.get("budget_delta"), entry.get("budget_adjacency")
    at = "" if delta is None else f" at delta {delta:g}"
    return f"epsilon {entry['budget']:g}{at}{f' ({adjacency})' if adjacency else ''}"


def megabytes(count: float) -> str:
    """Return bytes as people read them; a MB is 10**6 bytes."""
    return f"{count / 1e6:,.2f} MB" if count >= 1e5 else f"{count / 1e3:,.2f} kB"


def _line(subject: str, verdict: str, sentence: str) -> dict[str, str]:
    return {"subject": subject, "verdict": verdict, "sentence": sentence}


def _record(history: RunHistory, verification: Verification) -> dict[str, str]:
    subject = "The record"
    if verification.failed:
        where = verification.first_bad_event
        at = f" The first bad event is number {where}." if where >= 0 else ""
        return _line(subject, "FAIL", f"The record does not verify: {verification.failed[0].detail}.{at}")
    signed = next(check for check in verification.checks if check.name == "signatures")
    if signed.outcome != "PASS":
        return _line(subject, "NOT CLAIMED", "The record is whole and in order, but nobody signed it.")
    if not verification.is_complete:
        return _line(subject, "NOT CLAIMED", "The record verifies as far as it goes; the run did not reach its end.")
    whose = "agreed on before the run" if verification.is_pinned else "that came with the run"
    told = f"The record is whole, in order, and signed by all parties of the roster {whose}"
    if missing := verification.unsigned_by:
        announced = history.last("roster")
        hospitals: Any = () if announced is None else announced.fields["hospitals"]
        there = f"{len(hospitals) - len(missing)} of {len(hospitals)} hospitals"
        told += f" but {', '.join(missing)}: the end of the run is signed by {there}"
    if after := verification.unsigned:
        what = "an attack" if after == 1 else f"{after} attacks"
        told += f"; the record of {what} after the end is not signed by enough hospitals"
    return _line(subject, "PASS", f"{told}.")


def _aggregation(history: RunHistory) -> dict[str, str]:
    subject = "Secure aggregation"
    protocol = history.last("protocol_described")
    if protocol is None or not history.rounds:
        return _line(subject, "NOT CLAIMED", f"Nothing was aggregated in this run.{_aborted(history)}")
    fields: Any = protocol.fields
    if not fields["secure_aggregation"]:
        return _line(
            subject,
            "NOT CLAIMED",
            f"Updates were sent in clear: the server could read each of them.{_aborted(history)}",
        )
    try:
        check_sums(history)
    except EvidenceError as error:
        return _line(subject, "FAIL", f"{error.reason[:1].upper()}{error.reason[1:]}.")
    lost = sum(len(record.dropouts) for record in history.results)
    losses = (
        f" {lost} {'loss of a hospital was' if lost == 1 else 'losses of hospitals were'} survived." if lost else ""
    )
    model = "that may lie" if fields.get("threat_model") == "active" else "that follows the protocol"
    return _line(
        subject,
        "PASS",
        f"In {_all_rounds(history)}, updates were summed under pairwise masks; a server {model} sees the sum "
        f"of at least {least_summed(history)} hospitals and no single update.{losses}{_aborted(history)}",
    )


def _all_rounds(history: RunHistory) -> str:
    training = len(history.training)
    scoring = len(history.results) - training
    trained = "the one round of training" if training == 1 else f"all {training_rounds(training)}"
    return f"{trained}{f' and {scoring_rounds(scoring)}' if scoring else ''}"


def _aborted(history: RunHistory) -> str:
    count = len(history.aborted)
    if not count:
        return ""
    return f" {count} {'attempt at a round was' if count == 1 else 'attempts at rounds were'} aborted without a sum."


def _privacy(history: RunHistory, verification: Verification, claim: dict[str, Any]) -> dict[str, str]:
    subject = "Differential privacy"
    if not is_claimed(history):
        return _line(subject, "NOT CLAIMED", claim["reason"].removeprefix("NOT CLAIMED: "))
    if claim["contradictions"]:
        return _line(subject, "FAIL", claim["contradictions"][0])
    if claim["epsilon"] is None:
        return _line(subject, "FAIL", "What was released cannot be accounted: epsilon is infinite.")
    if fault := next((check for check in verification.failed if check.name == "epsilon"), None):
        return _line(subject, "FAIL", f"The record does not bear out the epsilon that it states: {fault.detail}.")
    target = claim["target_epsilon"]
    if target is not None and claim["epsilon"] > target:
        return _line(subject, "FAIL", f"epsilon is {at_most(claim['epsilon'])}, above the target of {target:g}.")
    for event in history.of_kind("attack"):
        if event.fields["name"] == "one-run audit" and event.fields["outcome"] == "FAIL":
            return _line(subject, "FAIL", "An attack on a copy of the run found more leakage than the claim allows.")
    return _line(subject, "PASS", f"{covered(claim)} {claim['statement']}")


def _budget(history: RunHistory, in_ledger: Collection[str]) -> dict[str, str]:
    subject = "Privacy budget"
    refused = history.of_kind("refused")
    if history.charges_elsewhere and history.of_kind("privacy_event"):
        held = "Each hospital charges a ledger of its own, which this record does not hold"
        compare = "whoever has one compares it by securefed audit verify RUN --ledger LEDGER"
        agrees = f"that of {', '.join(sorted(in_ledger))} was compared and agrees, no other was"
        return _line(subject, "NOT CLAIMED", f"{held}; {agrees if in_ledger else compare}.")
    if not history.of_kind("charge"):
        return _line(subject, "NOT CLAIMED", "The run was charged to no ledger.")
    exceeded = [
        event.fields["hospital"]
        for event in history.of_kind("charge")
        if _above(event.fields.get("epsilon_after"), event.fields.get("budget"))
    ]
    if exceeded:
        return _line(subject, "FAIL", f"The budget of {exceeded[0]} was exceeded.")
    more = f" {len(refused)} releases were refused." if refused else ""
    return _line(
        subject, "PASS", f"Every release was charged before it left, within the budget of each hospital.{more}"
    )


def _above(value: object, limit: object) -> bool:
    return isinstance(value, float | int) and isinstance(limit, float | int) and value > limit


def _attacks(history: RunHistory) -> dict[str, str]:
    subject = "Attacks tried"
    found = history.of_kind("attack")
    if not found:
        return _line(subject, "NOT CLAIMED", "No attack was tried on this run.")
    failed = [str(event.fields["name"]) for event in found if event.fields["outcome"] == "FAIL"]
    withstood = sum(event.fields["outcome"] == "PASS" for event in found)
    beside = _beside(found)
    if failed:
        told = f"{len(failed)} of {len(failed) + withstood} attacks succeeded: {', '.join(failed)}{beside}."
        return _line(subject, "FAIL", told)
    if not withstood:
        return _line(subject, "NOT CLAIMED", f"No attack on a claim was tried{beside}.")
    did = "The one attack on a claim did no" if withstood == 1 else f"None of {withstood} attacks on claims did"
    return _line(subject, "PASS", f"{did} better than is claimed{beside}.")


def _beside(found: Sequence[Event]) -> str:
    """Count the attacks that hold nothing against a claim: those that only measure, and those that were not tried."""
    without = [event.fields["setting"] for event in found if event.fields["outcome"] == "MEASURED"]
    skipped = without.count("not tried")
    counts = ((len(without) - skipped, "measured without a claim"), (skipped, "not tried"))
    told = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"; {told}" if told else ""


def _bytes(verification: Verification, communication: dict[str, Any]) -> dict[str, str]:
    subject = "Communication"
    if not communication["client_rounds"]:
        sent, received = (megabytes(communication["all_sent"][way]) for way in ("up", "down"))
        told = f"No round was finished: all hospitals sent {sent} and received {received} in attempts at one."
        return _line(subject, "NOT CLAIMED", told if any(communication["all_sent"].values()) else "Nothing was sent.")
    failed = next((check for check in verification.failed if check.name == "bytes"), None)
    if failed is not None:
        return _line(subject, "FAIL", f"The bytes do not add up: {failed.detail}.")
    mean = communication["per_client_round"]
    sent, received = megabytes(mean["up"]), megabytes(mean["down"])
    return _line(subject, "PASS", f"A hospital sent {sent} and received {received} a round, counted on encoded frames.")
