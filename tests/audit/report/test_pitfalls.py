"""The checklist says PASS only where the record shows it, and FAIL where it shows the contrary."""

import pytest

from audit.history import read_history
from audit.log import EventLog
from audit.report import build_report
from audit.report.pitfalls import CONSTANTS, RECORDED, pitfalls_section
from tests.audit.report.pages import edited

CLAIM = {"claim": "CLAIMED", "epsilon": 1.0, "contradictions": [], "adjacency": "add-or-remove-one", "unit": "image"}
CLAIM |= {"accountant": "PLD", "cross_checks": {"RDP": 1.1, "PRV": 1.01}}


def checklist_of(tmp_path, claim, **values):
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "r", "operation": "simulation"}) as log:
        fields = {"mode": "local", "claim": "CLAIMED", "reason": "x", "adjacency": "add-or-remove-one"}
        log.append("privacy_claim", {**fields, "values": values})
        history = read_history(log.events)
    return pitfalls_section(history, {**claim, "unprotected": []})


def checklist(tmp_path, **values):
    rows = checklist_of(tmp_path, CLAIM, **values)
    return {row["name"]: row["outcome"] for row in rows}


def test_nothing_recorded_is_not_shown(tmp_path):
    found = checklist(tmp_path)
    assert found["randomness is cryptographic"] == "NOT SHOWN"
    assert found["normaliser, rate and steps are public constants"] == "NOT SHOWN"
    assert {found[name] for name, _ in RECORDED} == {"NOT SHOWN"}


def test_what_the_run_states_passes(tmp_path):
    found = checklist(tmp_path, noise="system", **dict.fromkeys(CONSTANTS, 2), **{key: True for _, key in RECORDED})
    assert "NOT SHOWN" not in {found[name] for name in found if name != "side information is listed"}
    assert set(found.values()) <= {"PASS", "NOT SHOWN"}


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"noise": "seeded"}, "randomness is cryptographic"),
        ({"empty_batches": False}, "empty batches still add noise"),
    ],
)
def test_what_the_run_denies_fails(tmp_path, values, name):
    assert checklist(tmp_path, **values)[name] == "FAIL"


@pytest.mark.parametrize(
    ("changes", "outcome", "detail"),
    [
        ({}, "PASS", "the bounds of PLD, RDP, PRV contain one another"),
        ({"accountant": "RDP", "cross_checks": {}}, "NOT SHOWN", "one accountant only, RDP"),
        ({"epsilon": None, "cross_checks": {"RDP": 1e6}}, "NOT SHOWN", "no finite epsilon was computed"),
        ({"contradictions": ["the accountants disagree"]}, "FAIL", "the accountants disagree"),
    ],
)
def test_accountants_agree_where_there_is_more_than_one(tmp_path, changes, outcome, detail):
    rows = checklist_of(tmp_path, {**CLAIM, **changes})
    found = next(row for row in rows if row["name"] == "accountants agree")
    assert found["outcome"] == outcome
    assert detail in found["detail"]


def test_a_replay_is_told_where_one_was_recorded(tmp_path):
    for name, values, told in (
        ("a", {"sensitivity_checked": True}, ("PASS", "every hospital replayed its steps")),
        ("b", {}, ("NOT SHOWN", "the run recorded nothing of it")),
    ):
        (tmp_path / name).mkdir()
        rows = checklist_of(tmp_path / name, CLAIM, **values)
        found = next(row for row in rows if row["name"] == "sensitivity equals the clip norm")
        assert (found["outcome"], found["detail"][: len(told[1])]) == told


@pytest.mark.parametrize(("noise", "outcome"), [("seeded", "FAIL"), ("system", "PASS")])
def test_noise_on_which_no_claim_stands_is_checked_as_any_other(private_run, noise, outcome):
    def unclaimed(fields):
        fields.update(claim="NOT CLAIMED", reason="x", values={"noise": noise, "empty_batches": True})

    edited(private_run, "privacy_claim", unclaimed)
    report = build_report(private_run)
    found = {row["name"]: row for row in report["pitfalls"]}
    assert "No noise was added" not in str(report)
    assert found["randomness is cryptographic"]["outcome"] == outcome
    assert found["neighbouring relation is stated"]["detail"] == "neighbours by add-or-remove-one, one image"
    assert found["empty batches still add noise"]["outcome"] == "PASS"
    for name in ("accounting matches the sampling", "accountants agree"):
        assert found[name]["outcome"] == "NOT SHOWN"
        assert "nothing is claimed of it" in found[name]["detail"]


def test_nothing_of_it_applies_where_no_noise_was_added(report):
    (row,) = report["pitfalls"]
    assert (row["outcome"], row["detail"][:19]) == ("NOT APPLICABLE", "No noise was added:")
