"""A ledger as people and machines read it: where every budget line stands, and everything that ever happened."""

from typing import Any

from audit.bounds import finite
from audit.ledger.accounts import ALL_DATA, Account, BudgetLine
from audit.ledger.ledger import Ledger
from audit.ledger.policy import POLICY_FORMAT

_NOBODY: tuple[Account | None, str | None] = (None, None)


def budget_lines(ledger: Ledger) -> list[dict[str, Any]]:
    """Return where each budget line stands.

    `spent` is an upper bound on epsilon of all that the line answers for, over all runs, None where it is infinite;
    `remaining` is what is left, of which further releases take less than their own epsilon: no more than is left of the
    lines of finer units, which its releases have to fit into as well.
    """
    found = []
    for line, budget in ledger.budgets().items():
        status = ledger.status(Account(line.hospital, line.fingerprint, line.unit))
        charges = status.charges
        found.append(
            {
                "hospital": line.hospital,
                "unit": line.unit,
                "data": None if line.fingerprint == ALL_DATA else line.fingerprint,
                "budget": budget.epsilon,
                "delta": budget.delta,
                "adjacency": str(budget.adjacency),
                "spent": finite(status.spent),
                "remaining": status.remaining,
                "charges": len(charges),
                "runs": len({charge.charge.run_id for charge in charges}),
                "unfinished": sum(charge.state != "committed" for charge in charges),
                "refused": sum(_refused_on(ledger, entry) == line for entry in ledger.entries("refused")),
                "renewals": budget.serial,
                "signer": budget.signer,
            }
        )
    return found


def history(ledger: Ledger) -> list[dict[str, Any]]:
    """Return every entry in order: seq, time, what happened, for whom, and the run and release where there is one."""
    found = []
    accounts: dict[str, tuple[Account | None, str | None]] = {
        charge.charge.release_id: (charge.account, charge.charge.run_id) for charge in ledger.charges()
    }
    for entry in ledger.entries():
        release = entry.get("release_id")
        account, run = accounts.get(release or "", _NOBODY)
        run = run or entry.get("run_id")
        stated = entry.get("renewal", entry)
        found.append(
            {
                "seq": entry["seq"],
                "time": entry["time"],
                "kind": entry["kind"],
                "hospital": stated.get("hospital") or (account.hospital if account else None),
                "unit": stated.get("unit") or (account.unit if account else None),
                "run_id": run,
                "release_id": release,
                "budget": stated.get("budget", stated.get("epsilon") if entry["kind"] != "refused" else None),
                "epsilon": entry["epsilon"] if entry["kind"] == "refused" else None,
                "reason": stated.get("reason"),
            }
        )
    return found


def policy_toml(ledger: Ledger) -> str:
    """Return the first budgets as the policy file that would make them; renewals are not part of a policy."""
    blocks = [f'format = "{POLICY_FORMAT}"']
    for entry in ledger.entries("policy"):
        lines = [f"{name} = {_toml(entry[name])}" for name in ("hospital", "unit", "epsilon", "delta")]
        lines += [f"{name} = {_toml(entry[name])}" for name in ("adjacency", "signer")]
        blocks.append("\n".join(["[[budget]]", *lines]))
    return "\n\n".join(blocks) + "\n"


def _refused_on(ledger: Ledger, entry: dict[str, Any]) -> BudgetLine:
    """The line that a refused release would have charged, as the lines are now."""
    own = BudgetLine(entry["hospital"], entry["unit"], entry["fingerprint"])
    return own if own in ledger.budgets() else BudgetLine(entry["hospital"], entry["unit"])


def _toml(value: object) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)
