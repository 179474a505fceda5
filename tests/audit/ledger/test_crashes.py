"""Processes that charge at once and processes that are killed: never overspent, never a lost charge."""

import multiprocessing
import os
import signal
import time

import pytest

from audit import EventLog
from audit.accounting import Gaussian, Repeated, affordable_steps, upper_epsilon
from audit.ledger import FaultPoint, Ledger, check_ledger
from tests.audit.ledger.money import ACCOUNT, NOISE, charge, die_at, policy, spend_until_refused, write_forever

SPAWN = multiprocessing.get_context("spawn")


def open_ledger(path, epsilon=3.0):
    ledger = Ledger(path)
    ledger.install(policy(epsilon))
    return ledger


def test_eight_processes_spend_one_budget_exactly(tmp_path):
    path = tmp_path / "ledger.db"
    open_ledger(path).close()
    barrier, accepted = SPAWN.Barrier(8), SPAWN.Queue()
    processes = [
        SPAWN.Process(target=spend_until_refused, args=(path, worker, barrier, accepted)) for worker in range(8)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    names = set()
    while not accepted.empty():
        names.add(accepted.get())
    with Ledger(path) as ledger:
        status = ledger.status(ACCOUNT)
        assert {spent.charge.release_id for spent in status.charges} == names
        assert {spent.state for spent in status.charges} == {"committed"}
        assert status.spent <= 3.0
        assert len(names) == affordable_steps([Repeated(NOISE)], 3.0, 1e-5)
        assert len(ledger.entries("refused")) == 8


@pytest.mark.parametrize("point", [*FaultPoint, "before sending", "after sending", "never"])
def test_killed_between_any_two_steps(tmp_path, point):
    path = tmp_path / "ledger.db"
    open_ledger(path).close()
    process = SPAWN.Process(target=die_at, args=(point, tmp_path))
    process.start()
    process.join(60)
    assert process.exitcode == (0 if point == "never" else -signal.SIGKILL)
    sent = (tmp_path / "sent").exists()
    with Ledger(path) as ledger:
        status = ledger.status(ACCOUNT)
        charged = bool(status.charges)
        assert charged or not sent, "a value left without a charge"
        assert charged == (point not in (FaultPoint.BEFORE_RESERVE, FaultPoint.WITHIN_RESERVE))
        assert status.spent == upper_epsilon([Repeated(NOISE)] if charged else [], 1e-5)
        ledger.reserve(ACCOUNT, charge("after the crash"))
    with EventLog.open(tmp_path / "audit.jsonl") as log:
        assert check_ledger(path, {"r1": log.events})
        if sent:
            assert any(event.kind == "privacy_event" for event in log.events)


def test_reservations_survive_kills_at_arbitrary_instants(tmp_path):
    path = tmp_path / "ledger.db"
    open_ledger(path).close()
    acknowledged = 0
    for delay in (0.0, 0.013, 0.031):
        started = SPAWN.Value("i", 0)
        process = SPAWN.Process(target=write_forever, args=(path, started))
        process.start()
        while started.value < 3:
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        acknowledged += started.value
    with Ledger(path) as ledger:
        charges = len(ledger.charges())
        assert acknowledged <= charges <= acknowledged + 3
        assert ledger.status(ACCOUNT).spent == upper_epsilon([Repeated(Gaussian(1e6), charges)], 1e-5)
