"""The database of a ledger: opened to be charged, or read as it is at one instant."""

import sqlite3
from contextlib import closing
from pathlib import Path

from audit.ledger.errors import LedgerError, NoLedgerError

_WAIT_SECONDS = 120.0
_SCHEMA = "CREATE TABLE IF NOT EXISTS entries (seq INTEGER PRIMARY KEY CHECK (seq >= 0), line BLOB NOT NULL) STRICT"
_UNFINISHED = ("-wal", "-journal")
"""What SQLite appends to the name of a database for the files of whoever writes it, or was killed while writing."""

_ATTEMPTS = 5
"""Reading begins anew where a writer came meanwhile; five in a row are no chance."""


def open_database(path: Path) -> sqlite3.Connection:
    """Open a database to write to, made where it is new; raises LedgerError."""
    try:
        if not path.exists():  # a new one is its owner's alone, and so are the files that SQLite puts beside it
            path.touch(mode=0o600)
    except OSError as error:
        raise LedgerError(path, f"cannot be opened ({error.strerror})") from error
    try:
        connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
    except sqlite3.Error as error:
        raise LedgerError(path, f"cannot be opened ({error})") from error
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(_SCHEMA)
    except sqlite3.Error as error:
        connection.close()
        raise LedgerError(path, f"is no ledger or cannot be used ({error})") from error
    return connection


def read_database(path: Path) -> sqlite3.Connection:
    """Return a copy in memory of the entries that a database holds at one instant; it refuses to be written to.

    One at rest is read without files made beside it, which its writers might not be allowed to open, and may lie on
    read-only media. While somebody writes it, or was killed at that, SQLite takes the entries from all its files.

    Raises:
        NoLedgerError: There is none, or it cannot be read.
    """
    try:
        return _in_memory(_rows(path.resolve(strict=True)))
    except OSError as error:
        raise NoLedgerError(path, f"cannot be read ({error.strerror})") from error
    except sqlite3.Error as error:
        wal = path.with_name(path.name + "-wal")
        copy = f"; {wal.name} holds entries too: copy both to where you may write" if wal.exists() else ""
        raise NoLedgerError(
            path, f"is no ledger or cannot be read ({error}); name a file that runs charge{copy}"
        ) from error


def _in_memory(rows: list[tuple[int, bytes]]) -> sqlite3.Connection:
    memory = sqlite3.connect(":memory:", isolation_level=None)
    try:
        memory.execute(_SCHEMA)
        memory.executemany("INSERT INTO entries (seq, line) VALUES (?, ?)", rows)
        memory.execute("PRAGMA query_only = ON")
    except sqlite3.Error:  # a table of these names without what a ledger's keeps to, such as one entry a number
        memory.close()
        raise
    return memory


def _rows(path: Path) -> list[tuple[int, bytes]]:
    for _ in range(_ATTEMPTS):
        before = _at_rest(path)
        how = "mode=ro" if before is None else "mode=ro&immutable=1"
        with closing(sqlite3.connect(f"{path.as_uri()}?{how}", timeout=_WAIT_SECONDS, uri=True)) as source:
            rows = source.execute("SELECT seq, line FROM entries ORDER BY seq").fetchall()
        if any(not isinstance(line, bytes) for _, line in rows):
            raise sqlite3.DatabaseError("its entries are no bytes")
        if before is None or before == _at_rest(path):
            return rows
    raise sqlite3.OperationalError("it was written at every attempt")


def _at_rest(path: Path) -> tuple[int, int, int] | None:
    """Return which state of a database its file alone holds; None where a file beside it can hold more."""
    if any(_size(path.with_name(path.name + suffix)) for suffix in _UNFINISHED):
        return None
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _size(path: Path) -> int:
    """Return the bytes of a file that may go at any time; 0 where it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
