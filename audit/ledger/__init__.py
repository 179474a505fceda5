"""The privacy budget across runs: accounts, charges, policies and renewals in one file that several processes share."""

from audit.ledger.accounts import Account, Budget, BudgetLine, Charge
from audit.ledger.check import check_ledger, count_agreeing
from audit.ledger.errors import BudgetExceededError, LedgerError, NoLedgerError
from audit.ledger.ledger import AccountStatus, FaultPoint, Ledger
from audit.ledger.names import last_round_of, release_name, run_in_ledgers, run_of_log
from audit.ledger.policy import Policy, Renewal, SignedRenewal
from audit.ledger.release import charge_release, charged_release, foresee_charge, require_charges
from audit.ledger.view import budget_lines, history, policy_toml

__all__ = [
    "Account",
    "AccountStatus",
    "Budget",
    "BudgetExceededError",
    "BudgetLine",
    "Charge",
    "FaultPoint",
    "Ledger",
    "LedgerError",
    "NoLedgerError",
    "Policy",
    "Renewal",
    "SignedRenewal",
    "budget_lines",
    "charge_release",
    "charged_release",
    "check_ledger",
    "count_agreeing",
    "foresee_charge",
    "history",
    "last_round_of",
    "policy_toml",
    "release_name",
    "require_charges",
    "run_in_ledgers",
    "run_of_log",
]
