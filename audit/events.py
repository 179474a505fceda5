"""The kinds of events that a log may hold, and the fields of each: a closed list (audit/SPEC.md prints it).

Nothing patient-level has a place here: fields hold names of hospitals, public settings, digests, byte counts, sums over
the cohort, and figures that a hospital has declared public.
"""

from collections.abc import Mapping
from types import MappingProxyType

from audit.canonical import JSON
from audit.errors import EventRefusedError
from audit.privacy_fields import ADJACENCY, DELTA, MECHANISM, UNIT, VIEW
from audit.rules import (
    DIGEST,
    KEY,
    NAME,
    PROSE,
    SIGNATURE,
    TIME,
    Choice,
    FieldError,
    Flag,
    Integer,
    ListOf,
    MapOf,
    Nullable,
    Real,
    Record,
    Scalar,
)

RESERVED = ("seq", "kind", "prev", "time")
"""Keys of every event that the log itself fills."""

FORMAT = "securefed-audit-log/1"
"""Format and version, in the first event of every log."""

_ROUND = Integer(1)
_NAMES = ListOf(NAME, unique=True)
_COUNT = Integer()
_SECONDS = MapOf(Real(0))

BYTES = MapOf(Record({}, {way: MapOf(MapOf(_COUNT)) for way in ("up", "down")}))
"""{client: {up or down: {stage: {kind: bytes}}}}: bytes of encoded frames; `up` is from the client to the server."""

KINDS: Mapping[str, Record] = MappingProxyType(
    {
        # who runs what
        "run_started": Record(
            {"format": Choice((FORMAT,)), "run_id": NAME, "operation": Choice(("simulation", "deployment"))},
            {"software": MapOf(NAME), "commit": NAME, "modified": Flag(), "command": PROSE, "seeded": Flag()},
        ),
        "config": Record({"digest": DIGEST, "values": MapOf(MapOf(Scalar()))}, {"profile": NAME}),
        "purpose": Record({"values": MapOf(PROSE)}),
        "study": Record({"name": NAME, "digest": DIGEST, "approvals": MapOf(SIGNATURE)}),
        "roster": Record({"digest": DIGEST, "server": KEY, "hospitals": MapOf(KEY)}),
        "data_described": Record(
            {"name": NAME, "fingerprint": DIGEST, "sites": _NAMES, "classes": ListOf(NAME, unique=True)},
            {
                "keyed": Flag(),
                "patient_grouping": DIGEST,
                "warnings": ListOf(PROSE),
                "held_out_site": NAME,
            },
        ),
        "data_of_hospital": Record({"hospital": NAME, "digest": DIGEST}, {"earlier": DIGEST}),
        "encoder_described": Record(
            {"name": NAME, "digest": NAME, "embed_dim": Integer(1)},
            {"features": DIGEST, "images_encoded": _COUNT, "cache_hits": _COUNT, "seconds": Real(0)},
        ),
        "protocol_described": Record(
            {"secure_aggregation": Flag(), "clients": Integer(1), "dimension": Integer(1)},
            {
                "threat_model": NAME,
                "threshold": Integer(1),
                "corrupt": _COUNT,
                "ring_bits": Integer(1, 64),
                "value_bits": Integer(1, 64),
                "version": NAME,
                "values": MapOf(Scalar()),
            },
        ),
        # what happens
        "round_started": Record({"round": _ROUND, "cohort": _NAMES, "model_digest": DIGEST}),
        "opening": Record({"round": _ROUND, "survivors": _NAMES}),
        "round_completed": Record(
            {
                "round": _ROUND,
                "cohort": _NAMES,
                "survivors": _NAMES,
                "dropouts": MapOf(NAME),
                "aggregate_digest": DIGEST,
                "bytes": BYTES,
            },
            {"model_digest": DIGEST, "clamped": _COUNT, "seconds": _SECONDS, "session": NAME, "rejected": MapOf(NAME)},
        ),
        "round_aborted": Record(
            {"round": _ROUND, "stage": NAME, "cause": PROSE}, {"dropouts": MapOf(NAME), "bytes": BYTES}
        ),
        "evaluation": Record(
            {
                "round": _COUNT,
                "split": NAME,
                "leaves_hospital": Flag(),
                "values": MapOf(MapOf(MapOf(Nullable(Real())))),
            }
        ),
        "checkpoint": Record({"round": _COUNT, "model_digest": DIGEST}),
        "interrupted": Record({"round": _COUNT, "reason": PROSE}),
        "resumed": Record({"round": _COUNT}, {"model_digest": DIGEST}),
        "tail_cut": Record({"bytes": Integer(1), "digest": DIGEST}),
        "run_completed": Record(
            {"rounds": _COUNT, "chosen_round": _COUNT, "files": MapOf(DIGEST)},
            {"model_digest": DIGEST, "seconds": _SECONDS},
        ),
        # privacy and budget
        "privacy_claim": Record(
            {
                "mode": Choice(("off", "local", "distributed", "hospital")),
                "claim": Choice(("CLAIMED", "NOT CLAIMED")),
                "reason": PROSE,
            },
            {
                "unit": UNIT,
                "adjacency": ADJACENCY,
                "delta": DELTA,
                "target_epsilon": Real(0, above=True),
                "unprotected": ListOf(PROSE),
                "values": MapOf(Scalar()),
            },
        ),
        "release": Record({"release_id": NAME, "what": NAME}, {"round": _ROUND, "digest": DIGEST}),
        "privacy_event": Record(
            {"mechanism": MECHANISM, "repetitions": Integer(1)},
            {"round": _ROUND, "hospital": NAME, "release_id": NAME},
        ),
        "epsilon": Record(
            {"view": VIEW, "delta": DELTA, "upper": Nullable(Real(0)), "accountant": NAME},
            {
                "round": _ROUND,
                "hospital": NAME,
                "colluders": _COUNT,
                "lower": Nullable(Real(0)),
                "cross_checks": MapOf(Real(0)),
            },
        ),
        "charge": Record(
            {
                "hospital": NAME,
                "fingerprint": DIGEST,
                "unit": UNIT,
                "release_id": NAME,
                "state": Choice(("reserved", "released", "committed")),
                "mechanism": MECHANISM,
                "repetitions": Integer(1),
            },
            {"epsilon_after": Nullable(Real(0)), "budget": Real(0), "delta": DELTA, "adjacency": ADJACENCY},
        ),
        "budget_renewed": Record(
            {
                "hospital": NAME,
                "fingerprint": DIGEST,
                "unit": UNIT,
                "policy_digest": DIGEST,
                "signer": KEY,
                "signature": SIGNATURE,
            }
        ),
        "refused": Record(
            {"what": NAME, "reason": PROSE},
            {"round": _ROUND, "hospital": NAME, "epsilon": Nullable(Real(0)), "budget": Real(0)},
        ),
        # what was found when the run was attacked
        "attack": Record(
            {"name": NAME, "setting": NAME, "outcome": Choice(("PASS", "FAIL", "MEASURED")), "values": MapOf(Scalar())},
            {"reason": PROSE, "source_digest": DIGEST},
        ),
    }
)
"""Kind to fields."""

_ENVELOPE = Record({"seq": Integer(), "kind": NAME, "prev": DIGEST, "time": TIME})


def check_fields(kind: str, fields: Mapping[str, JSON]) -> None:
    """Refuse an event of an unknown kind or with fields that are not as declared.

    Raises:
        EventRefusedError: with the kind, the place and the reason.
    """
    record = KINDS.get(kind)
    if record is None:
        raise EventRefusedError(kind, "", f"is of no known kind; known are {', '.join(KINDS)}")
    try:
        record.check(fields, "")
    except FieldError as error:
        raise EventRefusedError(kind, error.where, str(error).removeprefix(f"{error.where}: ")) from error


def check_envelope(event: Mapping[str, JSON]) -> None:
    """Refuse an event whose seq, kind, prev or time are missing or malformed.

    Raises:
        EventRefusedError: with the place and the reason.
    """
    try:
        _ENVELOPE.check({key: event[key] for key in RESERVED if key in event}, "")
    except FieldError as error:
        raise EventRefusedError(str(event.get("kind")), error.where, str(error)) from error
