"""Releases of a round that is done again: what must stand in the log a second time, and what must not."""

import pytest

from audit import EventLog
from audit.accounting import SampledGaussian, mechanism_fields
from audit.errors import EvidenceError
from audit.history import read_history
from tests.audit.runs import D, Ticks

SITES = ["north", "south"]
OTHER = "cd" * 32
STEP = mechanism_fields(SampledGaussian(1.0, 0.5))


def history_of(tmp_path, release, model, *, again):
    """A round that was interrupted after its release was recorded, and done again from `model`."""
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "run", "operation": "deployment"}, Ticks()) as log:
        log.append("privacy_claim", {"mode": "local", "claim": "CLAIMED", "reason": "noise"})
        log.append("round_started", {"round": 1, "cohort": SITES, "model_digest": D})
        event = {"mechanism": STEP, "repetitions": 1, "round": 1, **release}
        log.append("privacy_event", event)
        log.append("resumed", {"round": 0})
        log.append("round_started", {"round": 1, "cohort": SITES, "model_digest": model})
        if again:
            log.append("privacy_event", event)
        done = {"round": 1, "cohort": SITES, "survivors": SITES, "dropouts": {}, "aggregate_digest": D, "bytes": {}}
        log.append("round_completed", done)
        return read_history(log.events)


OF_A_HOSPITAL = {"hospital": "north", "release_id": f"run/1/{D[:16]}/north"}
OF_A_SUM = {"release_id": "sum/1/0"}


def test_a_hospital_sends_the_same_bits_again_for_one_event(tmp_path):
    assert len(history_of(tmp_path, OF_A_HOSPITAL, D, again=False).rounds) == 1


@pytest.mark.parametrize(
    ("release", "model"), [(OF_A_HOSPITAL, OTHER), (OF_A_SUM, D)], ids=["another model", "a sum with fresh noise"]
)
def test_what_is_released_anew_needs_an_event_of_its_own(tmp_path, release, model):
    (tmp_path / "with").mkdir()
    assert len(history_of(tmp_path / "with", release, model, again=True).rounds) == 1
    with pytest.raises(EvidenceError, match="no privacy event was recorded before this release"):
        history_of(tmp_path, release, model, again=False)
