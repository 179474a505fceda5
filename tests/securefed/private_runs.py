"""What tests of private runs share."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.accounting import Adjacency
from audit.ledger import Budget, BudgetLine, Ledger, Policy
from audit.log import read_events
from securefed.simulation import simulate

SITES = tuple(f"site{number}" for number in range(5))


LOCAL = {"mode": "local", "epsilon": 8.0}


def run(config, tmp_path, name="run", **more):
    return simulate(config, output=tmp_path / name, cache_dir=tmp_path / "cache", **more)


def events_of(folder, kind):
    return [event for event in read_events(folder / "audit.jsonl") if event.kind == kind]


def budgets(path, epsilon, sites=SITES):
    signer = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    budget = Budget(epsilon, 1e-5, Adjacency.ADD_OR_REMOVE_ONE, signer)
    with Ledger(path) as ledger:
        ledger.install(Policy({BudgetLine(site, "image"): budget for site in sites}))
