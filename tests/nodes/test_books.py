"""The books of a hospital in a private study: looked at while they are written, held by others, begun and lost."""

import errno
import json
import os
import shutil
import sqlite3
import threading

import numpy as np
import pytest
from deployed import KilledError
from site_trial import Folders, FolderWire, Trial, call

from audit.durable import append_line
from audit.ledger import Ledger, LedgerError
from audit.log import EventLog, read_events
from securefed.deploy.errors import DeploymentError
from securefed.errors import RoundAbortedError
from securefed.nodes.control import RefusedBySiteError, encode_refusal
from securefed.nodes.numbering import training_round
from securefed.nodes.owed import is_owed
from securefed.site.checks import Level, _budget, _charges
from securefed.site.folder import SiteFolder
from securefed.site.opening import open_site
from securefed.site.settings import read_settings
from securefed.study.terms import terms_of
from tests.nodes.private_trial import LOCAL, PrivateTrial, hello, of_kind, verified

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
            (found,) = _charges(SiteFolder(trial.path("west")), "west")
    assert (found.level, late) == (Level.OK, [])
    assert found.text.startswith("2 charges of 1 logs agree")


@pytest.mark.parametrize("settings", [LOCAL, {**SHARES, "privacy__spare_rounds": 2}], ids=["local", "distributed"])
def test_a_ledger_that_cannot_be_written_for_a_while_is_no_spent_budget_and_its_path_stays(
    tmp_path, monkeypatch, caplog, settings
):
    trial, closed = PrivateTrial(tmp_path, **settings), set()
    transaction = Ledger._transaction

    def refuse(self):
        if self.path in closed:
            raise LedgerError(self.path, "cannot be written (attempt to write a readonly database)")
        return transaction(self)

    def close(way, stage, site, round_id, frame):
        if (way, stage, training_round(round_id)) == ("down", "AdvertiseKeys", 2):
            closed.update(trial.path(name) / "ledger.sqlite" for name in ("east", "west"))
        return [frame]

    monkeypatch.setattr(Ledger, "_transaction", refuse)
    with Folders(trial) as folders:
        wire = FolderWire(folders)
        wire.change.append(close)
        with pytest.raises(RoundAbortedError, match="bring the lost sites back and go on with"):
            trial.serve("run", wire)
        with pytest.raises(DeploymentError, match="east: ledger: the ledger or a log of this site cannot be used; its"):
            trial.serve("run", reopened(folders))
        closed.clear()
        trial.serve("run", reopened(folders))
    refused = of_kind(read_events(tmp_path / "run" / "audit.jsonl"), "refused")
    assert {(e.fields["hospital"], e.fields["what"]) for e in refused} == {("east", "ledger"), ("west", "ledger")}
    assert str(trial.path("west").parent) not in (tmp_path / "run" / "audit.jsonl").read_text()
    assert f"{trial.path('west')}/ledger.sqlite: cannot be written" in caplog.text
    verified(trial, "run")


def reopened(folders):
    """The nodes start anew, and so has everybody to say Hello again."""
    for name, node in folders.nodes.items():
        node.close()
        folders.nodes[name] = open_site(folders.trial.path(name))
    return FolderWire(folders)


def test_who_could_not_pay_in_an_earlier_round_is_not_named_for_the_loss_of_others(tmp_path):
    trial = Trial(tmp_path)

    def change(way, stage, site, round_id, frame):
        number = training_round(round_id)
        if number == 2 and site in ("north", "south"):
            raise KilledError
        if (way, stage, number) == ("up", "CloseRound", 1) and site in ("east", "west"):
            return [encode_refusal("budget", "for once")]
        return [frame]

    with Folders(trial) as folders:
        wire = FolderWire(folders)
        wire.change.append(change)
        with pytest.raises(RoundAbortedError, match="bring the lost sites back and go on with") as caught:
            trial.serve("run", wire)
    assert caught.value.unpaid == ()


def test_a_hospital_that_is_in_no_run_says_so_and_nothing_of_its_budget(tmp_path):
    """Its Hello is lost, it is asked for its update all the same."""
    trial = PrivateTrial(tmp_path, **LOCAL)

    def lose(way, stage, site, round_id, frame):
        if (stage, site) == ("Hello", "west"):
            raise KilledError
        return [frame]

    with Folders(trial) as folders:
        wire = FolderWire(folders)
        wire.change.append(lose)
        trial.serve("run", wire)
    refused = of_kind(read_events(tmp_path / "run" / "audit.jsonl"), "refused")
    said = {e.fields["what"]: e.fields["reason"] for e in refused if e.fields["hospital"] == "west"}
    assert said["release"] == "west has agreed to no run: it releases nothing before the server has said Hello"
    assert "budget" not in said
    assert trial.charges("west") == ()


@pytest.mark.parametrize("left", [b"", b'{"kind":"run_sta'], ids=["empty", "half a line"])
def test_a_node_that_was_killed_as_it_began_its_private_log_begins_it_again(tmp_path, left):
    trial = PrivateTrial(tmp_path, **LOCAL)
    log = trial.path("west") / "privacy" / trial.study.digest[:16] / "audit.jsonl"
    for folder in (log.parent.parent, log.parent):
        folder.mkdir(mode=0o700)
    log.write_bytes(left)
    said = call("site", "check", trial.path("west"), "--study", tmp_path / "study.toml").output
    assert "differ" not in said
    assert log.read_bytes() == left
    with Folders(trial) as folders:
        trial.serve("run", FolderWire(folders))
    assert len(trial.charges("west")) == 2
    verified(trial, "run", ledger=trial.path("west") / "ledger.sqlite")


@pytest.mark.parametrize("lost", [False, True], ids=["emptied", "lost"])
def test_a_private_log_that_is_empty_or_gone_is_not_taken_for_a_new_one(tmp_path, caplog, lost):
    """The ledger has charges of the study: what was released stood in the log alone."""
    trial = PrivateTrial(tmp_path, **LOCAL)
    with Folders(trial) as folders:
        hello(trial, folders)
        folders.nodes["west"].node._trainer.train(terms_of(trial.study).initial_vector, 1)
        log = log_path(trial, "west")
        log.write_bytes(b"")
        if lost:
            log.unlink()
        with pytest.raises(RefusedBySiteError, match="ledger: the ledger or a log of this site cannot be used"):
            hello(trial, folders)
    assert "holds charges of the run run." in caplog.text
    said = call("site", "check", trial.path("west"), "--study", tmp_path / "study.toml", code=1).output
    assert "Put the log back as it was" in " ".join(said.split())
    assert log.exists() != lost


def test_a_disk_that_is_full_as_a_head_is_kept_is_said_by_name_and_the_next_head_is_signed(tmp_path, monkeypatch):
    trial, full = Trial(tmp_path), set()

    def append(path, line):
        if path in full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append_line(path, line)

    def fill(way, stage, site, round_id, frame):
        if (way, stage, site) == ("down", "CountersignHead", "west"):
            full.update({trial.path("west") / "heads" / "run.jsonl"} if not full else ())
        if (way, stage, site) == ("down", "AdvertiseKeys", "west") and training_round(round_id) == 2:
            full.clear()
            wire.change.clear()
        return [frame]

    monkeypatch.setattr("audit.heads.append_line", append)
    with Folders(trial) as folders:
        wire = FolderWire(folders)
        wire.change.append(fill)
        trial.serve("run", wire)
    refused = of_kind(read_events(tmp_path / "run" / "audit.jsonl"), "refused")
    said = {(e.fields["hospital"], e.fields["what"], e.fields["reason"]) for e in refused}
    assert said == {("west", "disk", "the site cannot keep the head (No space left on device)")}
    verified(trial, "run")


@pytest.mark.parametrize("settings", [LOCAL, SHARES], ids=["local", "distributed"])
def test_a_hospital_whose_private_log_is_lost_gets_the_model_and_claims_nothing(tmp_path, settings):
    trial = PrivateTrial(tmp_path, rounds=3, **settings)

    def lose(way, stage, _site, round_id, frame):
        if (way, stage, training_round(round_id)) == ("down", "AdvertiseKeys", 3):
            shutil.rmtree(trial.path("west") / "privacy", ignore_errors=True)
        return [frame]

    with Folders(trial) as folders:
        wire = FolderWire(folders)
        wire.change.append(lose)
        trial.serve("run", wire)
    (summary,) = trial.path("west").glob("runs/*/summary.json")
    privacy = json.loads(summary.read_text())["privacy"]
    assert privacy["claim"].startswith("NOT CLAIMED: the private log")
    assert privacy["epsilon"] is None
    assert not is_owed(tmp_path / "run")


def test_a_ledger_without_a_budget_for_the_unit_is_told_the_lead(tmp_path):
    trial = PrivateTrial(tmp_path, **LOCAL)
    (trial.path("west") / "ledger.sqlite").unlink()
    trial._unit = "patient"
    trial.budget("west", 9.0)
    with Folders(trial) as folders, pytest.raises(RefusedBySiteError, match="no budget for the unit image") as refused:
        hello(trial, folders)
    assert refused.value.code == "budget"


def test_a_private_log_that_was_killed_before_its_claim_gets_it(tmp_path):
    trial = PrivateTrial(tmp_path, **LOCAL)
    with Folders(trial) as folders:
        hello(trial, folders)
    log = log_path(trial, "west")
    log.write_bytes(log.read_bytes().splitlines(keepends=True)[0])
    with Folders(trial) as folders:
        hello(trial, folders)
    assert [event.kind for event in read_events(log)][:2] == ["run_started", "privacy_claim"]


@pytest.mark.parametrize("settings", [LOCAL, SHARES], ids=["local", "distributed"])
def test_two_hospitals_of_a_study_may_pay_from_one_ledger(tmp_path, settings):
    """Releases of both stand in it under one run; each one's private log has its own alone."""
    trial = PrivateTrial(tmp_path, **settings)
    ledger = trial.path("west") / "ledger.sqlite"
    (trial.path("east") / "ledger.sqlite").unlink()
    (trial.path("east") / "ledger.sqlite").symlink_to(ledger)
    trial.budget("east", 9.0)
    with Folders(trial) as folders:
        trial.serve("run", FolderWire(folders))
    for name in ("east", "west"):
        said = call("site", "check", trial.path(name), "--study", tmp_path / "study.toml").output
        assert "2 charges of 1 logs agree with the ledger" in " ".join(said.split())
