"""Noise that bears fewer rounds than are planned, down to none: said before anything is sent, and never paid."""

import pytest

from audit.ledger import Ledger
from audit.log import EventLog
from protocols.entropy import system_entropy
from protocols.roster import IdentityKey, Roster
from securefed.config import config_from_mapping
from securefed.errors import TargetEpsilonError
from securefed.privacy.bearing import too_few_rounds
from securefed.privacy.shared_charges import SharedCharges
from securefed.sum_terms import SumTerms
from tests.audit.ledger.money import FINGERPRINT, policy

ROUNDS = 3


def noise_of(mode, multiplier, epsilon=1.0):
    privacy = {"mode": mode, "epsilon": epsilon, "noise_multiplier": multiplier}
    privacy["unit"] = "hospital" if mode == "hospital" else "image"
    given = {"federation": {"rounds": ROUNDS}, "training": {"fam_width": 4}, "privacy": privacy}
    config = config_from_mapping(given)
    roster = Roster.of({name: IdentityKey.generate(system_entropy) for name in ("north", "south", "east", "west")})
    return config, SumTerms(config, roster, 16, 3).noise


@pytest.mark.parametrize("mode", ["local", "distributed", "hospital"])
@pytest.mark.parametrize(
    ("multiplier", "epsilon", "says"),
    [
        (0.5, 1.0, "bears 0 of 3 rounds within epsilon 1; use a larger"),
        (3.2, 2.0, "bears 2 of 3 rounds within epsilon 2; use federation.rounds=2, a larger"),
        (100.0, 1.0, ""),
        (0.0, 1.0, ""),
        (0.5, 0.0, ""),
    ],
)
def test_a_target_that_ends_a_run_before_its_last_round_is_named(mode, multiplier, epsilon, says):
    config, noise = noise_of(mode, multiplier, epsilon)
    found = too_few_rounds(config, noise)
    assert (says in found) if says else found == ""


@pytest.mark.parametrize("mode", ["distributed", "hospital"])
@pytest.mark.parametrize(("multiplier", "epsilon", "borne"), [(0.5, 1.0, 0), (3.2, 2.0, 2)])
def test_a_hospital_pays_for_no_vector_that_the_target_does_not_bear(tmp_path, mode, multiplier, epsilon, borne):
    config, noise = noise_of(mode, multiplier, epsilon)
    log = EventLog.create(tmp_path / "audit.jsonl", {"run_id": "x", "operation": "deployment", "software": {"x": "0"}})
    with Ledger(tmp_path / "ledger.sqlite") as ledger, log:
        ledger.install(policy(100.0, unit=config.privacy.unit))
        book = SharedCharges(log, "run", config.privacy, noise, {"north": FINGERPRINT}, ledger, ROUNDS)
        assert book.left_of("north") == borne
        for number in range(1, borne + 1):
            book.pay("north", number)
        with pytest.raises(TargetEpsilonError, match=rf"above the target {epsilon:g}.*{borne} rounds fit this noise"):
            book.pay("north", borne + 1)
        assert book.vectors_of("north") == borne
