"""What a report says was spent and is left is what its log, or the ledger beside it, shows: no more, and of then."""

import pytest

from audit.accounting import Adjacency
from audit.bounds import at_least, at_most
from audit.ledger import Account, Budget, BudgetLine, Charge, Ledger, Policy, charged_release
from audit.report import build_report, render_markdown
from tests.audit.ledger.money import FINGERPRINT, SIGNER
from tests.audit.report.pages import edited
from tests.audit.runs import STEP, STEPS, Run

NORTH = Account("north", FINGERPRINT, "image")


@pytest.fixture
def ledger(tmp_path):
    """A budget of epsilon 8 for the images of north, of which a run before has spent some."""
    signer = SIGNER.public_key().public_bytes_raw().hex()
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        opened.install(Policy({BudgetLine("north", "image"): Budget(8.0, 1e-5, Adjacency.ADD_OR_REMOVE_ONE, signer)}))
        opened.reserve(NORTH, Charge("r0", "r0/1/m/north", STEP, STEPS))
        yield opened


@pytest.fixture
def charged_run(tmp_path, ledger):
    """A finished run of two rounds that north paid for from its budget, and the others from none."""
    run = Run(tmp_path / "run", rounds=0, private=True)
    for number in (1, 2):
        paid = Charge("r1", f"r1/{number}/m/north", STEP, STEPS)
        charged_release(ledger, run.log, NORTH, paid, lambda: None, round=number, privacy_event=False)
        run.round(number)
    return run.complete(2)


def sentences(report):
    return {entry["name"]: entry["sentence"] for entry in report["hospitals"]}


def test_what_the_log_says_was_spent_and_left_is_that_of_the_last_charge(charged_run, ledger):
    report = build_report(charged_run)
    (north, south, _) = report["hospitals"]
    spent, stated = north["epsilon_after"], sentences(report)
    exact = ledger.status(NORTH).spent
    assert exact <= spent < 8
    words = stated["north"].partition(" Its budget over all runs is epsilon 8 at delta 1e-05 (add-or-remove-one). ")[2]
    left = at_least(8 - spent)
    assert words == f"After this run's last charge at most {at_most(spent)} of it was spent and at least {left} left."
    assert south["budget"] is None
    assert "budget" not in stated["south"]
    ledger.reserve(NORTH, Charge("r2", "r2/1/m/north", STEP, 100 * STEPS))
    assert ledger.status(NORTH).spent > spent
    assert build_report(charged_run) == report
    page = render_markdown(report)
    assert "| epsilon of this run | after this run's last charge, at most |" in page
    assert "What is charged later is not in it; securefed audit ledger show LEDGER says" in page
    assert "over all runs, at most" not in page


def test_what_is_left_of_a_coarse_budget_is_not_said_to_be_left_of_finer_ones(charged_run):
    edited(charged_run, "privacy_claim", lambda fields: fields.update(unit="patient"))
    assert sentences(build_report(charged_run))["north"].endswith(" left, unless budgets of finer units left less.")


def test_a_log_that_does_not_say_what_was_spent_leaves_it_open(charged_run):
    edited(charged_run, "charge", lambda fields: fields.pop("epsilon_after", None))
    assert sentences(build_report(charged_run))["north"].endswith(" is epsilon 8 at delta 1e-05 (add-or-remove-one).")


def test_of_ledgers_elsewhere_the_report_says_what_compares_them(private_run):
    edited(private_run, "run_started", lambda fields: fields.update(operation="deployment"))
    (budget,) = [line for line in build_report(private_run)["verdicts"] if line["subject"] == "Privacy budget"]
    assert budget["verdict"] == "NOT CLAIMED"
    assert "by securefed audit verify RUN --ledger LEDGER." in budget["sentence"]
