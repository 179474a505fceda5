"""The form of report.json, version 1: what its readers may rely on."""

from audit.privacy_fields import MECHANISM
from audit.rules import (
    DIGEST,
    KEY,
    NAME,
    PROSE,
    TIME,
    Choice,
    Flag,
    Integer,
    ListOf,
    MapOf,
    Nullable,
    Real,
    Record,
    Rule,
    Scalar,
)

REPORT_FORMAT = "securefed-report/1"

_COUNT = Integer()
_EPSILON = Nullable(Real(0))
_MAYBE_NAME = Nullable(NAME)
_MAYBE_DIGEST = Nullable(DIGEST)
_BYTES = Record({"up": _COUNT, "down": _COUNT})
_METRICS = MapOf(MapOf(Nullable(Real())))

_VERDICT = Record({"subject": NAME, "verdict": Choice(("PASS", "FAIL", "NOT CLAIMED")), "sentence": PROSE})
_CHECK = Record({"name": NAME, "outcome": Choice(("PASS", "FAIL", "ABSENT")), "detail": PROSE, "event": Integer(-1)})

_IDENTITY = Record(
    {
        "run_id": NAME,
        "operation": NAME,
        "method": _MAYBE_NAME,
        "started": TIME,
        "ended": Nullable(TIME),
        "seeded": Flag(),
        "commit": _MAYBE_NAME,
        "modified": Nullable(Flag()),
        "software": MapOf(NAME),
        "config_digest": _MAYBE_DIGEST,
        "model_digest": _MAYBE_DIGEST,
        "rounds": _COUNT,
        "chosen_round": Nullable(_COUNT),
        "events": _COUNT,
        "root": DIGEST,
        "is_verified": Flag(),
        "is_complete": Flag(),
        "is_pinned": Flag(),
        "first_bad_event": Integer(-1),
        "checks": ListOf(_CHECK),
        "server_key": Nullable(KEY),
        "hospital_keys": MapOf(KEY),
    }
)
_DATA = Record(
    {
        "name": _MAYBE_NAME,
        "fingerprint": _MAYBE_DIGEST,
        "keyed": Flag(),
        "hospitals": ListOf(NAME),
        "held_out": _MAYBE_NAME,
        "classes": ListOf(NAME),
        "warnings": ListOf(PROSE),
        "encoder": _MAYBE_NAME,
        "encoder_digest": _MAYBE_NAME,
        "embed_dim": Nullable(_COUNT),
    }
)
_PURPOSE = Record({"fields": ListOf(Record({"name": NAME, "law": NAME, "value": PROSE})), "open_items": ListOf(PROSE)})
_CLAIM = Record(
    {
        "mode": NAME,
        "claim": Choice(("CLAIMED", "NOT CLAIMED")),
        "reason": PROSE,
        "statement": PROSE,
        "unit": _MAYBE_NAME,
        "adjacency": _MAYBE_NAME,
        "delta": Nullable(Real(0, 1)),
        "target_epsilon": _EPSILON,
        "epsilon": _EPSILON,
        "lower": _EPSILON,
        "accountant": _MAYBE_NAME,
        "cross_checks": MapOf(Real(0)),
        "contradictions": ListOf(PROSE),
        "by_delta": ListOf(Record({"delta": Real(0, 1), "epsilon": _EPSILON})),
        "attacker": ListOf(Record({"false_positives": Real(0, 1), "true_positives": Real(0, 1)})),
        "events": ListOf(Record({"hospital": _MAYBE_NAME, "mechanism": MECHANISM, "repetitions": Integer(1)})),
        "unprotected": ListOf(PROSE),
    }
)
_STANDING = Record(
    {
        "unit": NAME,
        "budget": Real(0),
        "budget_delta": Real(0, 1),
        "budget_adjacency": PROSE,
        "spent": _EPSILON,
        "remaining": Real(0),
        "charges": _COUNT,
        "runs": _COUNT,
    }
)
_HOSPITAL = Record(
    {
        "name": NAME,
        "sentence": PROSE,
        "rounds": _COUNT,
        "sent": _COUNT,
        "received": _COUNT,
        "epsilon": _EPSILON,
        "epsilon_after": _EPSILON,
        "budget": Nullable(Real(0)),
        "charges": _COUNT,
        "refused": _COUNT,
        "renewals": _COUNT,
    },
    {"budget_delta": Real(0, 1), "budget_adjacency": PROSE, "in_ledger": _STANDING},
)
_ROUND = Record(
    {
        "round": Integer(1),
        "cohort": _COUNT,
        "survivors": _COUNT,
        "dropouts": MapOf(NAME),
        "noise": PROSE,
        "epsilon": _EPSILON,
        "aggregate_digest": DIGEST,
        "superseded": Flag(),
        "trains": Flag(),
        "bytes": _BYTES,
    }
)
_ABORTED = Record(
    {
        "round": Integer(1),
        "stage": NAME,
        "cause": PROSE,
        "dropouts": MapOf(NAME),
        "bytes": _BYTES,
        "event": _COUNT,
    }
)
_COMMUNICATION = Record(
    {
        "total": _BYTES,
        "all_sent": _BYTES,
        "client_rounds": _COUNT,
        "per_client_round": Record({"up": Real(0), "down": Real(0)}),
        "by_client": MapOf(_BYTES),
        "by_stage": MapOf(_BYTES),
        "by_kind": MapOf(_BYTES),
        "by_round": ListOf(Record({"round": Integer(1), "kinds": MapOf(_COUNT)})),
        "comparison": ListOf(Record({"name": NAME, "bytes": Real(0), "ratio": Nullable(Real(0))})),
    },
    {"cut_short": Integer(1)},
)
_NOISE = Record({"mechanism": PROSE, "noise": Real(0), "signal": Real(0)})
_TRUST = Record({"adversary": NAME, "sees": PROSE, "protection": PROSE, "epsilon": _EPSILON})
_EMPIRICAL = Record(
    {
        "name": NAME,
        "setting": NAME,
        "outcome": Choice(("PASS", "FAIL", "MEASURED")),
        "reason": PROSE,
        "values": MapOf(Scalar()),
    }
)
_UTILITY = Record(
    {
        "source": NAME,
        "round": Nullable(Integer(-1)),
        "sites": MapOf(_METRICS),
        "held_out": MapOf(_METRICS),
        "mean": _METRICS,
        "worst": MapOf(Record({"site": NAME, "value": Real()})),
    },
    {"images": MapOf(_COUNT)},
)
_ANSWER = Record({"question": PROSE, "answer": PROSE, "state": Choice(("answered", "open"))})
_PITFALL = Record({"name": NAME, "outcome": Choice(("PASS", "FAIL", "NOT APPLICABLE", "NOT SHOWN")), "detail": PROSE})

REPORT: Rule = Record(
    {
        "format": Choice((REPORT_FORMAT,)),
        "verdicts": ListOf(_VERDICT, filled=True),
        "identity": _IDENTITY,
        "data": _DATA,
        "purpose": _PURPOSE,
        "claim": _CLAIM,
        "protocol": MapOf(Scalar()),
        "noise": ListOf(_NOISE),
        "trust": ListOf(_TRUST),
        "hospitals": ListOf(_HOSPITAL),
        "rounds": ListOf(_ROUND),
        "aborted": ListOf(_ABORTED),
        "communication": _COMMUNICATION,
        "empirical": ListOf(_EMPIRICAL),
        "utility": _UTILITY,
        "questions": ListOf(_ANSWER),
        "pitfalls": ListOf(_PITFALL),
        "limitations": ListOf(PROSE),
        "sign_off": ListOf(NAME),
    },
    {"ledger": Record({"entries": _COUNT, "time": TIME, "digest": DIGEST})},
)
"""The whole report."""
