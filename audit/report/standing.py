"""What a ledger says of the budgets that a run was charged to: what is spent and left now, after all runs."""

from pathlib import Path
from typing import Any

from audit.bounds import finite
from audit.history import RunHistory
from audit.ledger import Ledger, run_of_log
from audit.verify import Outcome, Verification


def ledger_section(
    ledger: Path, history: RunHistory, verification: Verification
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return which state of a ledger was read, and where the budget of each hospital stands in it.

    Args:
        ledger: The ledger that verification has compared with the log.
        history: The run.
        verification: What that found; of a ledger that does not tell the same, or has no charge of the run, nothing is
            taken over.

    Returns:
        {entries, time of the last one, digest}, and {hospital: standing of the account that the run charged last}, both
        as audit/report/schema.json has them; empty where nothing is taken over.

    Raises:
        LedgerError, EvidenceError: It cannot be read any more, or was changed.
        AccountingUnavailableError: No accountant for its charges is installed.
    """
    if not any(check.name == "ledger" and check.outcome is Outcome.PASS for check in verification.checks):
        return {}, {}
    with Ledger.reading(ledger) as opened:
        accounts = {spent.account.hospital: spent.account for spent in opened.charges(run_of_log(history.events))}
        standings = {}
        for hospital, account in accounts.items():
            budget, status = opened.budget_of(account), opened.status(account)
            standings[hospital] = {
                "unit": account.unit,
                "budget": budget.epsilon,
                "budget_delta": budget.delta,
                "budget_adjacency": str(budget.adjacency),
                "spent": finite(status.spent),
                "remaining": status.remaining,
                "charges": len(status.charges),
                "runs": len({spent.charge.run_id for spent in status.charges}),
            }
        entries = opened.entries()
        return {"entries": len(entries), "time": entries[-1]["time"], "digest": opened.digest}, standings
