"""What a report says was spent and is left is what its log, or the ledger beside it, shows: no more, and of then."""

import pytest

from audit.accounting import Adjacency
from audit.bounds import at_least, at_most
from audit.errors import LogWriteError
from audit.ledger import Budget, BudgetLine, Charge, Ledger, Policy, budget_lines
from audit.report import build_report, render_markdown, write_report
from tests.audit.ledger.money import ACCOUNT, FINGERPRINT
from tests.audit.report.pages import edited
from tests.audit.runs import STEP, STEPS, key_of


def sentences(report):
    return {entry["name"]: entry["sentence"] for entry in report["hospitals"]}


def test_what_the_log_says_was_spent_and_left_is_that_of_the_last_charge(charged_run, ledger):
    report = build_report(charged_run)
    (north, south, _) = report["hospitals"]
    spent, stated = north["epsilon_after"], sentences(report)
    exact = ledger.status(ACCOUNT).spent
    assert exact <= spent < 8
    words = stated["north"].partition(" Its budget over all runs is epsilon 8 at delta 1e-05 (add-or-remove-one). ")[2]
    left = at_least(8 - spent)
    assert words == f"After this run's last charge at most {at_most(spent)} of it was spent and at least {left} left."
    assert south["budget"] is None
    assert "budget" not in stated["south"]
    ledger.reserve(ACCOUNT, Charge("r2", "r2/1/m/north", STEP, 100 * STEPS))
    assert ledger.status(ACCOUNT).spent > spent
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


def test_with_the_ledger_the_report_says_where_it_stands_and_of_when_that_is(charged_run, ledger):
    ledger.reserve(ACCOUNT, Charge("r2", "r2/1/m/north", STEP, STEPS))
    report = build_report(charged_run, ledger=ledger.path)
    (line,) = budget_lines(ledger)
    spent, left, last = line["spent"], line["remaining"], ledger.entries()[-1]
    north = report["hospitals"][0]
    assert north["in_ledger"].items() >= {"spent": spent, "remaining": left, "runs": 3, "charges": 4}.items()
    assert report["ledger"] == {"entries": last["seq"] + 1, "time": last["time"], "digest": ledger.digest}
    stands = f"at most {at_most(spent)} is spent and at least {at_least(left)} left."
    assert f"by its ledger as of entry {last['seq']} ({last['time'][:10]} " in north["sentence"]
    assert north["sentence"].endswith(f" UTC) {stands}")
    assert "in_ledger" not in report["hospitals"][1]
    page = render_markdown(report)
    assert ledger.digest in page
    assert FINGERPRINT not in page.partition("Budgets in the ledger")[2]
    assert "Made from the files of the run and a ledger alone;" in page
    assert build_report(charged_run, ledger=ledger.path) == report
    assert "in_ledger" not in build_report(charged_run)["hospitals"][0]


def test_of_a_ledger_that_tells_otherwise_or_nothing_of_the_run_nothing_is_taken_over(
    charged_run, tmp_path, private_run
):
    with Ledger(tmp_path / "other.sqlite") as other:
        other.install(Policy({BudgetLine("north", "image"): Budget(8.0, 1e-5, Adjacency.REPLACE_ONE, "ab" * 32)}))
    report = build_report(charged_run, ledger=tmp_path / "other.sqlite")
    assert report["verdicts"][0]["verdict"] == "FAIL"
    assert "the ledger knows no charge" in report["verdicts"][0]["sentence"]
    unknown = build_report(private_run, ledger=tmp_path / "other.sqlite")
    assert {check["name"]: check["outcome"] for check in unknown["identity"]["checks"]}["ledger"] == "ABSENT"
    for found in (report, unknown):
        assert "ledger" not in found
        assert not any("in_ledger" in entry for entry in found["hospitals"])
        assert "files of the run alone" in render_markdown(found)


def test_a_signed_report_is_not_replaced_by_one_with_a_ledger(charged_run, ledger, tmp_path):
    key = tmp_path / "server.key"
    key.write_bytes(key_of("server").private_bytes_raw())
    key.chmod(0o600)
    write_report(charged_run, key=key)
    with pytest.raises(LogWriteError, match="is signed, and would become another one"):
        write_report(charged_run, ledger=ledger.path)
    report, paths = write_report(charged_run, ledger=ledger.path, output=tmp_path / "mine")
    assert report["hospitals"][0]["in_ledger"]["remaining"] > 0
    assert paths["html"].is_file()


def test_of_ledgers_elsewhere_the_report_says_what_compares_them(private_run):
    edited(private_run, "run_started", lambda fields: fields.update(operation="deployment"))
    (budget,) = [line for line in build_report(private_run)["verdicts"] if line["subject"] == "Privacy budget"]
    assert budget["verdict"] == "NOT CLAIMED"
    assert "by securefed audit verify RUN --ledger LEDGER." in budget["sentence"]
