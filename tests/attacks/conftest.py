from collections.abc import Callable

import pytest

from protocols.attacks import ATTACKS, AttackReport, Outcome, run_attack


@pytest.fixture
def play() -> Callable[[str], AttackReport]:
    """Run one attack of the catalogue."""

    def run(attack_id: str) -> AttackReport:
        return run_attack(next(attack for attack in ATTACKS if attack.id == attack_id))

    return run


@pytest.fixture
def refused(play) -> Callable[[str], None]:
    def check(attack_id: str) -> None:
        report = play(attack_id)
        assert report.outcome is Outcome.REFUSED, report.evidence

    return check


@pytest.fixture
def harmless(play) -> Callable[[str], None]:
    def check(attack_id: str) -> None:
        report = play(attack_id)
        assert report.outcome is Outcome.HARMLESS, report.evidence

    return check


@pytest.fixture
def broken(play) -> Callable[[str], None]:
    """The weakened variant must be caught: otherwise the attack proves nothing."""

    def check(attack_id: str) -> None:
        report = play(attack_id)
        assert report.outcome is Outcome.BROKEN, report.evidence

    return check
