"""Releases of a round that is done again: what must stand in the log a second time, and what must not."""

import pytest

from audit import EventLog
from audit.accounting import SampledGaussian, mechanism_fields
from audit.errors import EvidenceError
from audit.history import read_history
from tests.audit.runs import D, Ticks

SITES = ["north", "south"]
FIRST = "ef" * 32
OTHER = "cd" * 32
STEP = mechanism_fields(SampledGaussian(1.0, 0.5))


def history_of(tmp_path, releases, model, *, again):
    """A second round that was left after its releases were recorded; both are done again, that one from `model`."""
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "run", "operation": "deployment"}, Ticks()) as log:
        log.append("privacy_claim", {"mode": "local", "claim": "CLAIMED", "reason": "noise"})
        noise = {"mechanism": STEP, "repetitions": 1}
        done = {"cohort": SITES, "survivors": SITES, "dropouts": {}, "aggregate_digest": D, "bytes": {}}
        events = [{**noise, "round": 2, **release} for release in releases]

        def up_to_the_releases(after, events):
            log.append("round_started", {"round": 1, "cohort": SITES, "model_digest": FIRST})
            log.append("privacy_event", {**noise, "round": 1})
            log.append("round_completed", {"round": 1, **done, "model_digest": after})
            log.append("round_started", {"round": 2, "cohort": SITES, "model_digest": after})
            for event in events:
                log.append("privacy_event", event)

        up_to_the_releases(D, events)
        log.append("resumed", {"round": 0})
        up_to_the_releases(model, events if again else ())
        log.append("round_completed", {"round": 2, **done})
        return read_history(log.events)


OF_HOSPITALS = [{"hospital": site, "release_id": f"run/2/{D[:16]}/{site}"} for site in SITES]
OF_A_SUM = [{"release_id": "sum/2/1"}]


def test_a_hospital_sends_the_same_bits_again_for_one_event(tmp_path):
    assert len(history_of(tmp_path, OF_HOSPITALS, D, again=False).rounds) == 3


@pytest.mark.parametrize(
    ("releases", "model"), [(OF_HOSPITALS, OTHER), (OF_A_SUM, D)], ids=["another model", "a sum with fresh noise"]
)
def test_what_is_released_anew_needs_an_event_of_its_own(tmp_path, releases, model):
    (tmp_path / "with").mkdir()
    assert len(history_of(tmp_path / "with", releases, model, again=True).rounds) == 3
    with pytest.raises(EvidenceError, match="no privacy event was recorded before this release"):
        history_of(tmp_path, releases, model, again=False)


OF_ROUND_1 = [{"hospital": site, "release_id": f"run/1/{D[:16]}/{site}"} for site in SITES]


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
        round_of(tmp_path, OF_ROUND_1[:1])
    (tmp_path / "lost").mkdir()
    lost = {"survivors": ["north"], "dropouts": {"south": "ShareKeys"}}
    assert len(round_of(tmp_path / "lost", OF_ROUND_1[:1], **lost).rounds) == 1
    (tmp_path / "all").mkdir()
    assert len(round_of(tmp_path / "all", [{}]).rounds) == 1


def test_more_shares_of_noise_than_hospitals_in_the_sum_are_found(tmp_path):
    shares = {"type": "skellam", "l1": 9.0, "l2": 3.0, "sampling_rate": 1, "share_variance": 4.0}
    (tmp_path / "two").mkdir()
    assert len(round_of(tmp_path / "two", [{"mechanism": {**shares, "shares": 2}}]).rounds) == 1
    with pytest.raises(EvidenceError, match="3 shares of noise were accounted in a sum over 2 hospitals"):
        round_of(tmp_path, [{"mechanism": {**shares, "shares": 3}}])


def test_a_sum_over_nobody_is_found(tmp_path):
    with pytest.raises(EvidenceError, match="a sum over no hospital"):
        round_of(tmp_path, [{}], survivors=[], dropouts={"north": "ShareKeys", "south": "ShareKeys"})


DONE = {"round": 1, "cohort": SITES, "survivors": SITES, "dropouts": {}, "aggregate_digest": D, "bytes": {}}
END = {"rounds": 1, "chosen_round": 1, "files": {}, "model_digest": OTHER}
BEGUN = ("round_started", {"round": 1, "cohort": SITES, "model_digest": D})
CONTRADICTED = {"round": 1, "stage": "ShareKeys", "cause": "few", "dropouts": {"north": "Unmasking"}}
MOVED = ("round_completed", {**DONE, "model_digest": OTHER})


def history_with(tmp_path, *events):
    """The history of a log of these events, (kind, fields) each."""
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "run", "operation": "simulation"}, Ticks()) as log:
        for kind, fields in events:
            log.append(kind, fields)
        return read_history(log.events)


def test_a_record_of_one_round_and_its_model_is_whole(tmp_path):
    kept = ("checkpoint", {"round": 1, "model_digest": OTHER})
    again = ("resumed", {"round": 1, "model_digest": OTHER})
    assert history_with(tmp_path, BEGUN, MOVED, kept, again, ("run_completed", END)).completed is not None


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ((BEGUN, MOVED, ("run_completed", {**END, "chosen_round": 0})), "kept model is not the one of round 0"),
        ((BEGUN, MOVED, ("run_completed", {**END, "model_digest": D})), "kept model is not the one of round 1"),
        ((BEGUN, MOVED, ("run_completed", {"rounds": 1, "chosen_round": 1, "files": {}})), "kept model is not"),
        ((("run_completed", {**END, "chosen_round": 0}),), "kept model is not the one of round 0"),
        ((BEGUN, MOVED, ("run_completed", {**END, "rounds": 0, "chosen_round": 0})), "0 rounds are counted"),
        ((BEGUN, ("round_aborted", CONTRADICTED)), "ended at ShareKeys, and lost or sent something at Unmasking"),
        ((BEGUN, MOVED, ("checkpoint", {"round": 1, "model_digest": D})), "checkpoint states another model"),
        ((BEGUN, MOVED, ("checkpoint", {"round": 9, "model_digest": OTHER})), "checkpoint states another model"),
        ((BEGUN, MOVED, ("resumed", {"round": 1, "model_digest": D})), "resumed states another model"),
        ((BEGUN, ("resumed", {"round": 0}), (BEGUN[0], {**BEGUN[1], "model_digest": OTHER})), "begins with another"),
    ],
)
def test_what_no_run_can_say_is_found(tmp_path, events, reason):
    with pytest.raises(EvidenceError, match=reason):
        history_with(tmp_path, *events)


def test_a_claim_stands_before_the_first_round(tmp_path):
    claim = ("privacy_claim", {"mode": "off", "claim": "NOT CLAIMED", "reason": "none"})
    with pytest.raises(EvidenceError, match="made after the first round had begun"):
        history_with(tmp_path, BEGUN, claim)


@pytest.mark.parametrize("number", [2, 77])
def test_a_release_is_accounted_in_its_round(tmp_path, number):
    with pytest.raises(EvidenceError, match=f"a release of round {number} was accounted outside of that round"):
        history_with(tmp_path, BEGUN, ("privacy_event", {"mechanism": STEP, "repetitions": 1, "round": number}))
