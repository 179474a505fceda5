"""One release, from the charge to the record: the only order in which a crash can neither lose nor refund a charge."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from audit.accounting import mechanism_fields
from audit.bounds import finite
from audit.canonical import JSON
from audit.ledger.accounts import Account, Charge
from audit.ledger.errors import BudgetExceededError, LedgerError
from audit.ledger.ledger import Ledger
from audit.log import EventLog

T = TypeVar("T")


def charge_release(
    ledger: Ledger,
    log: EventLog,
    account: Account,
    charge: Charge,
    *,
    round: int,
    privacy_event: bool = True,
    named: Callable[[str], str] = str,
) -> dict[str, JSON]:
    """Reserve and record: the charge is durable in the ledger and in the log. Return what the log says of it.

    Arguments and errors as of `charged_release`, which does the rest.
    """
    noise: dict[str, JSON] = {"mechanism": mechanism_fields(charge.mechanism), "repetitions": charge.repetitions}
    paid: dict[str, JSON] = {
        "hospital": account.hospital,
        "fingerprint": named(account.fingerprint),
        "unit": account.unit,
        "release_id": charge.release_id,
        **noise,
    }
    try:
        spent = ledger.reserve(account, charge)
        budget = ledger.budget_of(account)
    except BudgetExceededError as error:
        _record_refusal(log, account, charge, error, {"round": round})
        raise
    with log.batch():
        limit: dict[str, JSON] = {"budget": budget.epsilon, "delta": budget.delta, "adjacency": str(budget.adjacency)}
        log.append("charge", {**paid, "epsilon_after": spent, **limit, "state": "reserved"})
        if privacy_event:
            event: dict[str, JSON] = {"hospital": account.hospital, "round": round, "release_id": charge.release_id}
            log.append("privacy_event", {**noise, **event})
    return paid


def charged_release(
    ledger: Ledger,
    log: EventLog,
    account: Account,
    charge: Charge,
    send: Callable[[], T],
    *,
    round: int,
    privacy_event: bool = True,
    named: Callable[[str], str] = str,
) -> T:
    """Reserve, record, release, send, commit; return what `send` returns.

    The charge is durable in the ledger and in the log before `send` is called.

    Args:
        ledger: The budget.
        log: The run's log, which records reservation, privacy event and commitment, or the refusal.
        account: The data that is released about.
        charge: What it costs.
        send: Lets the noisy value leave.
        round: Round of the run.
        privacy_event: Whether the log gets the privacy event with the charge; not where the release concerns several
            hospitals and stands in the log once for all of them.
        named: Returns what the log calls data of a fingerprint, where it is not for the hospital's eyes alone.

    Raises:
        BudgetExceededError: The release would exceed the budget; ledger and log record it, `send` was not called.
    """
    paid = charge_release(ledger, log, account, charge, round=round, privacy_event=privacy_event, named=named)
    ledger.release(charge.release_id)
    sent = send()
    ledger.commit(charge.release_id)
    log.append("charge", {**paid, "state": "committed"})
    return sent


def require_charges(ledger: Ledger, log: EventLog) -> None:
    """Refuse a ledger that is not the one to which the releases of a log were charged.

    Raises:
        LedgerError: It lacks a charge of the log: what was released and what is still to come would stand in two.
    """
    held = {spent.charge.release_id for spent in ledger.charges()}
    for event in log.events:
        if event.kind == "charge" and event.fields["release_id"] not in held:
            raise LedgerError(
                ledger.path,
                f"lacks the charge {event.fields['release_id']!r} that the log has: it is another ledger than the one "
                "that paid for it, or was put back from before. Put that one there and go on, or start a new run",
            )


def foresee_charge(ledger: Ledger, log: EventLog, account: Account, charge: Charge, *, record: bool) -> None:
    """Check that charges which are still to come fit the budget; nothing is reserved.

    Args:
        ledger: The budget.
        log: The run's log.
        account: The data that would be released about.
        charge: What all of it would cost.
        record: Whether ledger and log keep a refusal.

    Raises:
        BudgetExceededError: They would exceed the budget.
    """
    try:
        ledger.foresee(account, charge, record=record)
    except BudgetExceededError as error:
        if record:
            _record_refusal(log, account, charge, error, {})
        raise


def _record_refusal(
    log: EventLog, account: Account, charge: Charge, error: BudgetExceededError, where: Mapping[str, JSON]
) -> None:
    cost: dict[str, JSON] = {"hospital": account.hospital, "epsilon": finite(error.epsilon), "budget": error.budget}
    log.append("refused", {"what": charge.release_id, "reason": str(error), **where, **cost})
