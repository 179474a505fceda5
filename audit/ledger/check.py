"""Whether a ledger and the logs of its runs tell the same story."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audit.accounting import mechanism_of, rdp_epsilon, upper_epsilon
from audit.errors import EvidenceError
from audit.ledger.ledger import Ledger
from audit.log import Event


def check_ledger(path: Path, logs: Mapping[str, Sequence[Event]]) -> str:
    """Check a ledger against the verified events of runs.

    Args:
        path: The ledger.
        logs: {run_id: events}.

    Returns:
        What was found, in words.

    Raises:
        EvidenceError: An entry was changed, a line was overspent, a charge of a log is not in the ledger or differs, or
            the ledger holds a sent release of one of these runs that its log does not know.
        LedgerError: The ledger cannot be opened.
    """
    with Ledger(path) as ledger:
        charges = {spent.charge.release_id: spent for spent in ledger.charges()}
        for line, budget in ledger.budgets().items():
            composition = ledger.composition(line)
            if rdp_epsilon(composition, budget.delta, budget.adjacency) <= budget.epsilon:
                continue
            epsilon = upper_epsilon(composition, budget.delta, budget.adjacency)
            if epsilon > budget.epsilon:
                raise EvidenceError(-1, f"{line.hospital} spent {epsilon:.4g} of a budget of {budget.epsilon:g}")
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
                (fields["hospital"], fields["fingerprint"], fields["unit"])
                == (spent.account.hospital, spent.account.fingerprint, spent.account.unit)
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
        for release_id, spent in charges.items():
            if spent.charge.run_id == run_id and spent.state != "reserved" and release_id not in logged:
                raise EvidenceError(-1, f"the ledger holds the release {release_id!r}, the log of {run_id!r} does not")
        counted += len(logged)
    return f"{counted} charges of {len(logs)} logs agree with the ledger; no budget was exceeded"
