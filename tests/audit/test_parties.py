"""A simulated run is signed by parties with keys of their own, also after a restart."""

import errno
from pathlib import Path

import pytest

from audit import EventLog
from audit.errors import LogWriteError
from audit.parties import SimulatedParties
from audit.verify import Outcome, verify_run
from tests.audit.runs import Ticks


def folders(tmp_path):
    sites = {name: tmp_path / "sites" / name for name in ("north", "south")}
    for path in sites.values():
        path.mkdir(parents=True, exist_ok=True)
    return sites


def test_a_run_is_signed_and_goes_on_after_a_restart(tmp_path):
    parties = SimulatedParties(tmp_path, folders(tmp_path))
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "r", "operation": "simulation"}, Ticks()) as log:
        parties.announce(log)
        parties.publish(log, 0, ["north", "south"])
    again = SimulatedParties(tmp_path, folders(tmp_path))
    assert again.roster == parties.roster
    with EventLog.open(tmp_path / "audit.jsonl", Ticks()) as log:
        log.append("interrupted", {"round": 0, "reason": "x"})
        again.publish(log, 0, ["north"])
        log.append("resumed", {"round": 0})
        signed = again.publish(log, 0, ["north", "south"])
    assert signed.head.size == 4
    signatures = verify_run(tmp_path).checks[2]
    assert signatures.outcome is Outcome.PASS
    assert "3 tree heads (5 copies as hospitals kept them), signed by 3 of 3 parties" in signatures.detail
    for path in (tmp_path / "server.key", tmp_path / "sites" / "north" / "identity.key"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_two_runs_have_different_keys(tmp_path):
    rosters = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        rosters.append(SimulatedParties(tmp_path / name, folders(tmp_path / name)).roster)
    assert not {rosters[0].server, *rosters[0].hospitals.values()} & {
        rosters[1].server,
        *rosters[1].hospitals.values(),
    }


def test_a_roster_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(path, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(LogWriteError, match="No space left"):
            SimulatedParties(tmp_path, folders(tmp_path))
    parties = SimulatedParties(tmp_path, folders(tmp_path))
    assert set(parties.roster.hospitals) == {"north", "south"}
