"""A server whose folder is not that of the run's history, and hospitals whose data are others than the record says."""

import hashlib
import re
import shutil

import pytest
from deployed import SITES, KilledError, verified

from audit.log import read_events
from audit.report import build_report
from securefed.deploy.errors import DeploymentError
from securefed.errors import RunFolderError
from securefed.nodes.advice import advice
from securefed.nodes.control import ControlStage, decode_reply, encode_reply
from securefed.nodes.numbering import training_round
from securefed.nodes.site_run import Agreement
from securefed.observer import Observer


def described(deployed):
    events = read_events(deployed.run / "audit.jsonl")
    (first,) = (event.fields for event in events if event.kind == "data_described")
    return first, [event.fields for event in events if event.kind == "data_of_hospital"]


def found_in_the_data(deployed):
    return build_report(deployed.run)["data"]["warnings"]


class Watcher(Observer):
    def __init__(self):
        self.said = []

    def warned(self, text):
        self.said.append(text)


@pytest.mark.parametrize("folder", ["a new one", "an older copy"])
def test_a_study_whose_history_the_hospitals_signed_elsewhere_is_not_trained_in_vain(deployment, folder):
    deployed = deployment(federation={"rounds": 2})
    copy = deployed.folder / "copy"

    def back_up(way, stage, site, round_id, frame):
        if (way, stage, training_round(round_id)) == ("down", "AdvertiseKeys", 2) and not copy.exists():
            shutil.copytree(deployed.run, copy)
        return [frame]

    deployed.wire.change.append(back_up)
    deployed.serve()
    whole = deployed.folder / "whole"
    deployed.run.rename(whole)
    if folder == "an older copy":
        copy.rename(deployed.run)
    asked = len(deployed.wire.log)
    for _ in range(12):  # an attempt adds nothing to the log that could let a later one pass
        with pytest.raises(DeploymentError, match=r"site0, .* signed up to .* Go on in the folder with the whole log"):
            deployed.serve()
    assert {stage for stage, *_ in deployed.wire.log[asked:]} == {"Hello"}
    shutil.rmtree(deployed.run)
    whole.rename(deployed.run)
    deployed.serve()
    verified(deployed)


def test_one_hospital_that_says_it_signed_more_stops_nobody_and_is_named(deployment):
    deployed = deployment(federation={"rounds": 1})

    def lie(way, stage, site, round_id, frame):
        if (way, stage, site) == ("up", "Hello", "site1"):
            return [encode_reply(ControlStage.HELLO, {**decode_reply(ControlStage.HELLO, frame), "witnessed": 10**6})]
        return [frame]

    deployed.wire.change.append(lie)
    deployed.serve()
    refused = [event.fields for event in read_events(deployed.run / "audit.jsonl") if event.kind == "refused"]
    assert [(fields["hospital"], fields["what"]) for fields in refused] == [("site1", "evidence")]
    verified(deployed)


def test_the_data_of_a_hospital_that_comes_later_get_into_the_record(deployment):
    deployed = deployment(federation={"rounds": 2})

    def late(way, stage, site, round_id, frame):
        if site == "site2" and training_round(round_id) < 2:
            raise KilledError
        return [frame]

    deployed.wire.change.append(late)
    deployed.serve()
    first, later = described(deployed)
    there = "".join(f"{site} {'5' * 64}\n" for site in SITES if site != "site2")
    assert first["fingerprint"] == hashlib.sha256(there.encode()).hexdigest()
    assert first["sites"] == list(SITES)
    assert later == [{"hospital": "site2", "digest": "5" * 64}]
    assert found_in_the_data(deployed) == [
        "the digest leaves out site2, not there when the run began",
        "site2 stated its data later (event 12)",
    ]
    verified(deployed)


@pytest.mark.parametrize("server", ["goes on", "is started anew"])
def test_data_that_changed_while_a_run_went_on_are_in_the_record_by_name(deployment, monkeypatch, server):
    deployed = deployment(federation={"rounds": 2})
    done = []

    def change(way, stage, site, round_id, frame):
        if (way, stage, site, training_round(round_id)) == ("down", "CountersignHead", "site1", 1) and not done:
            done.append(True)
            other = Agreement(deployed.study.digest, deployed.study.roster.digest, "6" * 64)
            deployed.nodes["site1"] = deployed.open_site("site1", deployed.nodes["site1"].dump(), agreement=other)
            if server == "is started anew":
                raise KeyboardInterrupt
        return [frame]

    deployed.wire.change.append(change)
    watcher = Watcher()
    if server == "is started anew":
        with pytest.raises(KeyboardInterrupt):
            deployed.serve()
    deployed.serve(observer=watcher)
    assert "site1 has approved the study again with other data; the record says so" in watcher.said
    first, later = described(deployed)
    assert "warnings" not in first
    assert later == [{"hospital": "site1", "digest": "6" * 64, "earlier": "5" * 64}]
    assert "site1 approved again with other data while the run went on" in found_in_the_data(deployed)[0]
    verified(deployed)


def test_digests_of_data_that_are_damaged_are_named(deployment, monkeypatch):
    deployed = deployment(federation={"rounds": 1})
    monkeypatch.setattr("securefed.nodes.server._ServerRun._rounds", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        deployed.serve()
    (deployed.run / "data_digests.json").write_text('{"site0": []}')
    with pytest.raises(RunFolderError, match="put a copy of it back"):
        deployed.serve()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("evidence", "signed another history .* here the record never verifies"),
        ("disk", "free space on its disk; submit again then"),
        ("ledger", "mend its ledger or private log, of which its own log says more; submit again then"),
        ("version", r"refuses it \(version\): mend what it names and submit again"),
        ("", "start its node; submit again then"),
    ],
)
def test_the_advice_is_that_of_the_cause(code, says):
    (text,) = advice(["site2"], [], {"site2": code} if code else {"site1": "disk"})
    assert text.startswith("the record does not verify: it lacks the countersignature of site2")
    assert re.search(says, text)
