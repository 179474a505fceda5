"""What a caller of the evidence package may have to react to.

AuditError
    EventRefusedError    an event is not of a known kind or its fields are not as declared: fix the caller
    LogLockedError       another process is writing this log: wait for it or use another folder
    FileError            a file cannot be used as asked
        LogWriteError    the log cannot be created or written where asked
        KeyFileError     a signing key cannot be made or read where asked
    EvidenceError        a record does not verify: do not trust it (exit code 3)
    AccountingUnavailableError    a library that computes epsilon is missing: install it
    NothingToCompareError    a check has nothing that it could hold against the record: absent, not passed
"""

from pathlib import Path


class AuditError(Exception):
    """Base of all errors that `audit` raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class EventRefusedError(AuditError):
    """An event may not enter a log: `kind` is unknown, or the field at `where` is not as declared."""

    def __init__(self, kind: str, where: str, reason: str) -> None:
        super().__init__(f"event {kind!r}, {where}: {reason}" if where else f"event {kind!r}: {reason}")
        self.kind = kind
        self.where = where
        self.reason = reason


class LogLockedError(AuditError):
    """Another process holds the log open for writing."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: is being written by another process; wait until that run has ended")
        self.path = path


class FileError(AuditError):
    """The file at `path` cannot be used as asked, for `reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class LogWriteError(FileError):
    """The log cannot be created, opened or written."""


class KeyFileError(FileError):
    """A signing key cannot be made or read; its bytes are in no message."""


class EvidenceError(AuditError):
    """A record does not verify.

    Attributes:
        seq: Sequence number of the first bad event, -1 where the fault lies in no single event.
        reason: What is wrong with it.
    """

    exit_code = 3

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(f"event {seq}: {reason}" if seq >= 0 else reason)
        self.seq = seq
        self.reason = reason


class AccountingUnavailableError(AuditError):
    """A library that computes epsilon is not installed; `library` is its name."""

    def __init__(self, library: str) -> None:
        super().__init__(f"{library} is needed to compute epsilon and is not installed; pip install {library}")
        self.library = library


class NothingToCompareError(AuditError):
    """A check finds nothing that it could hold against the record, for the reason that it says: absent, not passed."""
