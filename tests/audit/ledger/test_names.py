"""Names of runs and releases in ledgers: told apart, within the length of a name, nothing cut off."""

import pytest

from audit.ledger import LedgerError, release_name, run_in_ledgers
from audit.rules import NAME
from tests.audit.ledger.money import ACCOUNT, charge, policy


def test_runs_of_one_name_are_told_apart_by_their_mark_and_those_of_one_mark_by_their_name():
    names = [run_in_ledgers(name, mark) for name in ("run", "r" * 199, "r" * 200) for mark in ("ab" * 32, "cd" * 32)]
    assert len(set(names)) == 6
    assert names[0].startswith("run.")
    assert names[0] == run_in_ledgers("run", "ab" * 32)


def test_the_longest_names_fit_and_stay_apart():
    run = run_in_ledgers("r" * 200, "ab" * 32)
    releases = {
        release_name(run, number, what, hospital)
        for number in (1, 2**32, f"{2**32} to {2**32}")
        for what in ("ab" * 8, "vector 1", "vector 1000000")
        for hospital in ("h" * 199, "h" * 200, "north")
    }
    assert len(releases) == 27
    for release in releases:
        NAME.check(release, "release_id")
        assert len(release.split("/")) == 4


def test_a_release_that_another_run_has_charged_is_refused_by_that_runs_name(tmp_path):
    from audit.ledger import Ledger

    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.install(policy())
        ledger.reserve(ACCOUNT, charge("one", run_id="first"))
        with pytest.raises(LedgerError, match=r"charged before by the run 'first'.*folder of its own"):
            ledger.reserve(ACCOUNT, charge("one", run_id="second"))
