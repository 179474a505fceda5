"""Ledgers that are looked at: nothing is written to them or beside them, and one that is written is read as it is."""

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from audit.errors import EvidenceError
from audit.ledger import Ledger, LedgerError, NoLedgerError, budget_lines, check_ledger
from tests.audit.ledger.money import ACCOUNT, charge, policy


def beside(folder):
    """Names and contents of a folder, and when a name in it came or went for the last time."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}, folder.stat().st_mtime_ns


@pytest.fixture
def closed(path):
    with Ledger(path) as ledger:
        ledger.install(policy())
        ledger.reserve(ACCOUNT, charge("one"))
    return path


def test_a_ledger_at_rest_is_read_without_a_file_made_in_its_folder(closed):
    """So media that are read-only will do, and none of the reader's files keeps a node from its ledger."""
    before = beside(closed.parent)
    with Ledger.reading(closed) as ledger:
        assert [line["charges"] for line in budget_lines(ledger)] == [1]
    assert check_ledger(closed, {}) == "0 charges of 0 logs agree with the ledger; no budget was exceeded"
    assert beside(closed.parent) == before


def test_a_ledger_that_a_node_writes_is_read_as_it_is_at_that_instant(path, ledger):
    ledger.reserve(ACCOUNT, charge("one"))
    with Ledger.reading(path) as read:
        digest = ledger.digest
        ledger.reserve(ACCOUNT, charge("later"))
        assert (len(read.charges()), read.digest) == (1, digest)
    with Ledger.reading(path) as read:
        assert (len(read.charges()), read.digest) == (2, ledger.digest)
    assert path.with_name("ledger.db-wal").stat().st_size > 0


def test_charges_that_a_killed_node_has_left_in_the_wal_are_read(path, ledger, tmp_path):
    ledger.reserve(ACCOUNT, charge("one"))
    (tmp_path / "copy").mkdir()
    for name in ("ledger.db", "ledger.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / "copy" / name)
    with Ledger.reading(tmp_path / "copy" / "ledger.db") as read:
        assert read.digest == ledger.digest
    with Ledger(tmp_path / "copy" / "ledger.db") as again:
        assert again.digest == ledger.digest


def test_a_wal_that_cannot_be_read_is_named(closed, monkeypatch):
    closed.with_name("ledger.db-wal").write_bytes(b"x" * 100)
    monkeypatch.setattr(sqlite3, "connect", lambda *_, **__: refuse())

    def refuse():
        raise sqlite3.OperationalError("unable to open database file")

    with pytest.raises(NoLedgerError, match="wal holds entries too: copy both to where you may write"):
        Ledger.reading(closed)


def test_what_a_killed_writer_has_not_committed_is_not_read(closed, tmp_path):
    """With a journal beside it the file alone holds entries of a transaction that was never finished."""
    (tmp_path / "copy").mkdir()
    with closing(sqlite3.connect(closed, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = DELETE")
        writer.execute("PRAGMA cache_size = 1")
        writer.execute("BEGIN")
        writer.executemany("INSERT INTO entries VALUES (?, ?)", ((seq, b"x" * 4000) for seq in range(100, 200)))
        for name in ("ledger.db", "ledger.db-journal"):
            shutil.copy(closed.with_name(name), tmp_path / "copy" / name)
    with pytest.raises(NoLedgerError, match="is no ledger or cannot be read"):
        Ledger.reading(tmp_path / "copy" / "ledger.db")


def test_an_empty_wal_holds_nothing(closed):
    closed.with_name("ledger.db-wal").touch()
    before = beside(closed.parent)
    with Ledger.reading(closed) as ledger:
        assert len(ledger.charges()) == 1
    assert beside(closed.parent) == before


def test_a_writer_that_came_and_went_meanwhile_is_noticed(closed, monkeypatch):
    connect, opened = sqlite3.connect, []

    def disturbed(address, **options):
        if "immutable" in str(address) and not opened:
            opened.append(address)
            with Ledger(closed) as ledger:
                found = connect(address, **options)
                found.execute("SELECT * FROM entries").fetchall()  # it is opened now, and reads the file of now
                ledger.reserve(ACCOUNT, charge("meanwhile"))
            return found
        return connect(address, **options)

    monkeypatch.setattr(sqlite3, "connect", disturbed)
    with Ledger.reading(closed) as ledger:
        assert [spent.charge.release_id for spent in ledger.charges()] == ["one", "meanwhile"]


def test_what_is_read_cannot_be_charged(closed):
    with Ledger.reading(closed) as ledger, pytest.raises(LedgerError, match="readonly database"):
        ledger.reserve(ACCOUNT, charge("two"))


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_what_is_no_ledger_is_refused_and_left_as_it_is(path, content):
    path.write_bytes(content)
    with pytest.raises(NoLedgerError, match="is no ledger or cannot be read"):
        Ledger.reading(path)
    assert beside(path.parent)[0] == {"ledger.db": content}
    assert NoLedgerError.exit_code == 2


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([(0, "text")], "its entries are no bytes"),
        ([(0, b"{}"), (0, b"{}")], "UNIQUE constraint failed"),
        ([(-1, b"{}")], "CHECK constraint failed"),
        ([("a", b"{}")], "datatype mismatch"),
    ],
)
def test_a_table_of_entries_that_no_ledger_can_have_is_none(path, rows, reason):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE entries (seq, line)")
        connection.executemany("INSERT INTO entries VALUES (?, ?)", rows)
    with pytest.raises(NoLedgerError, match=reason):
        Ledger.reading(path)
    with pytest.raises(LedgerError):
        check_ledger(path, {})


def test_a_changed_entry_is_a_finding_and_no_wrong_file(closed):
    connection = sqlite3.connect(closed)
    connection.execute("UPDATE entries SET line = x'00' WHERE seq = 1")
    connection.commit()
    connection.close()
    with pytest.raises(EvidenceError):
        Ledger.reading(closed)


def test_a_folder_that_cannot_be_written_will_do(closed):
    """Root may write everywhere: there the ledger is read as a user who may not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ledger = folder / "ledger.sqlite"
        ledger.write_bytes(closed.read_bytes())
        ledger.chmod(0o444)
        folder.chmod(0o555)
        try:
            assert _charges_seen_by_a_user(ledger) == 1
            assert [path.name for path in folder.iterdir()] == ["ledger.sqlite"]
        finally:
            folder.chmod(0o700)


def _charges_seen_by_a_user(ledger):
    child = os.fork()
    if child == 0:
        found = 255
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            assert not os.access(ledger.parent, os.W_OK)
            with Ledger.reading(ledger) as opened:
                found = len(opened.charges())
        finally:
            os._exit(found)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
