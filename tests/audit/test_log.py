"""The event log: what may enter, what a crash leaves, what is refused when it is read."""

import errno
import math
import multiprocessing
import os
import resource
import signal
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from audit import EventLog, EventRefusedError, EvidenceError, LogLockedError, LogWriteError, read_events
from audit.events import KINDS
from audit.log import GENESIS
from tests.audit.runs import D, Ticks

HEADER = {"run_id": "r1", "operation": "simulation"}


def make(path: Path, rounds: int = 3) -> EventLog:
    log = EventLog.create(path, HEADER, Ticks())
    for number in range(1, rounds + 1):
        log.append("round_started", {"round": number, "cohort": ["a", "b"], "model_digest": D})
    return log


def test_lines_are_chained_and_read_back(tmp_path):
    with make(tmp_path / "log") as log:
        written = log.events
    events = read_events(tmp_path / "log")
    assert events == list(written)
    assert events[0].prev == GENESIS
    assert [event.prev for event in events[1:]] == [event.digest for event in events[:-1]]
    assert events[0].time == "2026-01-02T03:04:06.000000Z"
    assert events[1].fields["cohort"] == ["a", "b"]


def test_times_are_written_in_utc_and_a_naive_clock_is_an_error(tmp_path):
    zone = timezone(timedelta(hours=2))
    log = EventLog.create(tmp_path / "log", HEADER, lambda: datetime(2026, 1, 1, 1, tzinfo=zone))
    assert log.events[0].time == "2025-12-31T23:00:00.000000Z"
    log.close()
    with pytest.raises(ValueError, match="time zone"):
        EventLog.create(tmp_path / "other", HEADER, lambda: datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("kind", "fields", "where"),
    [
        ("invented", {}, ""),
        ("checkpoint", {"round": 1}, "model_digest"),
        ("checkpoint", {"round": 1, "model_digest": D, "patient": "x"}, "patient"),
        ("checkpoint", {"round": 1.0, "model_digest": D}, "round"),
        ("checkpoint", {"round": True, "model_digest": D}, "round"),
        ("checkpoint", {"round": -1, "model_digest": D}, "round"),
        ("checkpoint", {"round": 2**53, "model_digest": D}, "round"),
        ("checkpoint", {"round": 1, "model_digest": D.upper()}, "model_digest"),
        ("checkpoint", {"round": 1, "model_digest": D, "seq": 7}, "seq"),
        ("encoder_described", {"name": "e", "digest": "d", "embed_dim": 1, "seconds": math.nan}, "seconds"),
        ("encoder_described", {"name": "e", "digest": "d", "embed_dim": 1, "seconds": math.inf}, "seconds"),
        ("encoder_described", {"name": "e\nf", "digest": "d", "embed_dim": 1}, "name"),
        ("round_started", {"round": 1, "cohort": ["a", "a"], "model_digest": D}, "cohort"),
        ("round_started", {"round": 1, "cohort": "ab", "model_digest": D}, "cohort"),
        ("run_started", {**HEADER, "format": "securefed-audit-log/1"}, ""),
    ],
)
def test_what_is_not_declared_is_refused_and_leaves_no_trace(tmp_path, kind, fields, where):
    with make(tmp_path / "log") as log:
        before = (tmp_path / "log").read_bytes()
        with pytest.raises(EventRefusedError) as caught:
            log.append(kind, fields)
        assert caught.value.where == where
        assert (tmp_path / "log").read_bytes() == before


def test_a_lone_surrogate_is_refused(tmp_path):
    with make(tmp_path / "log") as log, pytest.raises(EventRefusedError):
        log.append("interrupted", {"round": 1, "reason": "\ud800"})


def test_a_log_is_never_overwritten(tmp_path):
    make(tmp_path / "log").close()
    with pytest.raises(LogWriteError, match="never overwritten"):
        EventLog.create(tmp_path / "log", HEADER)
    with pytest.raises(LogWriteError):
        EventLog.create(tmp_path / "nowhere" / "log", HEADER)
    with pytest.raises(LogWriteError):
        EventLog.open(tmp_path / "absent")


def test_a_log_whose_folder_cannot_be_synced_is_refused_and_not_there(tmp_path, monkeypatch):
    def refuse(_folder):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("audit.log.sync_folder", refuse)
    with pytest.raises(LogWriteError, match=r"log: cannot be created \(Input/output error\)"):
        make(tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_one_writer_at_a_time(tmp_path):
    log = make(tmp_path / "log")
    with pytest.raises(LogLockedError):
        EventLog.open(tmp_path / "log")
    log.close()
    EventLog.open(tmp_path / "log").close()


def test_a_writer_waits_as_long_as_it_is_told_for_the_other_to_let_go(tmp_path):
    log = make(tmp_path / "log")
    letting_go = threading.Timer(0.2, log.close)
    letting_go.start()
    with EventLog.open(tmp_path / "log", wait=30.0) as second:
        assert len(second) == 4
        with pytest.raises(LogLockedError):
            EventLog.open(tmp_path / "log", wait=0.1)
    letting_go.join()


def test_a_reader_needs_no_lock_and_takes_what_is_whole(tmp_path):
    path = tmp_path / "log"
    with make(path) as log, EventLog.reading(path) as seen:
        assert seen.events == log.events
        log.append("resumed", {"round": 2})
        assert len(seen) == 4
        with pytest.raises(LogWriteError):
            seen.append("resumed", {"round": 3})
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    assert [event.kind for event in EventLog.reading(path).events] == ["run_started", *["round_started"] * 3]
    path.write_bytes(whole[:7])
    assert EventLog.reading(path).events == ()
    assert path.read_bytes() == whole[:7]
    path.write_bytes(b"{}\n" + whole)
    for broken in (path, tmp_path / "absent"):
        with pytest.raises(EvidenceError):
            EventLog.reading(broken)


def test_an_incomplete_last_line_is_cut_and_the_cut_recorded(tmp_path):
    path = tmp_path / "log"
    make(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(EvidenceError) as caught:
        read_events(path)
    assert caught.value.seq == 3
    with EventLog.open(path, Ticks()) as log:
        assert log.events[-1].kind == "tail_cut"
        log.append("resumed", {"round": 2})
    events = read_events(path)
    assert [event.kind for event in events] == ["run_started", "round_started", "round_started", "tail_cut", "resumed"]
    assert events[3].fields["bytes"] == len(whole.splitlines()[-1]) + 1 - 7


def test_a_changed_line_is_not_cut_but_named(tmp_path):
    path = tmp_path / "log"
    make(path).close()
    path.write_bytes(path.read_bytes().replace(b'"round":2', b'"round":4'))
    with pytest.raises(EvidenceError) as caught:
        EventLog.open(path)
    assert caught.value.seq == 3
    assert "does not follow" in caught.value.reason


def test_other_spellings_of_the_same_value_are_refused(tmp_path):
    path = tmp_path / "log"
    make(path).close()
    for old, new in (
        (b'"round":1,', b'"round": 1,'),
        (b'"round":1,', b'"round":1.0,'),
        (b'{"cohort"', b'{"seq":1,"cohort"'),
    ):
        damaged = path.read_bytes().replace(old, new)
        assert damaged != path.read_bytes()
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(EvidenceError, match="canonical"):
            read_events(tmp_path / "damaged")


@pytest.mark.parametrize("content", [b"", b"\n", b"[]\n", b"{}\n", b"\xff\n", b"[" * 100_000 + b"\n", b'{"seq":NaN}\n'])
def test_arbitrary_bytes_raise_the_one_error(tmp_path, content):
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(EvidenceError):
        read_events(tmp_path / "log")
    with pytest.raises(EvidenceError):
        read_events(tmp_path / "absent")


def append_together(log, events):
    with log.batch():
        for number in range(events):
            log.append("interrupted", {"round": number, "reason": "x" * 400})


@pytest.mark.parametrize("events", [1, 60], ids=["at its end", "as the buffer fills"])
def test_a_disk_that_fills_in_a_batch_is_told_as_that(tmp_path, events):
    """The file may hold little more than it does: what is buffered is refused, and again as the batch ends."""
    log = make(tmp_path / "log", 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "log").stat().st_size + 10, hard))
    try:
        with pytest.raises(LogWriteError, match=os.strerror(errno.EFBIG)):
            append_together(log, events)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_events_of_a_batch_are_durable_together(tmp_path):
    with make(tmp_path / "log", 0) as log, log.batch():
        for number in range(100):
            log.append("checkpoint", {"round": number, "model_digest": D})
    assert len(read_events(tmp_path / "log")) == 101


def _write_until_killed(path, ready):
    log = EventLog.create(path, HEADER)
    number = 0
    while True:
        log.append("checkpoint", {"round": number, "model_digest": D})
        number += 1
        ready.value = number


def test_what_append_returned_for_survives_kill_9(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Value("i", 0)
    process = context.Process(target=_write_until_killed, args=(tmp_path / "log", ready))
    process.start()
    while ready.value < 20:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    acknowledged = ready.value
    with EventLog.open(tmp_path / "log") as log:
        rounds = [event.fields["round"] for event in log.events if event.kind == "checkpoint"]
    assert rounds[:acknowledged] == list(range(acknowledged))


def test_large_numbers_keep_their_value(tmp_path):
    with make(tmp_path / "log", 0) as log:
        for value in (1e20, 1e300, 5e-324, 0.1, 2**53 - 1, -0.0):
            log.append("attack", {"name": "n", "setting": "s", "outcome": "MEASURED", "values": {"x": value}})
    read = [event.fields["values"]["x"] for event in read_events(tmp_path / "log")[1:]]
    assert read == [1e20, 1e300, 5e-324, 0.1, 2**53 - 1, 0.0]


def test_every_kind_is_described_in_words():
    for kind, record in KINDS.items():
        assert kind.isidentifier()
        assert record.describe().startswith("{")


@pytest.mark.parametrize("point", ["before write", "after write", "before sync", "after sync"])
def test_an_interrupted_append_neither_forks_nor_repeats(tmp_path, monkeypatch, point):
    """Ctrl-C can strike between any two steps of `append`; what the process writes next still follows from the file."""
    log = make(tmp_path / "log")
    moment, step = point.split()

    class Interrupting:
        def __init__(self, stream):
            self._stream = stream

        def __getattr__(self, name):
            return getattr(self._stream, name)

        def write(self, line):
            if step == "write" and moment == "before":
                raise KeyboardInterrupt
            self._stream.write(line)
            if step == "write":
                raise KeyboardInterrupt

    def interrupting_fsync(descriptor, real=os.fsync):
        if moment == "before":
            raise KeyboardInterrupt
        real(descriptor)
        raise KeyboardInterrupt

    with log:
        if step == "write":
            monkeypatch.setattr(log, "_stream", Interrupting(log._stream))
        else:
            monkeypatch.setattr(os, "fsync", interrupting_fsync)
        with pytest.raises(KeyboardInterrupt):
            log.append("checkpoint", {"round": 3, "model_digest": D})
        monkeypatch.undo()
        log.append("interrupted", {"round": 3, "reason": "stopped by the user"})
        written = log.events
    assert read_events(tmp_path / "log") == list(written)
    kinds = [event.kind for event in written][4:]
    assert kinds == (["interrupted"] if point == "before write" else ["checkpoint", "interrupted"])
