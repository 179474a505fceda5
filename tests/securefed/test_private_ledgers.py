"""Private runs and their ledgers: what is charged, when, and to which."""

import json
import shutil

import pytest

from audit.accounting import upper_epsilon
from audit.ledger import Account, BudgetExceededError, Charge, Ledger, LedgerError
from audit.log import EventLog
from audit.verify import verify_run
from securefed.config import PrivacyConfig
from securefed.errors import ConfigError, ReleaseGoneError
from securefed.privacy.mechanism import local_cost
from securefed.privacy.spending import Spending
from securefed.simulation import resume_run
from tests.audit.ledger.money import stopped_after_reserving
from tests.securefed.private_runs import LOCAL, SITES, budgets, events_of, run


def test_a_ledger_is_charged_over_runs_and_stops_the_second(small_run, tmp_path):
    path = tmp_path / "ledger.sqlite"
    budgets(path, 9.0)
    config = small_run(privacy={**LOCAL, "ledger": str(path)})
    first = run(config, tmp_path, "first")
    with Ledger(path) as ledger:
        charges = ledger.charges()
        assert len(charges) == 3 * len(SITES)
        assert {spent.state for spent in charges} == {"committed"}
    assert verify_run(first.folder.path, ledger=path).is_verified
    report = json.loads((first.folder.path / "report.json").read_text(encoding="utf-8"))
    budget = "epsilon 9 at delta 1e-05 (add-or-remove-one)"
    for entry in report["hospitals"]:
        assert f" Its budget over all runs is {budget}. After this run's last charge at most " in entry["sentence"]
    assert f"| {budget} |" in (first.folder.path / "report.md").read_text(encoding="utf-8")
    with pytest.raises(BudgetExceededError) as refused:
        run(config, tmp_path, "second")
    assert refused.value.exit_code == 4
    assert events_of(tmp_path / "second", "refused")


@pytest.mark.parametrize("name", ["run", "r" * 200])
def test_runs_of_one_name_pay_for_themselves_in_a_shared_ledger(small_run, tmp_path, name):
    """In another parent folder, or in place of one that was deleted: what the first has paid is not the second's."""
    path = tmp_path / "ledger.sqlite"
    budgets(path, 20.0)
    config = small_run(privacy={**LOCAL, "ledger": str(path)})
    for parent in ("one", "two"):
        (tmp_path / parent).mkdir()
        run(config, tmp_path / parent, name)
    shutil.rmtree(tmp_path / "two" / name)
    run(config, tmp_path / "two", name)
    with Ledger(path) as ledger:
        charges = ledger.charges()
        spent = ledger.status(Account("site0", charges[0].account.fingerprint, "image")).spent
    assert len(charges) == 3 * 3 * len(SITES)
    assert len({charge.charge.run_id for charge in charges}) == 3
    assert spent > 8 * 1.5
    for parent in ("one", "two"):
        assert verify_run(tmp_path / parent / name, ledger=path).is_verified


def test_a_crash_between_the_ledger_and_the_log_is_paid_once(small_run, tmp_path, monkeypatch):
    """The charge that the log never got was made by this run and nothing has left on it: it pays for the release."""
    path = tmp_path / "ledger.sqlite"
    budgets(path, 8.0)
    calls = stopped_after_reserving(monkeypatch, len(SITES) + 2)
    with pytest.raises(KeyboardInterrupt):
        run(small_run(privacy={**LOCAL, "ledger": str(path)}), tmp_path)
    resume_run(tmp_path / "run", cache_dir=tmp_path / "cache")
    assert len(calls) == len(set(calls)) == 3 * len(SITES)
    assert verify_run(tmp_path / "run", ledger=path).is_verified


def cut_after_round_1(config, tmp_path, monkeypatch):
    """Begin a run and stop it when the ledger has been charged for round 2."""
    with monkeypatch.context() as patched:
        stopped_after_reserving(patched, 2 * len(SITES))
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path)


def test_a_run_that_is_resumed_elsewhere_is_charged_to_the_same_ledger(small_run, tmp_path, monkeypatch):
    path = tmp_path / "ledger.sqlite"
    budgets(path, 8.0)
    (tmp_path / "elsewhere").mkdir()
    budgets(tmp_path / "elsewhere" / "ledger.sqlite", 8.0)
    monkeypatch.chdir(tmp_path)
    cut_after_round_1(small_run(privacy={**LOCAL, "ledger": "ledger.sqlite"}), tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path / "elsewhere")
    resume_run(tmp_path / "run", cache_dir=tmp_path / "cache")
    with Ledger.existing(path) as ledger:
        assert len(ledger.charges()) == 3 * len(SITES)
    with Ledger.existing(tmp_path / "elsewhere" / "ledger.sqlite") as ledger:
        assert ledger.charges() == ()


def test_a_run_does_not_go_on_with_another_ledger(small_run, tmp_path, monkeypatch):
    path = tmp_path / "ledger.sqlite"
    budgets(path, 8.0)
    cut_after_round_1(small_run(privacy={**LOCAL, "ledger": str(path)}), tmp_path, monkeypatch)
    kept = path.rename(tmp_path / "kept.sqlite")
    with pytest.raises(LedgerError, match="ledger of this run is not there; put it back"):
        resume_run(tmp_path / "run", cache_dir=tmp_path / "cache")
    assert not path.exists()
    budgets(path, 8.0)
    with pytest.raises(LedgerError, match=r"lacks the charge .* another ledger .* Put that one there"):
        resume_run(tmp_path / "run", cache_dir=tmp_path / "cache")
    with Ledger.existing(path) as ledger:
        assert ledger.charges() == ()
    kept.replace(path)
    resume_run(tmp_path / "run", cache_dir=tmp_path / "cache")
    assert verify_run(tmp_path / "run", ledger=path).is_verified


def test_a_ledger_that_is_misspelt_leaves_nothing_behind(small_run, tmp_path):
    path = tmp_path / "typo.sqlite"
    with pytest.raises(ConfigError, match=f"there is no ledger {path}; check the path, or make it"):
        run(small_run(privacy={**LOCAL, "ledger": str(path)}), tmp_path)
    assert not path.exists()
    assert not (tmp_path / "run").exists()


def test_what_another_process_has_released_is_no_payment(tmp_path):
    """An entry that left the ledger and is not in the log of this run was made by somebody else."""
    path = tmp_path / "ledger.sqlite"
    budgets(path, 8.0)
    privacy = PrivacyConfig(mode="local", epsilon=8.0, ledger=str(path))
    cost = local_cost(privacy, 3)
    with Ledger(path) as ledger, EventLog.create(tmp_path / "log", {"run_id": "r", "operation": "simulation"}) as log:
        spending = Spending(log, "r", privacy, cost, {"site0": "ab" * 32}, ledger)
        name = spending.release_id("site0", 1, "cd" * 32)
        ledger.reserve(Account("site0", "ab" * 32, "image"), Charge("r", name, cost.mechanism))
        ledger.release(name)
        with pytest.raises(ReleaseGoneError):
            spending.release("site0", 1, name, lambda: pytest.fail("made"))


def test_rounds_in_which_a_hospital_was_not_are_none_of_those_that_are_left(tmp_path):
    """Its budget bears two of four rounds: it was lost in two, and the last two are what is to come."""
    path = tmp_path / "ledger.sqlite"
    privacy = PrivacyConfig(mode="local", epsilon=8.0, ledger=str(path))
    cost = local_cost(privacy, 4)
    budgets(path, upper_epsilon(cost.of_rounds(2), 1e-5))
    with Ledger(path) as ledger, EventLog.create(tmp_path / "log", {"run_id": "r", "operation": "simulation"}) as log:
        spending = Spending(log, "r", privacy, cost, {"site0": "ab" * 32}, ledger, planned=4)
        with pytest.raises(BudgetExceededError):
            spending.check_run(4)
        spending.check_run(4, finished=2)
        for number in (3, 4):
            spending.charge("site0", number, spending.release_id("site0", number, "cd" * 32))
            spending.check_run(4, finished=2)
        spending.check_run(4)


def test_how_many_rounds_a_target_bears_is_not_searched_for_where_it_bears_all(tmp_path, monkeypatch):
    """At a rate of 1e-6 the search, up to millions of rounds, takes minutes."""
    monkeypatch.setattr("securefed.privacy.mechanism.affordable_steps", lambda *_, **__: pytest.fail("searched"))
    privacy = PrivacyConfig(mode="local", epsilon=8.0, noise_multiplier=1.0, sampling_rate=1e-6)
    with EventLog.create(tmp_path / "log", {"run_id": "r", "operation": "simulation"}) as log:
        spending = Spending(log, "r", privacy, local_cost(privacy, 3), {"site0": "ab" * 32}, None, planned=3)
        for number in range(1, 4):
            spending.check_round(number)
            spending.announce("site0", number, spending.release_id("site0", number, "cd" * 32))
    assert spending.borne(3) == 3
