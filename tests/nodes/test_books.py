"""The books of a hospital in a private study: looked at while they are written, held by others, begun and lost."""

import os
import sqlite3
import threading

import numpy as np
import pytest
from site_trial import Folders, call

from audit.ledger import Ledger
from audit.log import EventLog
from securefed.site.checks import Level, _budget, _charges
from securefed.site.folder import SiteFolder
from securefed.site.settings import read_settings
from securefed.study.terms import terms_of
from tests.nodes.private_trial import LOCAL, PrivateTrial, hello

pytestmark = pytest.mark.usefixtures("no_replay")

SHARES = {"privacy__mode": "distributed", "privacy__epsilon": 8.0, "training__fam_width": 4}


def log_path(trial, name):
    (path,) = (trial.path(name) / "privacy").glob("*/audit.jsonl")
    return path


@pytest.mark.parametrize("settings", [LOCAL, SHARES], ids=["local", "distributed"])
def test_a_check_of_a_hospital_and_its_node_keep_each_other_from_nothing(tmp_path, monkeypatch, settings):
    """Accounting takes seconds: a node that found log or ledger locked meanwhile would be lost in its round."""
    trial = PrivateTrial(tmp_path, **settings)
    with Folders(trial) as folders:
        hello(trial, folders)
    log, looked = log_path(trial, "west"), []
    charges = Ledger.charges

    def charged_meanwhile(self, run_id=None):
        EventLog.open(log).close()
        writer = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        writer.close()
        looked.append(self.path)
        return charges(self, run_id)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "charges", charged_meanwhile)
        call("site", "check", trial.path("west"), "--study", tmp_path / "study.toml")
    assert looked
    with EventLog.open(log):
        said = call("site", "check", trial.path("west"), "--study", tmp_path / "study.toml").output
    assert "is being written by another process" not in said


def test_a_node_waits_for_who_holds_its_private_log(tmp_path):
    trial = PrivateTrial(tmp_path, **LOCAL)
    with Folders(trial) as folders:
        hello(trial, folders)
        holding = EventLog.open(log_path(trial, "west"))
        letting_go = threading.Timer(0.5, holding.close)
        letting_go.start()
        hello(trial, folders)
        letting_go.join()


def test_a_ledger_that_cannot_be_written_is_found_though_it_can_be_read(tmp_path, monkeypatch):
    trial = PrivateTrial(tmp_path, **LOCAL)
    folder, access = SiteFolder(trial.path("west")), os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: path != folder.ledger and access(path, mode, **more))
    found = _budget(folder, read_settings(folder.settings), trial.study)
    assert (found.level, found.text) == (
        Level.WRONG,
        f"{folder.ledger} cannot be written: nothing can be charged; let the node's user write it",
    )


def test_a_charge_between_the_readings_of_log_and_ledger_is_no_difference(tmp_path, monkeypatch):
    """The log is read first; what the node charges then stands in the ledger alone, as far as the check knows."""
    trial = PrivateTrial(tmp_path, **LOCAL)
    with Folders(trial) as folders:
        hello(trial, folders)
        hospital, first = folders.nodes["west"].node._trainer, terms_of(trial.study).initial_vector
        hospital.train(first, 1)
        reading, late = Ledger.reading, [first + np.float32(1e-3)]

        def charged(path):
            if late:
                hospital.train(late.pop(), 1)
            return reading(path)

        with monkeypatch.context() as patch:
            patch.setattr("audit.ledger.check.Ledger.reading", charged)
            (found,) = _charges(SiteFolder(trial.path("west")))
    assert (found.level, late) == (Level.OK, [])
    assert found.text.startswith("2 charges of 1 logs agree")
