"""The sums of a log against its protocol: none was opened that a threshold of hospitals could not have opened."""

from typing import Any, Final

from audit.errors import EvidenceError
from audit.history import RunHistory

_LEAST: Final = 3
"""No sum may be opened by fewer (protocols/SPEC.md)."""

COMPLETE_UP_TO: Final = 100
"""Hospitals of a round among all of whom secrets are shared (protocols/SPEC.md); of more each has its neighbours."""


def check_sums(history: RunHistory) -> str | None:
    """Check that the threshold protects, and that as many hospitals of each sum were there until it was opened.

    Returns:
        What was found in words, None where nothing was summed under masks.

    Raises:
        EvidenceError: No threshold is stated, or one that the protocol does not have; or a sum was opened by fewer,
            which the protocol makes impossible.
    """
    threshold = history.threshold
    if threshold is None or not history.rounds:
        return None
    _check_threshold(history)
    for record in history.rounds:
        if record.opened_by < threshold:
            few = f"{record.opened_by} hospitals were left to open the sum of round {record.number}"
            raise EvidenceError(record.seq, f"{few}, below the threshold of {threshold}")
    fewest = min(record.opened_by for record in history.rounds)
    return f"each of {len(history.rounds)} sums was opened by {fewest} hospitals or more, the threshold is {threshold}"


def _check_threshold(history: RunHistory) -> None:
    """Against an active server, where secrets are shared among all n hospitals: 2 t > n + C (protocols/SPEC.md)."""
    described = history.last("protocol_described")
    assert described is not None  # noqa: S101 (it has a threshold)
    fields: Any = described.fields
    for name in ("threshold", "corrupt"):
        if name not in fields:
            raise EvidenceError(described.seq, f"sums under masks, and no {name} is stated")
    threshold, clients, corrupt = fields["threshold"], fields["clients"], fields["corrupt"]
    complete = clients <= COMPLETE_UP_TO
    holders = clients if complete and fields.get("threat_model") == "active" else 0
    if threshold < _LEAST or (complete and threshold > clients) or (holders and 2 * threshold <= holders + corrupt):
        stated = f"a threshold of {threshold} of {clients} hospitals, {corrupt} of whom may collude"
        raise EvidenceError(described.seq, f"{stated}: the protocol opens no sum with it")
