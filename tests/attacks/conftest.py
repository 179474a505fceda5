from collections.abc import Callable

import pytest

from protocols.attacks import ATTACKS, AttackReport, Outcome, run_attack


@pytest.fixture
def play() -> Callable[[str], AttackReport]:
    """Run one attack of the catalogue."""

    def run(attack_id: str) -> AttackReport:
        return run_attack(next(attack for attack in ATTACKS if attack.id == attack_id))

    return run


def ends(outcome: Outcome):
    @pytest.fixture
    def checked(play) -> Callable[[str], None]:
        def check(attack_id: str) -> None:
            report = play(attack_id)
            assert report.outcome is outcome, report.evidence

        return check

    return checked


refused = ends(Outcome.REFUSED)
harmless = ends(Outcome.HARMLESS)
broken = ends(Outcome.BROKEN)
"""The weakened variant must be caught: otherwise the attack proves nothing."""
