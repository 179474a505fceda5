"""The budget across runs: composed by PLD, refused before it is exceeded, renewed only by its signer."""

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from audit import AuditError, EvidenceError
from audit.accounting import Adjacency, Gaussian, Repeated, SampledGaussian, Skellam, Unknown, upper_epsilon
from audit.ledger import (
    Account,
    BudgetExceededError,
    BudgetLine,
    Ledger,
    LedgerError,
    Policy,
    Renewal,
    SignedRenewal,
    count_agreeing,
)
from tests.audit.ledger.money import ACCOUNT, FINGERPRINT, LINE, NOISE, SIGNER, charge, policy
from tests.audit.runs import key_of

OTHER = "cd" * 32


def spend(ledger, name, account=ACCOUNT, **arguments):
    epsilon = ledger.reserve(account, charge(name, **arguments))
    ledger.release(name)
    ledger.commit(name)
    return epsilon


def test_two_runs_compose_to_less_than_their_sum(path):
    run = {"mechanism": SampledGaussian(1.2, 0.016), "repetitions": 3100}
    with Ledger(path) as ledger:
        ledger.install(policy(epsilon=6.0))
        spend(ledger, "first", **run)
        assert f"{ledger.status(ACCOUNT).spent:.2f}" == "3.99"
        spend(ledger, "second", **run, run_id="r2")
        status = ledger.status(ACCOUNT)
        assert f"{status.spent:.2f}" == "5.89"
        assert f"{status.remaining:.2f}" == "0.11"
        with pytest.raises(BudgetExceededError) as caught:
            ledger.reserve(ACCOUNT, charge("third", **run))
    error = caught.value
    assert error.exit_code == 4
    assert (error.hospital, error.unit, error.budget) == ("north", "image", 6.0)
    assert error.epsilon > 7


def test_a_refused_release_is_recorded_and_costs_nothing(ledger):
    spend(ledger, "small")
    before = ledger.status(ACCOUNT)
    with pytest.raises(BudgetExceededError):
        ledger.reserve(ACCOUNT, charge("big", Gaussian(0.1)))
    after = ledger.status(ACCOUNT)
    assert (after.spent, len(after.charges), len(ledger.entries("refused"))) == (before.spent, 1, 1)
    spend(ledger, "small again")


def test_what_nobody_can_account_is_refused(ledger):
    with pytest.raises(BudgetExceededError, match="inf"):
        ledger.reserve(ACCOUNT, charge("x", Unknown("accuracy in clear")))
    with pytest.raises(BudgetExceededError):
        ledger.reserve(ACCOUNT, charge("y", Gaussian(1e-9)))


def test_discrete_noise_is_charged_by_rdp(ledger):
    noise = Skellam(l1=1e5, l2=2000.0, share_variance=1e7, shares=10)
    spend(ledger, "sum", mechanism=noise, repetitions=5)
    assert ledger.status(ACCOUNT).spent == upper_epsilon([Repeated(noise, 5)], 1e-5)


def test_a_release_is_charged_once_and_moves_forward_only(ledger):
    ledger.reserve(ACCOUNT, charge("a"))
    with pytest.raises(LedgerError, match="fresh noise is a new release"):
        ledger.reserve(ACCOUNT, charge("a"))
    with pytest.raises(EvidenceError, match="cannot become committed"):
        ledger.commit("a")
    ledger.release("a")
    with pytest.raises(EvidenceError, match="cannot become released"):
        ledger.release("a")
    ledger.commit("a")
    with pytest.raises(EvidenceError, match="cannot become"):
        ledger.commit("a")
    with pytest.raises(EvidenceError, match="unknown"):
        ledger.release("b")
    assert [spent.state for spent in ledger.status(ACCOUNT).charges] == ["committed"]


def test_a_hospital_without_a_policy_is_refused(ledger):
    with pytest.raises(LedgerError, match="no budget"):
        ledger.reserve(Account("south", FINGERPRINT, "image"), charge("x"))
    with pytest.raises(LedgerError, match="no budget"):
        ledger.reserve(Account("north", FINGERPRINT, "patient"), charge("x"))
    with pytest.raises(LedgerError, match="no budget"):
        ledger.status(Account("south", FINGERPRINT, "image"))


@pytest.mark.parametrize("renamed", [OTHER, "00" * 32])
def test_renamed_copied_or_extended_data_opens_no_new_budget(ledger, renamed):
    spend(ledger, "first", repetitions=3)
    account = Account("north", renamed, "image")
    assert ledger.status(account).spent == ledger.status(ACCOUNT).spent
    with pytest.raises(BudgetExceededError):
        ledger.reserve(account, charge("second", repetitions=10))


def test_a_clock_set_back_changes_nothing(path):
    present = datetime(2026, 6, 1, tzinfo=UTC)
    with Ledger(path, lambda: present) as ledger:
        ledger.install(policy())
        spend(ledger, "first", repetitions=6)
        spent = ledger.status(ACCOUNT).spent
    for moved in (present - timedelta(days=4000), present + timedelta(days=4000)):
        with Ledger(path, lambda moved=moved: moved) as ledger:
            assert ledger.status(ACCOUNT).spent == spent
            with pytest.raises(BudgetExceededError):
                ledger.reserve(ACCOUNT, charge("second", repetitions=6))


# renewals


def renewal(epsilon=6.0, serial=1, line=LINE, key=SIGNER):
    return Renewal(line, serial, epsilon, "second study, approved").sign(key)


def test_a_signed_renewal_sets_a_new_total(ledger):
    spend(ledger, "first", repetitions=6)
    with pytest.raises(BudgetExceededError):
        ledger.reserve(ACCOUNT, charge("second", repetitions=6))
    ledger.renew(SignedRenewal.decode(renewal().encode()))
    spend(ledger, "third", repetitions=6)
    status = ledger.status(ACCOUNT)
    budget = ledger.budget_of(ACCOUNT)
    assert (budget.epsilon, budget.serial, len(ledger.entries("refused"))) == (6.0, 1, 1)
    assert status.spent == upper_epsilon([Repeated(NOISE, 12)], 1e-5)


@pytest.mark.parametrize(
    ("signed", "reason"),
    [
        (renewal(key=key_of("mallory")), "not signed"),
        (renewal(serial=2), "serial"),
        (renewal(line=BudgetLine("south", "image")), "no budget"),
        (SignedRenewal(Renewal(LINE, 1, 100.0, "x"), renewal().signature), "not signed"),
    ],
)
def test_other_renewals_change_nothing(ledger, signed, reason):
    with pytest.raises(EvidenceError, match=reason):
        ledger.renew(signed)
    assert ledger.budget_of(ACCOUNT).epsilon == 3.0
    spend(ledger, "still works")


def test_a_limit_that_is_lowered_below_what_is_spent_makes_nothing_before_it_a_breach(path, ledger):
    spend(ledger, "first", repetitions=6)
    ledger.renew(renewal(epsilon=1.0))
    assert ledger.status(ACCOUNT).remaining == 0
    assert count_agreeing(path, {}) == 0
    with pytest.raises(BudgetExceededError):
        ledger.reserve(ACCOUNT, charge("second"))
    assert count_agreeing(path, {}) == 0


def test_a_limit_that_is_raised_afterwards_mends_no_breach(path, ledger, monkeypatch):
    monkeypatch.setattr("audit.ledger.ledger.bound_against", lambda *_: 0.0)
    spend(ledger, "too much", repetitions=12)
    ledger.renew(renewal(epsilon=100.0))
    monkeypatch.undo()
    with pytest.raises(EvidenceError, match="of a budget of 3"):
        count_agreeing(path, {})


def test_a_renewal_counts_once(ledger):
    ledger.renew(renewal())
    ledger.renew(renewal(epsilon=4.0, serial=2))
    with pytest.raises(EvidenceError, match="serial"):
        ledger.renew(renewal())
    assert ledger.budget_of(ACCOUNT).epsilon == 4.0


def test_a_data_set_that_its_signer_calls_disjoint_has_its_own_budget(ledger):
    account = Account("north", OTHER, "image")
    spend(ledger, "before", account=account)
    spend(ledger, "common before")
    ledger.renew(renewal(epsilon=2.0, line=BudgetLine("north", "image", OTHER)))
    spend(ledger, "own", account=account)
    spend(ledger, "common")
    assert ledger.status(account).spent == upper_epsilon([Repeated(NOISE, 2)], 1e-5)
    assert ledger.status(ACCOUNT).spent == upper_epsilon([Repeated(NOISE, 4)], 1e-5)
    assert ledger.budget_of(account).epsilon == 2.0


EXTENDED = Account("north", "ef" * 32, "image")


@pytest.mark.parametrize("extended_first", [False, True])
def test_a_declared_data_set_with_one_image_more_opens_no_budget(ledger, extended_first):
    declared = Account("north", OTHER, "image")
    ledger.renew(renewal(epsilon=3.0, line=BudgetLine("north", "image", OTHER)))
    first, second = (EXTENDED, declared) if extended_first else (declared, EXTENDED)
    spend(ledger, "first", account=first, repetitions=6)
    with pytest.raises(BudgetExceededError):
        ledger.reserve(second, charge("second", repetitions=6))


def test_data_sets_that_are_both_declared_do_not_count_for_each_other(path, ledger):
    for fingerprint, account in ((OTHER, Account("north", OTHER, "image")), (EXTENDED.fingerprint, EXTENDED)):
        ledger.renew(renewal(epsilon=3.0, line=BudgetLine("north", "image", fingerprint)))
        spend(ledger, fingerprint, account=account, repetitions=6)
        assert ledger.status(account).spent == upper_epsilon([Repeated(NOISE, 6)], 1e-5)
    assert ledger.status(ACCOUNT).remaining == 0
    assert count_agreeing(path, {}) == 0  # within the limits of both: what others paid for does not overspend a line


# units


def of_units(*units, epsilon=3.0):
    return Policy({line: budget for unit in units for line, budget in policy(epsilon, unit).budgets.items()})


@pytest.mark.parametrize(
    ("coarse", "fine"), [("patient", "image"), ("hospital", "image"), ("hospital", "patient")], ids=str
)
def test_what_is_released_at_a_coarser_unit_counts_for_the_finer_ones(path, coarse, fine):
    """Without one image a patient's contribution is another one: at image level it has been replaced."""
    with Ledger(path) as ledger:
        ledger.install(of_units(fine, coarse))
        spend(ledger, "coarse", Account("north", FINGERPRINT, coarse), mechanism=Gaussian(4.0))
        status = ledger.status(Account("north", FINGERPRINT, fine))
        assert status.spent == upper_epsilon([Repeated(Gaussian(2.0))], 1e-5)
        fits = charge("fine", Gaussian(2.0))
        with pytest.raises(BudgetExceededError) as caught:
            ledger.reserve(Account("north", FINGERPRINT, fine), charge("too much", Gaussian(1.8)))
        assert caught.value.epsilon > 3
        ledger.reserve(Account("north", FINGERPRINT, fine), fits)


def test_a_release_that_a_finer_budget_does_not_bear_is_refused(path):
    patient = Account("north", FINGERPRINT, "patient")
    with Ledger(path) as ledger:
        ledger.install(of_units("image", "patient"))
        with pytest.raises(
            BudgetExceededError, match=r"\(image level\) is 3 .*at patient level.*every image"
        ) as caught:
            ledger.reserve(patient, charge("patients", Gaussian(2.0)))
        assert (caught.value.unit, ledger.charges(), len(ledger.entries("refused"))) == ("image", (), 1)
        spend(ledger, "images", mechanism=Gaussian(2.0))
        assert ledger.status(patient).spent == 0  # what is released about images says nothing of whole patients
        assert ledger.status(patient).remaining == ledger.status(ACCOUNT).remaining < 1.1
        with pytest.raises(BudgetExceededError):
            ledger.reserve(patient, charge("small", Gaussian(3.5)))


def test_sampled_releases_of_two_units_compose(path):
    step = SampledGaussian(4.0, 0.1)
    with Ledger(path) as ledger:
        ledger.install(of_units("image", "patient"))
        spend(ledger, "patients", Account("north", FINGERPRINT, "patient"), mechanism=step, repetitions=50)
        alone = ledger.status(ACCOUNT).spent
        assert alone == upper_epsilon([Repeated(step, 50)], 1e-5, Adjacency.REPLACE_ONE)
        spend(ledger, "images", mechanism=step, repetitions=50)
        assert alone < ledger.status(ACCOUNT).spent < upper_epsilon([Repeated(step, 100)], 1e-5, Adjacency.REPLACE_ONE)


def test_where_replacing_is_the_relation_a_coarser_release_costs_the_same(path):
    budgets = {
        line: replace(b, adjacency=Adjacency.REPLACE_ONE) for line, b in of_units("image", "patient").budgets.items()
    }
    with Ledger(path) as ledger:
        ledger.install(Policy(budgets))
        spend(ledger, "patients", Account("north", FINGERPRINT, "patient"), mechanism=Gaussian(4.0))
        assert ledger.status(ACCOUNT).spent == upper_epsilon([Repeated(Gaussian(2.0))], 1e-5)


@pytest.mark.parametrize("encoded", [b"", b"{}", renewal().encode()[:-3], renewal().encode().replace(b"/1", b"/2")])
def test_damaged_renewals_raise_the_one_error(encoded):
    with pytest.raises(EvidenceError):
        SignedRenewal.decode(encoded)


# policies


# the file


def test_a_ledger_goes_on_where_it_was(path, ledger):
    spend(ledger, "first")
    with Ledger(path) as again:
        assert again.digest == ledger.digest
        spend(again, "second")
    assert len(ledger.status(ACCOUNT).charges) == 2
    assert {spent.account for spent in ledger.charges()} == {ACCOUNT}
    assert [spent.charge.release_id for spent in ledger.charges("r1")] == ["first", "second"]
    assert ledger.charges("r2") == ()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE entries SET line = CAST(replace(line, '\"repetitions\":1', '\"repetitions\":2') AS BLOB) WHERE seq = 1",
        "DELETE FROM entries WHERE seq = 1",
        "UPDATE entries SET line = x'00' WHERE seq = 0",
        "UPDATE entries SET seq = 9 WHERE seq = 3",
    ],
)
def test_a_changed_ledger_is_refused(path, ledger, damage):
    spend(ledger, "first")
    connection = sqlite3.connect(path)
    connection.execute(damage)
    connection.commit()
    connection.close()
    with pytest.raises(EvidenceError):
        Ledger(path)


def test_what_is_no_ledger_is_named(tmp_path):
    (tmp_path / "text.db").write_text("this is no database, and long enough to be told from an empty one" * 20)
    with pytest.raises(LedgerError, match="no ledger"):
        Ledger(tmp_path / "text.db")
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path / "nowhere" / "ledger.db")


# ledger and log


def test_every_error_has_an_exit_code():
    assert issubclass(LedgerError, AuditError)
    assert (LedgerError.exit_code, BudgetExceededError.exit_code, EvidenceError.exit_code) == (1, 4, 3)


def test_what_a_run_would_cost_is_foreseen_without_a_charge(ledger):
    whole = charge("run/1 to 5", repetitions=5)
    assert ledger.foresee(ACCOUNT, whole) <= 3.0
    assert ledger.charges() == ()
    with pytest.raises(BudgetExceededError):
        ledger.foresee(ACCOUNT, charge("run/1 to 50", repetitions=50))
    assert ledger.charges() == ()
    assert len(ledger.entries("refused")) == 1
