import json

import pytest

from protocols.attacks import ATTACKS, Attack, AttackReport, Finding, Outcome, run_attack, run_catalogue, select


def test_every_family_is_there_and_every_attack_says_what_it_does():
    assert {attack.family for attack in ATTACKS} == {f"A{number}" for number in range(1, 22)}
    assert len({attack.id for attack in ATTACKS}) == len(ATTACKS)
    for attack in ATTACKS:
        assert attack.title
        assert attack.action.islower() or attack.action[0].islower()
        assert "\n" not in attack.action
        assert attack.run.__doc__


def test_attacks_are_chosen_by_family_or_by_id_in_the_order_of_the_catalogue():
    assert [attack.id for attack in select(["A7b", "A1"])] == ["A1a", "A1b", "A7b"]
    assert select() == ATTACKS


def test_an_unknown_id_is_named():
    with pytest.raises(KeyError, match="A99"):
        run_catalogue(["A99"])


def test_reports_are_plain_values():
    reports = run_catalogue(["A6c", "A19"])
    plain = [report.to_dict() for report in reports]
    assert json.loads(json.dumps(plain)) == plain
    assert [entry["outcome"] for entry in plain] == ["harmless", "not applicable"]
    assert all(report.holds for report in reports)


def test_a_report_of_a_broken_build_does_not_hold():
    attack = Attack("A1z", "title", "action", Outcome.REFUSED, lambda: Finding(Outcome.BROKEN, "evidence"))
    report = run_attack(attack)
    assert isinstance(report, AttackReport)
    assert not report.holds
    assert report.to_dict()["expected"] == "refused"


def test_evidence_is_one_line():
    for report in run_catalogue(["A1", "A2", "A9", "A18"]):
        assert report.evidence
        assert "\n" not in report.evidence
