"""What summary.json states against each adversary is what the log states last, and what its events give."""

import json

import pytest

from audit import EventLog
from audit.accounting import Repeated, Skellam, mechanism_fields, upper_epsilon
from audit.check_epsilon import check_epsilon, seen_by
from audit.errors import EvidenceError
from audit.history import read_history
from audit.report.privacy import _costs
from tests.audit.runs import SITES, D, Ticks, configuration, round_fields
from tests.audit.tampering import edited, failure

NOISE = Skellam(90.0, 50.0, 3000.0, 3)
DELTA = 1e-5
CLAIM = {"mode": "distributed", "claim": "CLAIMED", "reason": "x", "unit": "image", "delta": DELTA}
CLAIM |= {"adjacency": "add-or-remove-one"}
BEGUN = {"round": 1, "cohort": list(SITES), "model_digest": D}


def against(view, colluders=0, unopened=0):
    return upper_epsilon(seen_by([Repeated(NOISE, 1)], view, colluders, unopened), DELTA)


@pytest.fixture
def stated(tmp_path):
    """The history of one round that was begun twice, and what its summary states."""
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "r", "operation": "simulation"}, Ticks()) as log:
        log.append("config", {"digest": D, "values": configuration(1, masked=True)})
        log.append("privacy_claim", CLAIM)
        log.append("round_started", BEGUN)
        log.append("resumed", {"round": 0})
        log.append("round_started", BEGUN)
        log.append("privacy_event", {"mechanism": mechanism_fields(NOISE), "repetitions": 1, "round": 1})
        log.append("round_completed", round_fields(1))
        sums = [{"view": "aggregate-only", "upper": against("aggregate-only")}]
        sums += [{"view": "aggregate-only", "upper": against("aggregate-only", n), "colluders": n} for n in (1, 2)]
        sums += [{"view": "aggregation-broken", "upper": against("aggregation-broken", unopened=1)}]
        for fields in sums:
            log.append("epsilon", {**fields, "delta": DELTA, "accountant": "RDP"})
        end = {"rounds": 1, "chosen_round": 1, "files": {}, "model_digest": round_fields(1)["model_digest"]}
        log.append("run_completed", end)
        history = read_history(log.events)
    alone, _, two, broken = (fields["upper"] for fields in sums)
    views = {"aggregate_only": alone, "colluders": {"2": two}, "aggregation_broken": broken}
    return history, {"epsilon": alone, "delta": DELTA, "epsilon_by_adversary": views}


def check(tmp_path, history, privacy):
    (tmp_path / "summary.json").write_text(json.dumps({"privacy": privacy}))
    return check_epsilon(tmp_path, history)


def test_what_is_stated_against_each_adversary_is_the_logs(tmp_path, stated):
    history, privacy = stated
    assert "4 stated values recomputed" in check(tmp_path, history, privacy)


@pytest.mark.parametrize(
    "views",
    [
        {"aggregate_only": 1.0},
        {"aggregate_only": None},
        {"colluders": {"1": against("aggregate-only", 1)}},
        {"colluders": {"2": against("aggregate-only", 1)}},
        {"colluders": {}},
        {"aggregation_broken": against("aggregation-broken")},
        {"aggregation_broken": None},
        {"nobody": 0.1},
    ],
)
def test_less_against_one_adversary_is_found(tmp_path, stated, views):
    history, privacy = stated
    privacy["epsilon_by_adversary"] |= views
    with pytest.raises(EvidenceError, match=r"summary.json states epsilon_by_adversary"):
        check(tmp_path, history, privacy)


@pytest.mark.parametrize("change", [{"epsilon": 0.1}, {"epsilon": None}, {"delta": 1e-9}, {"delta": None}])
def test_another_epsilon_than_that_of_the_events_is_found(tmp_path, stated, change):
    history, privacy = stated
    with pytest.raises(EvidenceError, match=r"summary.json states epsilon .* the events give"):
        check(tmp_path, history, privacy | change)


def test_a_report_counts_vectors_for_sums_that_were_never_opened(stated):
    history, privacy = stated
    costs = _costs(history, 2)
    assert costs["broken"] == pytest.approx(privacy["epsilon_by_adversary"]["aggregation_broken"])
    assert costs["broken"] > against("aggregation-broken")
    assert costs["helped"] == pytest.approx(privacy["epsilon_by_adversary"]["colluders"]["2"])


def test_an_epsilon_is_stated_by_an_accountant_that_there_is(private_run):
    edited(private_run, "epsilon", lambda fields: fields.update(accountant="our own"))
    assert "an epsilon is stated by our own: accountants are PLD and RDP" in failure(private_run)[1]
