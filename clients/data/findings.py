"""What is remarkable about a data set without making it useless."""

from collections import Counter
from collections.abc import Iterable, Mapping
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
        detail: The commonest reason and one of its paths, or "". A path may name a patient and a reason may quote a
            file, so this is for the hospital's own screen: it stands in no message, and goes into no record or log.
    """

    kind: str
    count: int
    examples: tuple[str, ...]
    message: str
    severity: Severity = "warning"
    detail: str = ""

    @property
    def in_full(self) -> str:
        """The message and the detail."""
        return f"{self.message} ({self.detail})" if self.detail else self.message

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "count": self.count,
            "examples": list(self.examples),
            "message": self.message,
            "detail": self.detail,
        }


def finding(
    kind: str, items: Iterable[str], message: str, severity: Severity = "warning", detail: str = ""
) -> DataWarning:
    """Make a finding of all the items it concerns; the examples are the first of them in sorted order."""
    ordered = sorted(items)
    return DataWarning(kind, len(ordered), tuple(ordered[:MAX_EXAMPLES]), message, severity, detail)


def commonest(reasons: Mapping[str, str]) -> str:
    """Return the commonest of at least one reason by path, with the first path that has it."""
    counts = Counter(reasons.values())
    reason = min(counts, key=lambda text: (-counts[text], text))
    path = min(path for path, why in reasons.items() if why == reason)
    return f"{counts[reason]} of them: {reason}; for example {path}"
