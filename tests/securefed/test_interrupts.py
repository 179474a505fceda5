"""Ctrl-C between any two steps that end a round, or the run: it resumes to the same model, and the record verifies."""

import errno
import os
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from audit.errors import EvidenceError, KeyFileError
from audit.heads import read_heads
from audit.history import read_history
from audit.log import EventLog, read_events
from audit.parties import SimulatedParties
from audit.report.compare import compare_reports
from audit.signing_key import create_key
from audit.verify import verify_run
from securefed import ended, outcome, simulation
from securefed.checkpoint import Checkpoints, load_checkpoint, save_checkpoint
from securefed.config import write_config
from securefed.errors import ConfigError, RoundAbortedError, RunFolderError
from securefed.evidence import RunEvidence
from securefed.nodes.simulated import SimulatedSites
from securefed.observer import Observer
from securefed.run_folder import RunFolder, read_byte_rows, unwritable
from securefed.simulation import resume_run, simulate

STEPS = {
    "the round in the log": (RunEvidence, "round_completed", 2),
    "the bytes of the round": (RunFolder, "append_rows", 3),
    "the metrics of the round": (RunFolder, "append_rows", 4),
    "the checkpoint": (Checkpoints, "finish", 2),
    "the checkpoint in the log": (RunEvidence, "checkpoint", 1),
    "the signed head": (RunEvidence, "sign", 2),
    "the closing round in the log": (RunEvidence, "round_completed", 4),
    "the summary": (outcome, "summarise", 1),
    "the evaluation in the log": (RunEvidence, "evaluated", 1),
}


@pytest.fixture(scope="module")
def whole(features_file, tmp_path_factory):
    """Digest of the run that nobody interrupts, by configuration digest."""
    return {}


@pytest.fixture(params=[0.0, 600.0], ids=["a checkpoint each round", "one for the last round"])
def rarely(request, monkeypatch):
    """Seconds from one checkpoint to the next."""
    monkeypatch.setattr(simulation, "CHECKPOINT_EVERY", request.param)
    return request.param


def resumes_as(whole, small_run, tmp_path, monkeypatch):
    """Resume the run of `tmp_path` and hold it to that of nobody's interrupting."""
    cache = tmp_path / "cache"
    if not whole:
        result = simulate(small_run(), output=tmp_path / "whole", cache_dir=cache)
        whole |= {key: result.summary[key] for key in ("fam_sha256", "mean", "chosen_round")}
    monkeypatch.setattr("securefed.outcome.draw_plots", lambda *_: None)
    resumed = resume_run(tmp_path / "run", cache_dir=cache)
    assert {key: resumed.summary[key] for key in whole} == whole
    checked = verify_run(resumed.folder.path)
    assert checked.is_verified, [check for check in checked.checks if check.outcome != "ok"]
    return resumed


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.usefixtures("rarely")
def test_a_run_that_was_interrupted_at_a_step_resumes(small_run, tmp_path, monkeypatch, whole, step, moment):
    place, name, call = STEPS[step]
    real, calls = getattr(place, name), 0

    def interrupting(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call and moment == "before":
            raise KeyboardInterrupt
        result = real(*args, **kwargs)
        if calls == call:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patched:
        patched.setattr(place, name, interrupting)
        with pytest.raises(KeyboardInterrupt) as caught:
            simulate(small_run(), output=tmp_path / "run", cache_dir=tmp_path / "cache")
    assert f"simulate --resume {tmp_path / 'run'}" in caught.value.__notes__[0]
    resumes_as(whole, small_run, tmp_path, monkeypatch)


@pytest.mark.parametrize("step", ["the signature of the end", "delete_checkpoint", "write_report"])
def test_a_run_that_was_cut_off_after_the_end_of_its_record_is_finished(small_run, tmp_path, monkeypatch, whole, step):
    sign = SimulatedParties.publish

    def interrupting(*_, **__):
        raise KeyboardInterrupt

    def before_signing(self, log, *arguments):
        return (interrupting if log.events[-1].kind == "run_completed" else sign)(self, log, *arguments)

    with monkeypatch.context() as patched:
        if step == "the signature of the end":
            patched.setattr(SimulatedParties, "publish", before_signing)
        else:
            patched.setattr(ended, step, interrupting)
        with pytest.raises(KeyboardInterrupt) as caught:
            simulate(small_run(), output=tmp_path / "run", cache_dir=tmp_path / "cache")
    assert f"simulate --resume {tmp_path / 'run'}" in caught.value.__notes__[0]
    assert (tmp_path / "run" / "checkpoint").exists() == (step != "write_report")
    resumed = resumes_as(whole, small_run, tmp_path, monkeypatch)
    assert not resumed.folder.checkpoint.exists()
    assert (resumed.folder.path / "report.html").exists()
    assert rounds_of("resumed", resumed.folder.log) == []
    with pytest.raises(RunFolderError, match="ended already"):
        resume_run(tmp_path / "run", cache_dir=tmp_path / "cache")


def kinds_after_resuming(small_run, tmp_path, monkeypatch, whole, place, name, stop):
    """Run with `stop` in the place of a function until it interrupts, resume, and return the kinds of all events."""
    with monkeypatch.context() as patched:
        patched.setattr(place, name, stop)
        with pytest.raises(KeyboardInterrupt):
            simulate(small_run(), output=tmp_path / "run", cache_dir=tmp_path / "cache")
    resumed = resumes_as(whole, small_run, tmp_path, monkeypatch)
    return [event.kind for event in read_events(resumed.folder.log)]


def test_a_run_that_was_left_while_images_were_encoded_records_its_data_when_it_goes_on(
    small_run, tmp_path, monkeypatch, whole
):
    def interrupting(*_):
        raise KeyboardInterrupt

    kinds = kinds_after_resuming(small_run, tmp_path, monkeypatch, whole, simulation, "encode_sites", interrupting)
    assert kinds.index("data_described") < kinds.index("encoder_described") < kinds.index("protocol_described")


def test_a_run_that_was_left_before_its_claim_makes_it_when_it_goes_on(small_run, tmp_path, monkeypatch, whole):
    append = EventLog.append

    def interrupting(log, kind, fields):
        if kind == "privacy_claim":
            raise KeyboardInterrupt
        return append(log, kind, fields)

    kinds = kinds_after_resuming(small_run, tmp_path, monkeypatch, whole, EventLog, "append", interrupting)
    assert kinds.index("protocol_described") < kinds.index("privacy_claim") < kinds.index("round_started")
    assert kinds.count("protocol_described") == kinds.count("privacy_claim") == 1


def interrupted_in_the_third_round(small_run, tmp_path, monkeypatch):
    """Interrupt a run and return the rounds of the checkpoints that its log names."""
    started = RunEvidence.round_started

    def interrupting(self, number, *args):
        if number == 3:
            raise KeyboardInterrupt
        started(self, number, *args)

    with monkeypatch.context() as patched:
        patched.setattr(RunEvidence, "round_started", interrupting)
        with pytest.raises(KeyboardInterrupt):
            simulate(small_run(), output=tmp_path / "run", cache_dir=tmp_path / "cache")
    return rounds_of("checkpoint", tmp_path / "run" / "audit.jsonl")


def rounds_of(kind, log):
    return [event.fields["round"] for event in read_events(log) if event.kind == kind]


def test_whoever_leaves_between_two_checkpoints_keeps_all_finished_rounds(
    small_run, tmp_path, monkeypatch, whole, rarely
):
    written = interrupted_in_the_third_round(small_run, tmp_path, monkeypatch)
    assert written == ([2] if rarely else [1, 2])
    resumed = resumes_as(whole, small_run, tmp_path, monkeypatch)
    assert rounds_of("resumed", resumed.folder.log) == [2]


def test_a_killed_run_makes_the_rounds_since_its_checkpoint_again(small_run, tmp_path, monkeypatch, whole, rarely):
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "leave", lambda _: None)
        written = interrupted_in_the_third_round(small_run, tmp_path, monkeypatch)
    assert written == ([] if rarely else [1, 2])
    resumed = resumes_as(whole, small_run, tmp_path, monkeypatch)
    assert rounds_of("resumed", resumed.folder.log) == [0 if rarely else 2]
    history = read_history(read_events(resumed.folder.log))
    assert [record.number for record in history.rounds if record.superseded] == ([1, 2] if rarely else [])
    assert {row.round for row in read_byte_rows(resumed.folder.bytes)} == {1, 2, 3, 4}
    states_what_was_sent(resumed)
    again = history.byte_total("up", all_sent=True) - history.byte_total("up")
    assert (again > 0) == bool(rarely)


def test_the_rows_of_a_round_are_on_disk_before_its_checkpoint_and_all_before_the_end_of_the_log(
    small_run, tmp_path, monkeypatch
):
    """A checkpoint, and an end with digests, that outlast a loss of power are of rows that do."""
    sync, finish, completed, synced, steps = os.fsync, Checkpoints.finish, RunEvidence.completed, {}, []

    def noting(descriptor):
        sync(descriptor)
        synced[str(Path(f"/proc/self/fd/{descriptor}").readlink()).removesuffix(".part")] = os.fstat(descriptor).st_size

    def after_the_rows(step):
        def wrapped(*args, **fields):
            paths = [tmp_path / "run" / name for name in ("metrics.csv", "bytes.csv")]
            assert [synced.get(str(path.resolve())) for path in paths] == [path.stat().st_size for path in paths]
            steps.append(step.__name__)
            return step(*args, **fields)

        return wrapped

    monkeypatch.setattr(simulation, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(Checkpoints, "finish", after_the_rows(finish))
    monkeypatch.setattr(RunEvidence, "completed", after_the_rows(completed))
    simulate(small_run(), output=tmp_path / "run", cache_dir=tmp_path / "cache")
    assert steps == ["finish"] * 3 + ["completed"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ENOENT])
def test_a_run_that_a_full_disk_stops_says_how_it_goes_on(small_run, tmp_path, monkeypatch, code):
    def full(path, rows):
        raise unwritable(path, OSError(code, os.strerror(code))) from OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "append_rows", lambda _, path, rows: full(path, rows))
        with pytest.raises(RunFolderError, match="cannot be written") as caught:
            simulate(small_run(), output=tmp_path / "run", cache_dir=tmp_path / "cache")
    said = [f"0 rounds are finished; go on with: simulate --resume {tmp_path / 'run'}"]
    assert getattr(caught.value, "__notes__", []) == (said if code == errno.ENOSPC else [])


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_a_full_disk_stops_before_its_rounds_says_whether_it_goes_on(
    small_run, tmp_path, monkeypatch, begun
):
    place, what = (simulation, "simulated_parties") if not begun else (RunEvidence, "data")

    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(place, what, full)
        with pytest.raises(OSError, match="No space left") as caught:
            simulate(small_run(), output=tmp_path / "run", cache_dir=tmp_path / "cache")
    way = "0 rounds are finished; go on with: simulate --resume {}" if begun else "nothing was begun; delete {} before"
    assert caught.value.__notes__[0].startswith(way.format(tmp_path / "run"))
    if begun:
        assert resume_run(tmp_path / "run", cache_dir=tmp_path / "cache").summary["rounds_completed"] == 3


def test_a_report_whose_writing_was_cut_off_before_its_signature_is_written_anew(small_run, tmp_path):
    """`audit attack` writes the report of a run that has ended again."""
    folder = simulate(small_run(), output=tmp_path / "run", cache_dir=tmp_path / "cache").folder
    with pytest.raises(RunFolderError, match="has ended already"):
        resume_run(folder.path, cache_dir=tmp_path / "cache")
    report = folder.path / "report.json"
    report.write_bytes(report.read_bytes().replace(b"}", b" }", 1))
    assert ended.reported(folder.path) is None
    assert resume_run(folder.path, cache_dir=tmp_path / "cache").is_verified
    assert ended.reported(folder.path) is True


def test_rounds_whose_rows_are_gone_are_named(small_run, tmp_path, monkeypatch):
    """A checkpoint is there and the table is not: a disk that lost what was not on it yet, or a hand."""
    interrupted_in_the_third_round(small_run, tmp_path, monkeypatch)
    path = tmp_path / "run" / "metrics.csv"
    path.write_text(re.sub(r"(?m)^2,.*\n", "", path.read_text()))
    warned = []
    observer = Observer()
    observer.warned = warned.append
    resume_run(tmp_path / "run", cache_dir=tmp_path / "cache", observer=observer)
    assert [text.partition(":")[0] for text in warned] == [f"{path} has no line of round 2"]


def states_what_was_sent(result):
    """Hold every place that states all bytes of a run to its log: rounds aborted or done again were sent too."""
    attempts = read_history(read_events(result.folder.log)).attempts
    up, down = (sum(attempt.total(way) for attempt in attempts) for way in ("up", "down"))
    stated = result.summary["communication"]
    assert (stated["upload_bytes"], stated["download_bytes"]) == (up, down)
    for table in ("by_stage", "by_kind"):
        assert sum(both.get("upload", 0) for both in stated[table].values()) == up
    assert sum(row.bytes for row in read_byte_rows(result.folder.bytes)) == up + down
    checked = next(check for check in verify_run(result.folder.path).checks if check.name == "bytes")
    assert checked.detail.startswith(f"{up} bytes up and {down} down over 4 rounds")
    report = result.folder.read_json(result.folder.path / "report.json")
    section = report["communication"]
    assert section["all_sent"] == {"up": up, "down": down}
    assert section["per_client_round"]["up"] == stated["upload_bytes_per_client_round"]
    for table in ("by_client", "by_stage", "by_kind"):
        assert sum(both["up"] for both in section[table].values()) == up
    assert sum(sum(entry["kinds"].values()) for entry in section["by_round"]) == up
    assert sum(entry["sent"] for entry in report["hospitals"]) == up
    assert compare_reports([report])["runs"][0]["up_total"] == up


def test_what_an_aborted_attempt_had_sent_is_counted(small_run, tmp_path, monkeypatch, whole):
    """Two sites are lost in the second round, and are there again when the run is resumed."""
    lost = {"site1": "ConsistencyCheck", "site2": "ShareKeys"}
    with monkeypatch.context() as patched:
        patched.setattr(SimulatedSites, "losses", lambda _, number: lost if number == 2 else {})
        with pytest.raises(RoundAbortedError, match="round 2 was aborted"):
            simulate(small_run(), output=tmp_path / "run", cache_dir=tmp_path / "cache")
    aborted = [row for row in read_byte_rows(tmp_path / "run" / "bytes.csv") if row.round == 2]
    resumed = resumes_as(whole, small_run, tmp_path, monkeypatch)
    (attempt,) = read_history(read_events(resumed.folder.log)).aborted
    assert sum(row.bytes for row in aborted) == attempt.total("up") + attempt.total("down") > 0
    assert sum(row.round == 2 for row in read_byte_rows(resumed.folder.bytes)) > len(aborted)
    states_what_was_sent(resumed)


def test_every_round_of_a_run_has_a_signed_head(small_run, tmp_path, rarely):
    run = simulate(small_run(), output=tmp_path / "run", cache_dir=tmp_path / "cache")
    assert [signed.head.round for signed in read_heads(run.folder.path / "heads.jsonl")] == [1, 2, 3, 3]
    assert rounds_of("checkpoint", run.folder.log) == ([3] if rarely else [1, 2, 3])


def test_nothing_is_trained_with_another_configuration_than_the_logs(small_run, tmp_path, monkeypatch):
    interrupted_in_the_third_round(small_run, tmp_path, monkeypatch)
    path = tmp_path / "run" / "config.toml"
    whole = path.read_text()
    path.write_text(re.sub(r"(?m)^rounds = \d+$", "rounds = 4", whole))
    assert path.read_text() != whole
    before = len(read_events(tmp_path / "run" / "audit.jsonl"))
    with pytest.raises(ConfigError, match="not the configuration that the run was begun with"):
        resume_run(tmp_path / "run", cache_dir=tmp_path / "cache")
    assert len(read_events(tmp_path / "run" / "audit.jsonl")) == before


@pytest.mark.parametrize("name", ["global.safetensors", "site-0000.safetensors"])
def test_nothing_is_trained_from_a_checkpoint_that_was_changed(small_run, tmp_path, monkeypatch, name):
    interrupted_in_the_third_round(small_run, tmp_path, monkeypatch)
    (path,) = (tmp_path / "run" / "checkpoint").glob(f"round-*/{name}")
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match="was changed after it was written"):
        resume_run(tmp_path / "run", cache_dir=tmp_path / "cache")


def test_nothing_is_trained_from_the_checkpoint_of_another_run(small_run, tmp_path, monkeypatch):
    interrupted_in_the_third_round(small_run, tmp_path, monkeypatch)
    folder = RunFolder.open(tmp_path / "run")
    checkpoint = load_checkpoint(folder)
    current = replace(checkpoint.current, vector=checkpoint.current.vector + 1)
    shutil.rmtree(folder.checkpoint)
    save_checkpoint(folder, replace(checkpoint, current=current))
    with pytest.raises(RunFolderError, match="is not the one that round 2 ended with"):
        resume_run(tmp_path / "run", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("key", ["server.key", "sites/*/identity.key"])
def test_a_key_that_is_gone_is_not_made_anew(small_run, tmp_path, monkeypatch, key):
    interrupted_in_the_third_round(small_run, tmp_path, monkeypatch)
    path = min((tmp_path / "run").glob(key))
    path.unlink()
    with pytest.raises(KeyFileError, match="cannot be read"):
        resume_run(tmp_path / "run", cache_dir=tmp_path / "cache")
    assert not path.exists()
    create_key(path)
    with pytest.raises(EvidenceError, match=re.escape("are not those of its roster.json")):
        resume_run(tmp_path / "run", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("event", ["config", "roster", "purpose", "data_described"])
def test_a_run_that_was_killed_while_its_log_was_begun_goes_on_to_a_whole_record(
    small_run, tmp_path, monkeypatch, whole, event
):
    append = EventLog.append

    def stop(log, kind, fields):
        if kind == event:
            raise KeyboardInterrupt
        return append(log, kind, fields)

    declared = partial(small_run, purpose={"purpose": "triage of trees"})
    kinds = kinds_after_resuming(declared, tmp_path, monkeypatch, whole, EventLog, "append", stop)
    assert [kinds.count(kind) for kind in ("config", "roster", "purpose", "data_described")] == [1, 1, 1, 1]


@pytest.mark.parametrize("log", [None, b"", b'{"format"'])
def test_a_run_whose_log_was_never_begun_says_so(small_run, tmp_path, log):
    folder = tmp_path / "run"
    folder.mkdir()
    write_config(small_run(), folder / "config.toml")
    if log is not None:
        (folder / "audit.jsonl").write_bytes(log)
    with pytest.raises(RunFolderError, match="one that was never begun: nothing can go on; start a new run"):
        resume_run(folder, cache_dir=tmp_path / "cache")
