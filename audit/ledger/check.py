"""Whether a ledger and the logs of its runs tell the same story."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from audit.accounting import mechanism_of, rdp_epsilon, upper_epsilon
from audit.bounds import at_most
from audit.errors import EvidenceError
from audit.ledger.accounts import BudgetLine
from audit.ledger.entries import Spent
from audit.ledger.ledger import Ledger
from audit.log import Event


def check_ledger(path: Path, logs: Mapping[str, Sequence[Event]], hospital: str | None = None) -> str:
    """Check a ledger as `count_agreeing` does and return what was found, in words."""
    counted = count_agreeing(path, logs, hospital=hospital)
    return f"{counted} charges of {len(logs)} logs agree with the ledger; no budget was exceeded"


def count_agreeing(
    path: Path,
    logs: Mapping[str, Sequence[Event]],
    named: Callable[[str], str] | None = str,
    hospital: str | None = None,
) -> int:
    """Check a ledger against the verified events of runs.

    Args:
        path: The ledger.
        logs: {name of a run in ledgers (`run_of_log`): its events}.
        named: Returns what these logs call data of a fingerprint; None where nobody can tell, and that is not compared.
        hospital: Compare its charges alone, with private logs of its own: others may pay from the same ledger.

    Returns:
        How many charges the ledger and the logs have in common.

    Raises:
        EvidenceError: An entry was changed, a line was overspent, a charge of a log is not in the ledger or differs, or
            the ledger holds a sent release of one of these runs that its log does not know. In the log of a deployment,
            where hospitals charge their own ledgers, a release is known by its privacy event; where sums are the
            releases, each with an update of this ledger's hospital must have been paid for, and vectors that left
            beside are not known at all: only the hospital's private log has them.
        LedgerError: There is no such ledger, or it cannot be opened.
    """
    with Ledger.reading(path) as ledger:
        charges = {
            spent.charge.release_id: spent
            for spent in ledger.charges()
            if hospital is None or spent.account.hospital == hospital
        }
        budgets = ledger.budgets()
        for line, budget in budgets.items():
            composition, limit = ledger.at_last_charge(line)
            if not composition or rdp_epsilon(composition, budget.delta, budget.adjacency) <= limit:
                continue
            epsilon = upper_epsilon(composition, budget.delta, budget.adjacency)
            if epsilon > limit:
                raise EvidenceError(-1, f"{line.hospital} spent {at_most(epsilon)} of a budget of {limit:g}")
    counted = 0
    for run_id, events in logs.items():
        logged: set[str] = set()
        for event in events:
            if event.kind != "charge":
                continue
            fields: Mapping[str, Any] = event.fields
            spent = charges.get(fields["release_id"])
            if spent is None or spent.charge.run_id != run_id:
                raise EvidenceError(
                    event.seq, f"the ledger knows no charge {fields['release_id']!r} of the run {run_id!r}"
                )
            same = (
                (fields["hospital"], fields["unit"]) == (spent.account.hospital, spent.account.unit)
                and (named is None or fields["fingerprint"] == named(spent.account.fingerprint))
                and fields["repetitions"] == spent.charge.repetitions
                and mechanism_of(fields["mechanism"]) == spent.charge.mechanism
            )
            if not same:
                raise EvidenceError(event.seq, f"the charge {fields['release_id']!r} is another one in the ledger")
            if fields["state"] == "committed" and spent.state != "committed":
                raise EvidenceError(
                    event.seq, f"the charge {fields['release_id']!r} is only {spent.state} in the ledger"
                )
            logged.add(fields["release_id"])
        deployed = bool(events) and events[0].fields.get("operation") == "deployment"
        if deployed:
            logged |= _announced(events, charges)
            _check_paid(events, charges, {line.hospital for line in budgets})
            logged |= _check_paid_sums(run_id, events, charges.values(), _owners(charges.values(), budgets))
        of_hospitals = any("hospital" in event.fields for event in events if event.kind == "privacy_event")
        for release_id, spent in charges.items():
            sent = spent.charge.run_id == run_id and spent.state != "reserved"
            if sent and release_id not in logged and (of_hospitals or not deployed):
                raise EvidenceError(-1, f"the ledger holds the release {release_id!r}, the log of {run_id!r} does not")
        counted += len(logged)
    return counted


def _check_paid(events: Sequence[Event], charges: Mapping[str, Spent], hospitals: set[str]) -> None:
    """Refuse a sum of a deployment's log with an update of a hospital of this ledger that it has not paid for.

    A hospital that was lost before it trained pays nothing for the release that the log has announced.
    """
    announced: dict[tuple[str, str, str], Event] = {}
    model = ""
    for event in events:
        fields: Mapping[str, Any] = event.fields
        if event.kind == "round_started":
            model = str(fields["model_digest"])[:16]
        elif event.kind == "privacy_event" and fields.get("hospital") in hospitals:
            announced[str(fields.get("round")), model, fields["hospital"]] = event
        elif event.kind == "round_completed":
            for hospital in fields["survivors"]:
                unpaid = announced.get((str(fields["round"]), model, hospital))
                if unpaid is not None and unpaid.fields.get("release_id") not in charges:
                    raise EvidenceError(
                        unpaid.seq, f"the ledger of {hospital} knows no charge {unpaid.fields.get('release_id')!r}"
                    )


def _owners(charges: Collection[Spent], budgets: Collection[BudgetLine]) -> set[str]:
    """Return whose ledger it is: those who were charged, or else who alone has a budget; nobody where that is open."""
    charged = {spent.account.hospital for spent in charges}
    budgeted = {line.hospital for line in budgets}
    return charged or (budgeted if len(budgeted) == 1 else set())


def _check_paid_sums(run: str, events: Sequence[Event], charges: Collection[Spent], owners: set[str]) -> set[str]:
    """Refuse a sum with noise in shares over an update of a hospital of this ledger that it has not paid for.

    Which vector of a round that was begun again is in the sum, the log does not say; one of them was paid for.

    Returns:
        One release of the ledger for each of these sums and hospitals.
    """
    committed = [spent for spent in charges if spent.charge.run_id == run and spent.state == "committed"]
    found: set[str] = set()
    noisy = False
    for event in events:
        fields: Mapping[str, Any] = event.fields
        if event.kind == "round_started":
            noisy = False
        elif event.kind == "privacy_event":
            noisy = "hospital" not in fields
        elif event.kind == "round_completed" and noisy:
            for hospital in sorted(owners & set(fields["survivors"])):
                paid = [
                    spent.charge.release_id
                    for spent in committed
                    if spent.account.hospital == hospital
                    and spent.charge.release_id.startswith(f"{run}/{fields['round']}/")
                ]
                if not paid:
                    raise EvidenceError(
                        event.seq,
                        f"the ledger of {hospital} holds no committed charge for its vector in the sum of round "
                        f"{fields['round']}; it was lost, replaced, or put back from an earlier copy",
                    )
                found.add(paid[-1])
    return found


def _announced(events: Sequence[Event], charges: Mapping[str, Spent]) -> set[str]:
    """Return the releases of the ledger that a deployment's log has announced, each with the ledger's mechanism."""
    found: set[str] = set()
    for event in events:
        fields: Mapping[str, Any] = event.fields
        spent = charges.get(str(fields.get("release_id"))) if event.kind == "privacy_event" else None
        if spent is None:
            continue
        paid = (spent.account.hospital, spent.charge.repetitions, spent.charge.mechanism)
        if paid != (fields.get("hospital"), fields["repetitions"], mechanism_of(fields["mechanism"])):
            raise EvidenceError(event.seq, f"the release {fields['release_id']!r} is another one in the ledger")
        found.add(spent.charge.release_id)
    return found
