"""Reports of the runs of tests/audit/conftest.py."""

import pytest

from audit.accounting import Adjacency
from audit.ledger import Budget, BudgetLine, Charge, Ledger, Policy, charged_release, run_of_log
from audit.report import (
    build_report,
)
from tests.audit.ledger.money import ACCOUNT, SIGNER
from tests.audit.runs import STEP, STEPS, Run


@pytest.fixture
def private_report(private_run):
    return build_report(private_run)


@pytest.fixture
def report(complete_run):
    return build_report(complete_run)


@pytest.fixture
def ledger(tmp_path):
    """A budget of epsilon 8 for the images of north, of which a run before has spent some."""
    signer = SIGNER.public_key().public_bytes_raw().hex()
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        opened.install(Policy({BudgetLine("north", "image"): Budget(8.0, 1e-5, Adjacency.ADD_OR_REMOVE_ONE, signer)}))
        opened.reserve(ACCOUNT, Charge("r0", "r0/1/m/north", STEP, STEPS))
        yield opened


@pytest.fixture
def charged_run(tmp_path, ledger):
    """A finished run of two rounds that north paid for from its budget, and the others from none."""
    run = Run(tmp_path / "run", rounds=0, private=True)
    for number in (1, 2):
        paid = Charge(run_of_log(run.log.events), f"r1/{number}/m/north", STEP, STEPS)
        charged_release(ledger, run.log, ACCOUNT, paid, lambda: None, round=number, privacy_event=False)
        run.round(number)
    return run.complete(2)
