"""The sums of a log against its protocol: none was opened that a threshold of hospitals could not have opened."""

from fractions import Fraction
from math import ceil
from typing import Any, Final

from audit.errors import EvidenceError
from audit.history import RoundRecord, RunHistory

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
    quorum = _check_threshold(history)
    described = history.last("protocol_described")
    corrupt: Any = 0 if described is None else described.fields["corrupt"]
    for record in history.rounds:
        if len(record.survivors) < corrupt + _LEAST:
            few = f"{len(record.survivors)} hospitals are in the sum of round {record.number}"
            raise EvidenceError(record.seq, f"{few}: beside {corrupt} that may collude there are fewer than {_LEAST}")
        if record.opened_by < threshold:
            few = f"{record.opened_by} hospitals were left to open the sum of round {record.number}"
            raise EvidenceError(record.seq, f"{few}, below the threshold of {threshold}")
        if _signers(record) < quorum:
            few = f"{_signers(record)} hospitals were left to sign who is in the sum of round {record.number}"
            raise EvidenceError(record.seq, f"{few}, below the quorum of {quorum}")
    fewest = min(record.opened_by for record in history.rounds)
    found = f"each of {len(history.rounds)} sums was opened by {fewest} hospitals or more, the threshold is {threshold}"
    if not quorum:
        return found
    return (
        f"{found} of each one's neighbours; {min(map(_signers, history.rounds))} or more signed, the quorum is {quorum}"
    )


def least_summed(history: RunHistory) -> int:
    """Return how many hospitals there are at least in any sum that the stated protocol opens."""
    return max(history.threshold or 1, _check_threshold(history))


def check_fewest(history: RunHistory, losses: float) -> None:
    """Check that shares of noise are stated for as few hospitals as a sum may be over, and that no sum was over fewer.

    Among all hospitals that is the threshold, or 3 beside those that may collude; on a ring all that `losses` leave.
    Of more than 100 hospitals secrets are shared among all only where no ring is safe: with one threshold alone.

    Args:
        history: The log, whose sums are under masks.
        losses: Share of the hospitals that may be lost in a round, as configured.

    Raises:
        EvidenceError: Another number is stated, or none; or a sum is over fewer.
    """
    quorum, described = _check_threshold(history), history.last("protocol_described")
    assert described is not None  # noqa: S101 (it has a threshold)
    fields: Any = described.fields
    stated, threshold, corrupt = fields.get("values", {}).get("min_survivors"), fields["threshold"], fields["corrupt"]
    possible, least = [left_on_ring(fields["clients"], losses)], quorum or max(_LEAST, corrupt + 1)
    if fields["clients"] <= COMPLETE_UP_TO:
        possible = [max(threshold, corrupt + _LEAST)]
    elif threshold == least:
        possible.append(max(threshold, corrupt + _LEAST))
    if stated not in possible or stated < quorum:
        fewest = max(quorum, possible[0])
        reason = f"states min_survivors {stated}, its sums are over {fewest} hospitals or more: the noise of each"
        raise EvidenceError(described.seq, f"protocol_described {reason} was to be sized for these")
    for record in history.rounds:
        if len(record.survivors) < stated:
            few = f"{len(record.survivors)} hospitals are in the sum of round {record.number}"
            raise EvidenceError(record.seq, f"{few}, below min_survivors of {stated}")


def left_on_ring(clients: int, losses: float) -> int:
    """Return how many hospitals are left where so large a share is lost, the float meaning the decimal as written."""
    return clients - ceil(Fraction(repr(float(losses))) * clients)


def _signers(record: RoundRecord) -> int:
    """Hospitals in the sum that were there to sign its survivor set."""
    gone = {name for name, stage in record.dropouts.items() if stage == "ConsistencyCheck"}
    return len(set(record.survivors) - gone)


def _check_threshold(history: RunHistory) -> int:
    """Check what is stated before any sum, and return the quorum of a ring against an active server, 0 elsewhere.

    Among all n hospitals: 2 t > n + C against an active server, else t > C. On a ring t is counted among neighbours,
    of whom there are fewer than n, and two thirds of n + C sign (protocols/SPEC.md, sections 4 and 13).
    """
    described = history.last("protocol_described")
    assert described is not None  # noqa: S101 (it has a threshold)
    fields: Any = described.fields
    for name in ("threshold", "corrupt"):
        if name not in fields:
            raise EvidenceError(described.seq, f"sums under masks, and no {name} is stated")
    threshold, clients, corrupt = fields["threshold"], fields["clients"], fields["corrupt"]
    complete, active = clients <= COMPLETE_UP_TO, fields.get("threat_model") == "active"
    quorum = -(-2 * (clients + corrupt) // 3) if active and not complete else 0
    most = clients if complete else clients - 1
    exposed = complete and (2 * threshold <= clients + corrupt if active else threshold <= corrupt)
    if not _LEAST <= threshold <= most or exposed or quorum > clients or corrupt > clients - _LEAST:
        stated = f"a threshold of {threshold} of {clients} hospitals, {corrupt} of whom may collude"
        raise EvidenceError(described.seq, f"{stated}: the protocol opens no sum with it")
    return quorum
