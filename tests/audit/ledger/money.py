"""A ledger with one budget, and processes that use it and die."""

import os
import signal
from pathlib import Path

from audit import EventLog
from audit.accounting import Adjacency, Gaussian
from audit.ledger import Account, Budget, BudgetLine, Charge, FaultPoint, Ledger, Policy, charged_release
from tests.audit.runs import key_of

FINGERPRINT = "ab" * 32
ACCOUNT = Account("north", FINGERPRINT, "image")
LINE = BudgetLine("north", "image")
SIGNER = key_of("data protection officer")
NOISE = Gaussian(4.0)


def policy(epsilon=3.0, unit="image", delta=1e-5):
    signer = SIGNER.public_key().public_bytes_raw().hex()
    return Policy({BudgetLine("north", unit): Budget(epsilon, delta, Adjacency.ADD_OR_REMOVE_ONE, signer)})


def policy_text(signer):
    """A policy file with the same budget; `signer` is a public key in hexadecimal digits."""
    return f"""
format = "securefed-budget-policy/1"

[[budget]]
hospital = "north"
unit = "image"
epsilon = 3
delta = 1e-5
adjacency = "add-or-remove-one"
signer = "{signer}"
"""


def charge(name, mechanism=NOISE, repetitions=1, run_id="r1"):
    return Charge(run_id, name, mechanism, repetitions)


def spend_until_refused(path, worker, barrier, accepted):
    """Reserve, release and commit until the budget is empty; report every accepted release."""
    from audit.ledger import BudgetExceededError

    with Ledger(path) as ledger:
        barrier.wait()
        number = 0
        while True:
            name = f"{worker}-{number}"
            try:
                ledger.reserve(ACCOUNT, charge(name))
            except BudgetExceededError:
                return
            accepted.put(name)
            ledger.release(name)
            ledger.commit(name)
            number += 1


def die_at(point: FaultPoint | str, folder: Path):
    """Release one value into a file `sent`, and be killed at a point."""

    def fault(reached):
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def send():
        if point == "before sending":
            os.kill(os.getpid(), signal.SIGKILL)
        (folder / "sent").write_text("noisy value")
        if point == "after sending":
            os.kill(os.getpid(), signal.SIGKILL)

    with (
        Ledger(folder / "ledger.db", fault=fault) as ledger,
        EventLog.create(folder / "audit.jsonl", {"run_id": "r1", "operation": "simulation"}) as log,
    ):
        charged_release(ledger, log, ACCOUNT, charge("first"), send, round=1)


def write_forever(path, started):
    """Reserve tiny charges until killed; `started` counts those that `reserve` returned for."""
    with Ledger(path) as ledger:
        number = 0
        while True:
            ledger.reserve(ACCOUNT, charge(f"{os.getpid()}-{number}", Gaussian(1e6)))
            number += 1
            started.value = number


def stopped_after_reserving(monkeypatch, charges):
    """Stop a run right after its ledger has so many charges of this process; return their names as they come."""
    reserve, names = Ledger.reserve, []

    def stop(self, account, charge):
        epsilon = reserve(self, account, charge)
        names.append(charge.release_id)
        if len(names) == charges:
            raise KeyboardInterrupt
        return epsilon

    monkeypatch.setattr(Ledger, "reserve", stop)
    return names
