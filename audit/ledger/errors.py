"""What a caller of the ledger may have to react to.

AuditError
    FileError
        LedgerError          the database cannot be used, or an entry does not fit: fix it and try again
            NoLedgerError    there is none where one is named to be read: name another file (exit code 2)
    BudgetExceededError      the release would exceed the budget: it must not happen (exit code 4)
"""

from audit.bounds import at_most
from audit.errors import AuditError, FileError


class LedgerError(FileError):
    """The ledger cannot be used as asked."""


class NoBudgetError(LedgerError):
    """An account has no budget in this ledger."""


class NoLedgerError(LedgerError):
    """A file that is named as a ledger is none, or cannot be read; that says nothing about any record."""

    exit_code = 2


class BudgetExceededError(AuditError):
    """A release was refused, and the refusal recorded, before anything left.

    Attributes:
        hospital: Whose data it is about.
        unit: Unit of privacy of the budget.
        epsilon: What all releases would cost together with this one, or with all that are foreseen.
        budget: The limit.
    """

    exit_code = 4

    def __init__(
        self, hospital: str, unit: str, epsilon: float, budget: float, released: str = "", *, foreseen: bool = False
    ) -> None:
        what = "all that is left to release" if foreseen else "this release"
        about = f", which is at {released} level and so about every {unit} too," if released not in ("", unit) else ""
        super().__init__(
            f"the privacy budget of {hospital} ({unit} level) is {budget:g} and {what}{about} would bring it to "
            f"{at_most(epsilon)}; nothing was sent. Use more noise or fewer rounds, or have the budget renewed by its "
            "signer"
        )
        self.hospital = hospital
        self.unit = unit
        self.epsilon = epsilon
        self.budget = budget
