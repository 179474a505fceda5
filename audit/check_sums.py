"""The sums of a log against its protocol: none was opened that a threshold of hospitals could not have opened."""

from audit.errors import EvidenceError
from audit.history import RunHistory


def check_sums(history: RunHistory) -> str | None:
    """Check that in every round at least a threshold of the hospitals in the sum was there until it was opened.

    Returns:
        What was found in words, None where nothing was summed under masks.

    Raises:
        EvidenceError: A sum was opened by fewer, which the protocol makes impossible.
    """
    threshold = history.threshold
    if threshold is None or not history.rounds:
        return None
    for record in history.rounds:
        if record.opened_by < threshold:
            few = f"{record.opened_by} hospitals were left to open the sum of round {record.number}"
            raise EvidenceError(record.seq, f"{few}, below the threshold of {threshold}")
    fewest = min(record.opened_by for record in history.rounds)
    return f"each of {len(history.rounds)} sums was opened by {fewest} hospitals or more, the threshold is {threshold}"
