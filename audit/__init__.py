"""Evidence: the event log, its verification, privacy accounting, ledger and reports. No torch anywhere."""

from audit.errors import (
    AuditError,
    EventRefusedError,
    EvidenceError,
    LogLockedError,
    LogWriteError,
)
from audit.log import Event, EventLog, read_events, system_clock

__all__ = [
    "AuditError",
    "Event",
    "EventLog",
    "EventRefusedError",
    "EvidenceError",
    "LogLockedError",
    "LogWriteError",
    "read_events",
    "system_clock",
]
