import json
import re
from pathlib import Path

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
    reports = run_catalogue(["A6c", "A19b"])
    plain = [report.to_dict() for report in reports]
    assert json.loads(json.dumps(plain)) == plain
    assert [entry["outcome"] for entry in plain] == ["harmless", "refused"]
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


def test_the_build_withstands_the_whole_catalogue():
    unexpected = {r.id: r.evidence for r in run_catalogue() if r.outcome is not r.expected}
    assert unexpected == {}


def test_every_attack_is_tried_with_and_without_the_defence():
    texts = [path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name]
    for attack in ATTACKS:
        tests = [test for text in texts for test in text.split("\ndef ")[1:] if f'"{attack.id}"' in test]
        parametrized = [text for text in texts if re.search(rf'parametrize\("attack", .*"{attack.id}"', text)]
        weakened = [test for test in tests if f'broken("{attack.id}")' in test] or len(parametrized) > 0
        assert weakened, attack.id
        assert tests or parametrized, attack.id
