"""Noise that bears fewer rounds than are planned, down to none: said before anything is sent, and never paid."""

import pytest

from audit.accounting import Repeated, upper_epsilon
from audit.ledger import BudgetExceededError, Ledger
from audit.log import EventLog
from protocols.entropy import system_entropy
from protocols.roster import IdentityKey, Roster
from securefed.config import config_from_mapping
from securefed.errors import TargetEpsilonError
from securefed.privacy.at_site import SitePrivacy
from securefed.privacy.bearing import too_few_rounds
from securefed.privacy.shared_charges import SharedCharges, charged_mechanism
from securefed.privacy.shared_run import SharedPrivacy
from securefed.sum_terms import SumTerms
from tests.audit.ledger.money import FINGERPRINT, policy

ROUNDS = 3


def noise_of(mode, multiplier, epsilon=1.0, **more):
    privacy = {"mode": mode, "epsilon": epsilon, "noise_multiplier": multiplier, **more}
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
    with Ledger(tmp_path / "ledger.sqlite") as ledger, log_of(tmp_path) as log:
        ledger.install(policy(100.0, unit=config.privacy.unit))
        book = SharedCharges(log, "run", config.privacy, noise, {"north": FINGERPRINT}, ledger, ROUNDS)
        assert book.left_of("north") == borne
        for number in range(1, borne + 1):
            book.pay("north", number)
        with pytest.raises(TargetEpsilonError, match=rf"above the target {epsilon:g}.*{borne} rounds fit this noise"):
            book.pay("north", borne + 1)
        assert book.vectors_of("north") == borne


def test_a_vector_whose_sum_was_lost_is_none_of_those_that_are_left(tmp_path):
    """Of a budget for three vectors two went into round 1; the two rounds that are left need two more."""
    config, noise = noise_of("distributed", 3.2, 0.0, spare_rounds=2)
    three = upper_epsilon([Repeated(charged_mechanism(noise, config.privacy), 3)], 1e-5)
    with Ledger(tmp_path / "ledger.sqlite") as ledger, log_of(tmp_path) as log:
        ledger.install(policy(three))
        book = SharedCharges(log, "run", config.privacy, noise, {"north": FINGERPRINT}, ledger, ROUNDS + 2)
        book.check_run(ROUNDS)
        book.pay("north", 1)
        book.pay("north", 1)
        with pytest.raises(BudgetExceededError):
            book.check_run(ROUNDS, finished=1)
        book.check_run(ROUNDS, finished=2)
        book.pay("north", 3)  # it did not sign the head of round 2, and was asked for round 3 all the same
        book.check_run(ROUNDS, finished=3)


def log_of(folder):
    return EventLog.create(folder / "audit.jsonl", {"run_id": "x", "operation": "deployment", "software": {"x": "0"}})


def go_on(server):
    """Begin round 3 again and again, each time up to its sum."""
    for _ in range(17):
        server.check_round(3)
        server.before_opening(3, 4)


def pay_all(site, rounds):
    for number in range(1, rounds + 1):
        site._pay("north", number)


@pytest.mark.parametrize("epsilon", [0.0, 30.0])
def test_rounds_that_are_begun_again_take_no_claimed_run_above_what_is_claimed(tmp_path, epsilon):
    """Three rounds cost less than 23 and are claimed; the sum that would bring them above it is never opened."""
    config, noise = noise_of("distributed", 0.85, epsilon)
    with log_of(tmp_path) as log:
        server = SharedPrivacy(config, log, noise, deployed=True)
        assert server.claim()["claim"] == "CLAIMED"
        assert server.notes()
        for number in range(1, ROUNDS + 1):
            server.check_round(number)
            server.before_opening(number, 4)
        with pytest.raises(TargetEpsilonError, match=r"above 23, the most that is claimed; nothing of it was released"):
            go_on(server)
        summary = server.finish()
    assert summary["claim"].startswith("CLAIMED")
    assert summary["epsilon"] <= 23


def test_a_hospital_pays_for_no_spare_vector_above_what_is_claimed(tmp_path):
    config, noise = noise_of("distributed", 0.85, 0.0, spare_rounds=17)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.install(policy(1000.0))
    site = SitePrivacy(
        "north",
        "0" * 64,
        config,
        FINGERPRINT,
        tmp_path / "north" / "study",
        tmp_path / "ledger.sqlite",
        lambda: "run",
        noise,
    )
    with pytest.raises(TargetEpsilonError, match="above 23, the most that is claimed"):
        pay_all(site, 20)
    assert site.summary()["claim"].startswith("CLAIMED")
    assert site.summary()["epsilon"] <= 23


def test_what_is_not_claimed_is_not_limited(tmp_path):
    config, noise = noise_of("distributed", 0.2, 0.0)
    with log_of(tmp_path) as log:
        server = SharedPrivacy(config, log, noise, deployed=True)
        assert server.claim()["claim"] == "NOT CLAIMED"
        for number in range(1, 6):
            server.check_round(number)
            server.before_opening(number, 4)
