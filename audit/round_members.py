"""Who may be in a sum, and who may be lost at which stage of a round (protocols/SPEC.md)."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from audit.errors import EvidenceError
from audit.log import Event

_BEFORE_THE_SUM: Final = frozenset(
    {"AdvertiseKeys", "RevealNonces", "ShareKeys", "MaskedInputCollection", "PlainInputCollection"}
)
"""Who is lost at one of them has sent no vector."""

_AFTER_IT: Final = frozenset({"ConsistencyCheck", "Unmasking"})
"""Who is lost at one of them is in the sum, and does not live to see it opened."""

_ORDER: Final = (
    {"AdvertiseKeys"},
    {"RevealNonces"},
    {"ShareKeys"},
    {"MaskedInputCollection", "PlainInputCollection"},
    {"ConsistencyCheck"},
    {"Unmasking"},
)
"""The stages of a round in order; in clear vectors leave in place of those under masks."""


def losses_by_stage(events: Iterable[Event]) -> dict[str, int]:
    """Return {stage: how often a hospital was lost at it}, of the last attempt at each round that has an end."""
    last: dict[Any, Any] = {}
    for event in events:
        fields: Mapping[str, Any] = event.fields
        if "dropouts" in fields:
            last[fields["round"]] = fields["dropouts"]
    return dict(Counter(stage for lost in last.values() for stage in lost.values()))


def check_aborted(seq: int, fields: Mapping[str, Any]) -> None:
    """Check that an attempt at a round ended at a stage that there is, and that nothing of it is of a later one.

    Args:
        seq: The event.
        fields: Its fields: those of `round_aborted`.

    Raises:
        EvidenceError: Somebody was lost, or bytes were sent, after its end; names the event.
    """
    dropouts, stage = fields.get("dropouts", {}), fields["stage"]
    check_lost(seq, dropouts)
    ended = next((rank for rank, stages in enumerate(_ORDER) if stage in stages), None)
    if ended is None:
        raise EvidenceError(seq, f"an attempt at a round ended at {stage}, which is no stage of a round")
    later = {name for stages in _ORDER[ended + 1 :] for name in stages}
    ways = (way for client in fields.get("bytes", {}).values() for way in client.values())
    sent = {name for stages in ways for name in stages}
    if after := sorted(later & {*dropouts.values(), *sent}):
        raise EvidenceError(seq, f"an attempt at a round ended at {stage}, and lost or sent something at {after[0]}")


def check_lost(seq: int, dropouts: Mapping[str, str]) -> None:
    """Check that hospitals were lost at stages that there are; raises EvidenceError with the event."""
    for name, stage in dropouts.items():
        if stage not in _BEFORE_THE_SUM | _AFTER_IT:
            raise EvidenceError(seq, f"{name} was lost at {stage}, which is no stage of a round")


def check_opening(
    seq: int, fields: Mapping[str, Any], began_with: object, opened: frozenset[str] | None
) -> frozenset[str]:
    """Check that the one sum of an attempt at a round is opened over hospitals of its cohort, and return them.

    Args:
        seq: The event.
        fields: Its fields: those of `opening`.
        began_with: Names of the cohort that the round began with.
        opened: Over whom a sum of that attempt was opened already.

    Raises:
        EvidenceError: It is not; names the event.
    """
    survivors = frozenset(fields["survivors"])
    assert isinstance(began_with, list | tuple)  # noqa: S101 (a list of names, by its rule)
    if opened is not None:
        raise EvidenceError(seq, "a second sum of one attempt at a round was opened")
    if not survivors <= set(began_with):
        raise EvidenceError(seq, "a sum over hospitals outside of the cohort was opened")
    return survivors


def check_members(
    seq: int, fields: Mapping[str, Any], began_with: object, opened: frozenset[str] | None = None
) -> None:
    """Check that the survivors of a round and those that were lost make up its cohort, each at a stage that fits.

    Args:
        seq: The event.
        fields: Its fields: those of `round_completed`.
        began_with: Names of the cohort that the round began with.
        opened: Over whom the sum was opened, where the log says so before.

    Raises:
        EvidenceError: They do not; names the event.
    """
    dropouts: Mapping[str, str] = fields["dropouts"]
    cohort, survivors, lost = set(fields["cohort"]), set(fields["survivors"]), set(dropouts)
    assert isinstance(began_with, list | tuple)  # noqa: S101 (a list of names, by its rule)
    if cohort != set(began_with):
        raise EvidenceError(seq, "the cohort is not the one that the round began with")
    if not survivors <= cohort or not lost <= cohort or not cohort - survivors <= lost:
        raise EvidenceError(seq, "survivors and dropouts do not make up the cohort")
    if not set(fields["bytes"]) <= cohort:
        raise EvidenceError(seq, "bytes are counted for a client outside of the cohort")
    if opened is not None and survivors != opened:
        raise EvidenceError(seq, "the survivors are not the hospitals over whom the sum was opened")
    if not survivors:
        raise EvidenceError(seq, "a sum over no hospital was opened")
    check_lost(seq, dropouts)
    for name, stage in dropouts.items():
        if (name in survivors) != (stage in _AFTER_IT):
            where = "in the sum" if name in survivors else "not in the sum"
            raise EvidenceError(seq, f"{name} was lost at {stage} and is {where}, which cannot be")
