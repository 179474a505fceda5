"""Vectors that left for sums which were never to be opened, counted from a log."""

import pytest

from audit import EventLog
from audit.accounting import mechanism_fields
from audit.accounting.mechanisms import Skellam
from audit.attempts import unopened_in
from tests.audit.runs import SITES, D, Ticks

NOISE = {"mechanism": mechanism_fields(Skellam(90.0, 50.0, 3000.0, 3)), "repetitions": 1}
STARTED = ("round_started", {"round": 1, "cohort": list(SITES), "model_digest": D})
CHARGED = ("privacy_event", {**NOISE, "round": 1})
OF_ONE = ("privacy_event", {**NOISE, "round": 1, "hospital": "north"})
CHARGE = {"hospital": "north", "fingerprint": D, "unit": "image", "release_id": "r/1/m/north", "state": "reserved"}
PAID = ("charge", {**NOISE, **CHARGE})
RESUMED = ("resumed", {"round": 0})


def aborted(stage):
    return ("round_aborted", {"round": 1, "stage": stage, "cause": "few are left"})


def count(path, events, mode="distributed"):
    with EventLog.create(path / f"{mode}.jsonl", {"run_id": "r", "operation": "simulation"}, Ticks()) as log:
        log.append("privacy_claim", {"mode": mode, "claim": "CLAIMED", "reason": "x"})
        for kind, fields in events:
            log.append(kind, fields)
        return unopened_in(log.events)


@pytest.mark.parametrize(
    ("events", "unopened"),
    [
        ([STARTED, CHARGED], 0),
        ([STARTED, CHARGED, aborted("Unmasking"), STARTED, CHARGED], 0),
        ([STARTED], 1),
        ([STARTED, RESUMED, STARTED, RESUMED, STARTED, CHARGED], 2),
        ([STARTED, RESUMED, STARTED, CHARGED, CHARGED], 1),
        ([STARTED, aborted("MaskedInputCollection")], 1),
        ([STARTED, aborted("ConsistencyCheck")], 1),
        ([STARTED, aborted("AdvertiseKeys"), STARTED, aborted("RevealNonces"), STARTED, aborted("ShareKeys")], 0),
        ([STARTED, RESUMED, STARTED, aborted("ShareKeys")], 1),
        ([STARTED, OF_ONE], 1),
        ([STARTED, PAID, aborted("ShareKeys")], 1),
        ([STARTED, PAID, CHARGED, aborted("ShareKeys")], 0),
        ([STARTED, PAID, RESUMED, STARTED, aborted("ShareKeys")], 1),
    ],
)
def test_an_attempt_counts_unless_it_was_charged_or_ended_before_any_vector_left(tmp_path, events, unopened):
    assert count(tmp_path, events) == unopened
    assert count(tmp_path, events, "hospital") == unopened
    assert count(tmp_path, events, "local") == 0
