"""A ledger as it is shown: what was spent and left, and every entry in words."""

import json
import tomllib

import pytest

from audit.accounting import Gaussian, Repeated, Unknown, upper_epsilon
from audit.ledger import (
    Account,
    BudgetExceededError,
    BudgetLine,
    Ledger,
    LedgerError,
    Policy,
    Renewal,
    budget_lines,
    history,
    policy_toml,
)
from tests.audit.ledger.money import ACCOUNT, LINE, NOISE, SIGNER, charge, policy

OTHER = "cd" * 32


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as opened:
        opened.install(policy())
        opened.reserve(ACCOUNT, charge("one", repetitions=3))
        opened.release("one")
        opened.commit("one")
        with pytest.raises(BudgetExceededError):
            opened.reserve(ACCOUNT, charge("two", Gaussian(0.1)))
        opened.renew(Renewal(LINE, 1, 6.0, "second study").sign(SIGNER))
        opened.reserve(Account("north", OTHER, "image"), charge("three"))
        yield opened


def test_a_line_says_what_was_spent_and_what_is_left(ledger):
    (line,) = budget_lines(ledger)
    spent = upper_epsilon([Repeated(NOISE, 4)], 1e-5)
    assert (line["hospital"], line["unit"], line["data"], line["budget"]) == ("north", "image", None, 6.0)
    assert line["spent"] == spent
    assert line["remaining"] == 6.0 - spent
    assert (line["charges"], line["unfinished"], line["refused"], line["renewals"]) == (2, 1, 1, 1)


def test_a_data_set_with_its_own_line_is_shown_apart(ledger):
    ledger.renew(Renewal(BudgetLine("north", "image", OTHER), 1, 2.0, "disjoint patients").sign(SIGNER))
    common, own = budget_lines(ledger)
    assert (common["data"], own["data"]) == (None, OTHER)
    assert own["spent"] == upper_epsilon([Repeated(NOISE, 1)], 1e-5)
    with pytest.raises(BudgetExceededError):
        ledger.reserve(Account("north", OTHER, "image"), charge("four", Unknown("in clear")))
    assert [line["refused"] for line in budget_lines(ledger)] == [1, 1]


def test_the_history_tells_every_entry_in_order(ledger):
    entries = history(ledger)
    kinds = ["policy", "reserved", "released", "committed", "refused", "renewed", "reserved"]
    assert [entry["kind"] for entry in entries] == kinds
    assert {entry["hospital"] for entry in entries} == {"north"}
    assert [entry["release_id"] for entry in entries] == [None, "one", "one", "one", "two", None, "three"]
    assert entries[0]["budget"] == 3.0
    assert entries[4]["budget"] == 3.0
    assert entries[4]["epsilon"] > 3
    assert (entries[5]["budget"], entries[5]["reason"]) == (6.0, "second study")
    assert {entry["run_id"] for entry in entries[1:5]} == {"r1"}
    json.dumps(entries)


def test_the_printed_policy_is_the_installed_one(ledger, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(policy_toml(ledger))
    assert Policy.read(path) == policy()
    assert tomllib.loads(path.read_text())["format"] == "securefed-budget-policy/1"


def test_a_ledger_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(LedgerError, match="does not exist"):
        Ledger.existing(tmp_path / "typo.db")
    assert not (tmp_path / "typo.db").exists()
