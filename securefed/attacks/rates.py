"""Rates of a membership attack in the words of a finding."""

from audit.empirical import Membership
from securefed.attacks.findings import Value


def rates_of(found: Membership) -> dict[str, Value]:
    """Return area, rates at 0.1, 1 and 10 % wrong accusations, and the curve."""
    return {
        "auroc": found.auroc,
        "true_positives_at_0.1_percent": found.found[0.001],
        "true_positives_at_1_percent": found.found[0.01],
        "true_positives_at_10_percent": found.found[0.1],
        "false_positives": list(found.found),
        "true_positives": list(found.found.values()),
    }
