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


def history_of(tmp_path, releases, model, *, again):
    """A round that was interrupted after its releases were recorded, and done again from `model`."""
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "run", "operation": "deployment"}, Ticks()) as log:
        log.append("privacy_claim", {"mode": "local", "claim": "CLAIMED", "reason": "noise"})
        log.append("round_started", {"round": 1, "cohort": SITES, "model_digest": D})
        events = [{"mechanism": STEP, "repetitions": 1, "round": 1, **release} for release in releases]
        for event in events:
            log.append("privacy_event", event)
        log.append("resumed", {"round": 0})
        log.append("round_started", {"round": 1, "cohort": SITES, "model_digest": model})
        for event in events if again else ():
            log.append("privacy_event", event)
        done = {"round": 1, "cohort": SITES, "survivors": SITES, "dropouts": {}, "aggregate_digest": D, "bytes": {}}
        log.append("round_completed", done)
        return read_history(log.events)


OF_HOSPITALS = [{"hospital": site, "release_id": f"run/1/{D[:16]}/{site}"} for site in SITES]
OF_A_SUM = [{"release_id": "sum/1/0"}]


def test_a_hospital_sends_the_same_bits_again_for_one_event(tmp_path):
    assert len(history_of(tmp_path, OF_HOSPITALS, D, again=False).rounds) == 1


@pytest.mark.parametrize(
    ("releases", "model"), [(OF_HOSPITALS, OTHER), (OF_A_SUM, D)], ids=["another model", "a sum with fresh noise"]
)
def test_what_is_released_anew_needs_an_event_of_its_own(tmp_path, releases, model):
    (tmp_path / "with").mkdir()
    assert len(history_of(tmp_path / "with", releases, model, again=True).rounds) == 1
    with pytest.raises(EvidenceError, match="no privacy event was recorded before this release"):
        history_of(tmp_path, releases, model, again=False)


def round_of(tmp_path, events, **changes):
    """One round of a claimed run with these privacy events; `changes` replace what its end says."""
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "run", "operation": "simulation"}, Ticks()) as log:
        log.append("privacy_claim", {"mode": "local", "claim": "CLAIMED", "reason": "noise"})
        log.append("round_started", {"round": 1, "cohort": SITES, "model_digest": D})
        for event in events:
            log.append("privacy_event", {"mechanism": STEP, "repetitions": 1, "round": 1, **event})
        done = {"round": 1, "cohort": SITES, "survivors": SITES, "dropouts": {}, "aggregate_digest": D, "bytes": {}}
        log.append("round_completed", {**done, **changes})
        return read_history(log.events)


def test_every_hospital_in_a_sum_is_accounted_for(tmp_path):
    with pytest.raises(EvidenceError, match="nothing was accounted for south before this release"):
        round_of(tmp_path, OF_HOSPITALS[:1])
    (tmp_path / "lost").mkdir()
    lost = {"survivors": ["north"], "dropouts": {"south": "ShareKeys"}}
    assert len(round_of(tmp_path / "lost", OF_HOSPITALS[:1], **lost).rounds) == 1
    (tmp_path / "all").mkdir()
    assert len(round_of(tmp_path / "all", OF_A_SUM).rounds) == 1


def test_more_shares_of_noise_than_hospitals_in_the_sum_are_found(tmp_path):
    shares = {"type": "skellam", "l1": 9.0, "l2": 3.0, "sampling_rate": 1, "share_variance": 4.0}
    (tmp_path / "two").mkdir()
    assert len(round_of(tmp_path / "two", [{"mechanism": {**shares, "shares": 2}}]).rounds) == 1
    with pytest.raises(EvidenceError, match="3 shares of noise were accounted in a sum over 2 hospitals"):
        round_of(tmp_path, [{"mechanism": {**shares, "shares": 3}}])


def test_a_sum_over_nobody_is_found(tmp_path):
    with pytest.raises(EvidenceError, match="a sum over no hospital"):
        round_of(tmp_path, OF_A_SUM, survivors=[], dropouts={"north": "ShareKeys", "south": "ShareKeys"})
