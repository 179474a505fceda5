"""What is remarkable about a data set without making it useless."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

MAX_EXAMPLES = 5
"""Examples that a finding carries; the count says how many there are."""

Severity = Literal["info", "warning"]


@dataclass(frozen=True)
class DataWarning:
    """One kind of finding about a data set.

    Attributes:
        kind: Stable name of the finding, for programs (docs/data.md lists them).
        count: How many items it concerns.
        examples: The first few of them, in sorted order.
        message: One line for people: what was found, what was done about it, what can be done.
        severity: `info` for a fact that is worth knowing, `warning` for one that somebody should look into.
    """

    kind: str
    count: int
    examples: tuple[str, ...]
    message: str
    severity: Severity = "warning"

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "count": self.count,
            "examples": list(self.examples),
            "message": self.message,
        }


def finding(kind: str, items: Iterable[str], message: str, severity: Severity = "warning") -> DataWarning:
    """Make a finding of all the items it concerns; the examples are the first of them in sorted order."""
    ordered = sorted(items)
    return DataWarning(kind, len(ordered), tuple(ordered[:MAX_EXAMPLES]), message, severity)
