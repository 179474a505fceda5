"""Ledgers against the logs of runs: they tell the same story, or the first bad event is named."""

import dataclasses
import shutil

import pytest

from audit import EventLog, EvidenceError, read_events
from audit.accounting import Gaussian, mechanism_fields
from audit.ledger import BudgetExceededError, Ledger, Policy, charged_release, check_ledger
from audit.verify import Outcome, verify_run
from tests.audit.ledger.money import ACCOUNT, LINE, charge, policy
from tests.audit.runs import Ticks


def release_two(tmp_path, ledger):
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "r1", "operation": "simulation"}, Ticks()) as log:
        for name in ("one", "two"):
            assert charged_release(ledger, log, ACCOUNT, charge(name), lambda: "sent", round=1) == "sent"
        with pytest.raises(BudgetExceededError):
            charged_release(ledger, log, ACCOUNT, charge("three", Gaussian(0.1)), lambda: pytest.fail("sent"), round=2)
    return read_events(tmp_path / "audit.jsonl")


def test_a_release_stands_in_the_log_before_it_is_sent(tmp_path, ledger, path):
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "r1", "operation": "simulation"}, Ticks()) as log:

        def send():
            kinds = [event.kind for event in read_events(tmp_path / "audit.jsonl")]
            assert kinds == ["run_started", "charge", "privacy_event"]
            assert ledger.charges()[0].state == "released"

        charged_release(ledger, log, ACCOUNT, charge("one"), send, round=1)
    assert check_ledger(path, {"r1": read_events(tmp_path / "audit.jsonl")}).startswith("1 charges of 1 logs agree")


def test_verification_of_a_run_takes_the_ledger_in(tmp_path, ledger, path):
    release_two(tmp_path, ledger)
    assert verify_run(tmp_path, ledger=path).checks[-1].outcome is Outcome.PASS
    (tmp_path / "other.db").write_bytes(b"no database at all" * 100)
    assert verify_run(tmp_path, ledger=tmp_path / "other.db").checks[-1].outcome is Outcome.FAIL
    Ledger(tmp_path / "empty.db").close()
    found = verify_run(tmp_path, ledger=tmp_path / "empty.db")
    assert found.first_bad_event == 1
    assert "knows no charge" in found.checks[-1].detail
    missing = verify_run(tmp_path, ledger=tmp_path / "mistyped.db").checks[-1]
    assert missing.outcome is Outcome.FAIL
    assert "mistyped.db: does not exist; `audit ledger policy` makes one" in missing.detail
    assert not (tmp_path / "mistyped.db").exists()


def test_a_ledger_that_has_nothing_to_do_with_a_run_is_absent_not_passed(complete_run, path, ledger):
    ledger.reserve(ACCOUNT, charge("of another run"))
    check = verify_run(complete_run, ledger=path).checks[-1]
    assert check.outcome is Outcome.ABSENT
    assert "no charge in common" in check.detail


@pytest.mark.parametrize(("survivors", "paid"), [(["north"], False), (["south"], True)])
def test_a_hospital_in_a_sum_has_paid_for_what_was_announced_of_it(tmp_path, ledger, path, survivors, paid):
    """In a deployment the server's log announces releases that each hospital charges to its own ledger."""
    header = {"run_id": "r1", "operation": "deployment"}
    with EventLog.create(tmp_path / "audit.jsonl", header, Ticks()) as log:
        cohort = [ACCOUNT.hospital, "south"]
        survivors = [ACCOUNT.hospital if name == "north" else name for name in survivors]
        log.append("round_started", {"round": 1, "cohort": cohort, "model_digest": "ab" * 32})
        release = f"r1/1/{'ab' * 8}/{ACCOUNT.hospital}"
        event = {"mechanism": mechanism_fields(Gaussian(2.0)), "repetitions": 1, "round": 1}
        log.append("privacy_event", {**event, "hospital": ACCOUNT.hospital, "release_id": release})
        lost = {name: "ShareKeys" for name in cohort if name not in survivors}
        done = {"round": 1, "cohort": cohort, "survivors": survivors, "dropouts": lost}
        log.append("round_completed", {**done, "aggregate_digest": "ab" * 32, "bytes": {}})
        events = log.events
    if paid:
        assert check_ledger(path, {"r1": events}).startswith("0 charges")
    else:
        with pytest.raises(EvidenceError, match="knows no charge"):
            check_ledger(path, {"r1": events})


def sums_of_a_deployment(tmp_path, *survivors):
    """Return the log of a deployment with noise in shares; the sums of its rounds are over these hospitals."""
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "r1", "operation": "deployment"}, Ticks()) as log:
        for number, names in enumerate(survivors, 1):
            cohort = ["east", "north", "south"]
            log.append("round_started", {"round": number, "cohort": cohort, "model_digest": "ab" * 32})
            event = {"mechanism": mechanism_fields(Gaussian(2.0)), "repetitions": 1, "round": number}
            log.append("privacy_event", {**event, "release_id": f"sum/{number}/{number - 1}"})
            lost = {name: "ShareKeys" for name in cohort if name not in names}
            done = {"round": number, "cohort": cohort, "survivors": list(names), "dropouts": lost}
            log.append("round_completed", {**done, "aggregate_digest": "ab" * 32, "bytes": {}})
        return log.events


def pay(ledger, number, vector=1, *, until="committed", run="r1", account=ACCOUNT):
    name = f"{run}/{number}/vector {vector}/{account.hospital}"
    ledger.reserve(account, charge(name, Gaussian(20.0), run_id=run))
    if until != "reserved":
        ledger.release(name)
    if until == "committed":
        ledger.commit(name)


def agreeing(path, events):
    return int(check_ledger(path, {"r1": events}).split()[0])


def test_every_sum_with_a_hospitals_vector_was_paid_for_where_noise_is_in_shares(tmp_path, ledger, path):
    events = sums_of_a_deployment(tmp_path, ["north", "south"], ["east", "south"], ["east", "north"])
    unpaid = "the ledger of north holds no committed charge for its vector in the sum of round"
    for number, owed in ((1, 1), (2, 3), (3, 3)):
        with pytest.raises(EvidenceError, match=f"{unpaid} {owed};") as caught:
            check_ledger(path, {"r1": events})
        assert caught.value.seq == 3 * owed
        pay(ledger, number, until="released")  # lost in round 2, after it had paid
        if number != 2:
            with pytest.raises(EvidenceError, match=f"{unpaid} {owed};"):
                check_ledger(path, {"r1": events})
        ledger.commit(f"r1/{number}/vector 1/north")
    assert agreeing(path, events) == 2
    pay(ledger, 3, vector=2)  # a round that was begun again
    pay(ledger, 1, run="r2")
    assert agreeing(path, events) == 2


@pytest.mark.parametrize("run", ["r2", "r1/1"])
def test_charges_of_another_run_pay_for_no_sum(tmp_path, ledger, path, run):
    events = sums_of_a_deployment(tmp_path, ["north", "south"])
    pay(ledger, 1, run=run)
    with pytest.raises(EvidenceError, match="sum of round 1; it was lost, replaced, or put back"):
        check_ledger(path, {"r1": events})


def test_a_hospital_in_no_sum_and_the_budgets_of_others_owe_nothing(tmp_path, ledger, path):
    assert agreeing(path, sums_of_a_deployment(tmp_path, ["east", "south"], ["east", "south"])) == 0
    both = Ledger(tmp_path / "both.db")
    south = dataclasses.replace(LINE, hospital="south")
    both.install(Policy({**policy().budgets, south: policy().budgets[LINE]}))
    (tmp_path / "audit.jsonl").unlink()
    events = sums_of_a_deployment(tmp_path, ["east", "north", "south"])
    with both:
        assert agreeing(tmp_path / "both.db", events) == 0  # nobody can tell whose it is
        pay(both, 1)
        assert agreeing(tmp_path / "both.db", events) == 1


def test_a_charge_of_one_hospital_pays_for_no_vector_of_another(tmp_path):
    both = Ledger(tmp_path / "both.db")
    south, account = dataclasses.replace(LINE, hospital="south"), dataclasses.replace(ACCOUNT, hospital="south")
    both.install(Policy({**policy().budgets, south: policy().budgets[LINE]}))
    events = sums_of_a_deployment(tmp_path, ["east", "north", "south"])
    with both:
        pay(both, 1)
        pay(both, 1, run="r2", account=account)  # so that both are charged here
        with pytest.raises(EvidenceError, match="the ledger of south holds no committed charge"):
            agreeing(tmp_path / "both.db", events)
        pay(both, 1, account=account)
        assert agreeing(tmp_path / "both.db", events) == 2


@pytest.mark.parametrize("announced", [None, "south"])
def test_a_sum_without_noise_in_shares_owes_nothing(tmp_path, ledger, path, announced):
    """Such as one of scores after one with noise, or one for which each hospital announces its own noise."""
    events = sums_of_a_deployment(tmp_path, ["north", "south"], ["north", "south"])
    pay(ledger, 1)
    assert [event.kind for event in events[4:]] == ["round_started", "privacy_event", "round_completed"]
    fields = {} if announced is None else {**events[5].fields, "hospital": announced}
    ours = [dataclasses.replace(events[5], fields=fields)] if announced else []
    assert agreeing(path, [*events[:5], *ours, *events[6:]]) == 1


def test_ledger_and_log_agree_or_the_first_bad_event_is_named(tmp_path, ledger, path):
    events = release_two(tmp_path, ledger)
    assert [event.kind for event in events] == [
        "run_started",
        *["charge", "privacy_event", "charge"] * 2,
        "refused",
    ]
    assert events[-1].fields["budget"] == 3
    assert check_ledger(path, {"r1": events}).startswith("2 charges")
    with pytest.raises(EvidenceError) as caught:
        check_ledger(path, {"r1": events[:4]})
    assert "'two'" in caught.value.reason
    with pytest.raises(EvidenceError) as caught:
        check_ledger(path, {"r2": events})
    assert caught.value.seq == 1


def test_a_ledger_restored_from_before_is_noticed(tmp_path, ledger, path):
    with Ledger(path) as second:
        second.digest  # noqa: B018 (reads all entries)
    shutil.copy(path, tmp_path / "old.db")
    for suffix in ("-wal", "-shm"):
        if path.with_name(path.name + suffix).exists():
            shutil.copy(path.with_name(path.name + suffix), tmp_path / f"old.db{suffix}")
    events = release_two(tmp_path, ledger)
    with pytest.raises(EvidenceError) as caught:
        check_ledger(tmp_path / "old.db", {"r1": events})
    assert caught.value.seq == 1
