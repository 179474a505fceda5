"""The event log: append-only lines of canonical JSON, each bound to the one before by its SHA-256.

An event is durable when `append` returns. One process writes at a time; what a crash leaves of a last line is cut when
the log is opened again, and the cut is itself an event. The bytes are specified in audit/SPEC.md.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Self

from audit.canonical import JSON, CanonicalError, decode_canonical, encode_canonical
from audit.durable import sync_folder
from audit.errors import EventRefusedError, EvidenceError, LogLockedError, LogWriteError
from audit.events import FORMAT, RESERVED, check_envelope, check_fields
from audit.regular_file import read_regular

Clock = Callable[[], datetime]
"""Returns the present time with its time zone."""

GENESIS = "0" * 64
"""`prev` of the first event."""

MAX_LINE = 64 * 2**20
"""Bytes of the longest line that is read."""

_POLL = 0.05
"""Seconds between two attempts to get a log's lock."""


def system_clock() -> datetime:
    """Return the time of this machine."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Event:
    """One line of a log.

    Attributes:
        seq: Its place, from 0.
        kind: One of audit.events.KINDS.
        prev: SHA-256 of the line before, GENESIS for the first.
        time: UTC, ISO 8601 with microseconds, as the writer's clock had it.
        fields: The kind's own fields.
        line: The canonical bytes without the line end.
    """

    seq: int
    kind: str
    prev: str
    time: str
    fields: Mapping[str, JSON]
    line: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the line, which the next event carries as `prev`."""
        return hashlib.sha256(self.line).hexdigest()


class EventLog:
    """A log open for writing; a context manager.

    Args:
        path: The file.
        clock: Where the times come from.
        stream: The file, opened for appending and locked.
        events: What it holds already.
    """

    def __init__(self, path: Path, clock: Clock, stream: BinaryIO, events: list[Event]) -> None:
        self.path = path
        self._clock = clock
        self._stream = stream
        self._events = events
        self._batched = False
        self._unfinished = False

    @classmethod
    def create(cls, path: Path, header: Mapping[str, JSON], clock: Clock = system_clock) -> Self:
        """Make a new log whose first event is `run_started` with the fields of `header` (its `format` is filled in).

        Raises:
            LogWriteError: The file exists or cannot be made.
            EventRefusedError: The header is not as declared for `run_started`.
        """
        fields: dict[str, JSON] = {"format": FORMAT, **header}
        check_fields("run_started", fields)
        try:
            stream = path.open("xb")
        except OSError as error:
            raise LogWriteError(path, f"cannot be created ({error.strerror}); a log is never overwritten") from error
        try:
            log = cls(path, clock, _locked(stream, path), [])
            log.append("run_started", fields)
            sync_folder(path.parent)
        except BaseException as error:
            stream.close()
            path.unlink()
            if isinstance(error, OSError):
                raise LogWriteError(path, f"cannot be created ({error.strerror})") from error
            raise
        return log

    @classmethod
    def open(cls, path: Path, clock: Clock = system_clock, wait: float = 0.0) -> Self:
        """Open a log to append to it, after verifying its chain and cutting a last line that a crash left incomplete.

        Args:
            path: The file.
            clock: Where the times come from.
            wait: Seconds to wait for another process to let go of it.

        Raises:
            LogWriteError: The file is missing or cannot be written.
            LogLockedError: Another process is writing it.
            EvidenceError: A complete line does not verify.
        """
        try:
            stream = path.open("r+b")
        except OSError as error:
            raise LogWriteError(path, f"cannot be opened ({error.strerror})") from error
        try:
            _locked(stream, path, wait)
            content = stream.read()
            end = content.rfind(b"\n") + 1
            tail = content[end:]
            events = parse_events(content[:end])
            log = cls(path, clock, stream, events)
            if tail:
                stream.truncate(end)
            stream.seek(end)
        except BaseException:
            stream.close()
            raise
        if tail:
            log.append("tail_cut", {"bytes": len(tail), "digest": hashlib.sha256(tail).hexdigest()})
        return log

    @classmethod
    def reading(cls, path: Path) -> Self:
        """Return a log as it is now, to be read alone and without its lock: it may be written meanwhile.

        A last line that is not whole yet is left out; of a log that was never begun there are no events.

        Raises:
            EvidenceError: The file cannot be read, or a complete line does not verify.
        """
        try:
            with path.open("rb") as stream:
                content = stream.read()
        except OSError as error:
            raise EvidenceError(-1, f"{path} cannot be read ({error.strerror})") from error
        whole = content[: content.rfind(b"\n") + 1]
        return cls(path, system_clock, stream, parse_events(whole) if whole else [])

    @property
    def events(self) -> tuple[Event, ...]:
        """All events so far."""
        return tuple(self._events)

    def __len__(self) -> int:
        return len(self._events)

    def append(self, kind: str, fields: Mapping[str, JSON]) -> Event:
        """Add an event and return it once it is on disk (inside `batch`: once it is written).

        Raises:
            EventRefusedError: The kind is unknown, or the fields are not as declared; the log is unchanged.
            LogWriteError: The disk refuses; the log must be opened again.
        """
        check_fields(kind, fields)
        if self._unfinished:
            self._read_again()
        if (kind == "run_started") != (not self._events):
            raise EventRefusedError(kind, "", "begins a log, and only begins it")
        prev = self._events[-1].digest if self._events else GENESIS
        time = _format_time(self._clock())
        envelope: dict[str, JSON] = {"seq": len(self._events), "kind": kind, "prev": prev, "time": time}
        try:
            line = encode_canonical({**envelope, **fields})
        except CanonicalError as error:
            raise EventRefusedError(kind, "", str(error)) from error
        event = Event(len(self._events), kind, prev, time, _fields(decode_canonical(line)), line)
        self._unfinished = True
        try:
            self._stream.write(line + b"\n")
            if not self._batched:
                self._sync()
        except (OSError, ValueError) as error:
            raise self._given_up(error) from error
        self._events.append(event)
        self._unfinished = False
        return event

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Write the events of a block together: they are durable when the block has ended without an error.

        Raises:
            LogWriteError: The disk refuses; the log must be opened again.
        """
        self._batched = True
        try:
            yield
        except BaseException:
            self._batched = False
            with suppress(OSError, ValueError):  # what went wrong first is what is to be told
                self._sync()
            raise
        self._batched = False
        try:
            self._sync()
        except (OSError, ValueError) as error:
            raise self._given_up(error) from error

    def close(self) -> None:
        """Close the file and let other processes write."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_again(self) -> None:
        """Take the events from the file: a signal has interrupted `append`, and its line may stand there already."""
        try:
            self._sync()
            self._events = parse_events(self.path.read_bytes())
        except (OSError, ValueError) as error:
            raise self._given_up(error) from error
        self._unfinished = False

    def _given_up(self, error: Exception) -> LogWriteError:
        """Close the file after an error of the disk; return what is to be raised."""
        with suppress(OSError):  # closing writes what is left, and the disk refuses again
            self._stream.close()
        step = "see that its disk works and has space, and open the log again"
        return LogWriteError(self.path, f"cannot be written ({error}); {step}")

    def _sync(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())


def read_events(path: Path) -> list[Event]:
    """Return the events of a log after verifying lines, schema and chain.

    Raises:
        EvidenceError: The file is missing, or the named event does not verify.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        raise EvidenceError(-1, f"{path} cannot be read ({error.strerror})") from error
    return parse_events(content)


def parse_events(content: bytes) -> list[Event]:
    """Return the events of a log's bytes.

    Raises:
        EvidenceError: The first event that does not verify, and why.
    """
    if not content:
        raise EvidenceError(-1, "the log is empty")
    lines = content.split(b"\n")
    unfinished = lines.pop()
    events: list[Event] = []
    prev = GENESIS
    for line in lines:
        event = _parse_line(line, len(events), prev)
        prev = event.digest
        events.append(event)
    if unfinished:
        raise EvidenceError(len(events), "the last line is incomplete")
    return events


def set_back(events: Sequence[Event]) -> str:
    """Return where a log's clock went back, in words, and "" where it never did: order is by chain and not by time."""
    late = [(before, event) for before, event in pairwise(events) if event.time < before.time]
    if not late:
        return ""
    before, event = late[0]
    more = f", and {len(late) - 1} times more" if late[1:] else ""
    return f"the clock of the log went back at event {event.seq}, from {before.time} to {event.time}{more}"


def _parse_line(line: bytes, seq: int, prev: str) -> Event:
    if len(line) > MAX_LINE:
        raise EvidenceError(seq, f"the line has {len(line)} bytes, at most {MAX_LINE} are read")
    try:
        value = decode_canonical(line)
    except CanonicalError as error:
        raise EvidenceError(seq, f"the line is {error}") from error
    if not isinstance(value, Mapping):
        raise EvidenceError(seq, "the line is no object")
    try:
        check_envelope(value)
        fields = _fields(value)
        check_fields(str(value["kind"]), fields)
    except EventRefusedError as error:
        raise EvidenceError(seq, str(error)) from error
    except RecursionError:
        raise EvidenceError(seq, "the line is nested too deeply") from None
    if value["seq"] != seq:
        raise EvidenceError(seq, f"says it is event {value['seq']}: an event was removed, added or moved")
    if value["prev"] != prev:
        raise EvidenceError(seq, "does not follow from the event before it: one of the two was changed")
    if (value["kind"] == "run_started") != (seq == 0):
        raise EvidenceError(seq, "a log begins with run_started, and has no other")
    return Event(seq, str(value["kind"]), prev, str(value["time"]), fields, line)


def _fields(value: JSON) -> Mapping[str, JSON]:
    assert isinstance(value, Mapping)  # noqa: S101 (narrows the type)
    return MappingProxyType({name: item for name, item in value.items() if name not in RESERVED})


def _format_time(now: datetime) -> str:
    if now.tzinfo is None:
        raise ValueError("the clock must return times with a time zone")
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _locked(stream: BinaryIO, path: Path, wait: float = 0.0) -> BinaryIO:
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                stream.close()
                raise LogLockedError(path) from error
            time.sleep(_POLL)
        else:
            return stream
