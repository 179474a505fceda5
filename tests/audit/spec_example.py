"""The example of audit/SPEC.md: a log of three events, its head and signatures, from known keys and a known clock."""

import hashlib
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.events import KINDS
from audit.heads import HeadBook, Witness
from audit.log import EventLog
from audit.merkle import MerkleTree, leaf_hash
from audit.roster import Roster


def key_of(name):
    """Ed25519 key whose 32 secret bytes are SHA-256 of `securefed example key ` and a name."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"securefed example key " + name.encode()).digest())


class Seconds:
    """A clock at 2026-01-02 03:04:05 UTC that moves one second a reading."""

    def __init__(self):
        self.now = datetime(2026, 1, 2, 3, 4, 4, tzinfo=UTC)

    def __call__(self):
        self.now += timedelta(seconds=1)
        return self.now


def example():
    """Return {block name: text} of every block of the specification that the code decides."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        roster = Roster.of(key_of("server"), {site: key_of(site) for site in ("north", "south")})
        header = {"run_id": "example", "operation": "simulation"}
        with EventLog.create(folder / "audit.jsonl", header, Seconds()) as log:
            keys = {"server": roster.server, "hospitals": dict(roster.hospitals)}
            log.append("roster", {"digest": roster.digest, **keys})
            log.append("interrupted", {"round": 0, "reason": "the example ends"})
            book = HeadBook(log, key_of("server"), roster, folder / "heads.jsonl")
            witnesses = [
                Witness(site, key_of(site), roster.server, folder / f"{site}.jsonl", "example")
                for site in ("north", "south")
            ]
            signed = book.publish(0, witnesses)
            tree = MerkleTree([event.line for event in log.events])
            blocks = {
                "roster": roster.encode().decode().rstrip("\n"),
                "log": (folder / "audit.jsonl").read_text().rstrip("\n"),
                "leaves": "\n".join(leaf_hash(event.line).hex() for event in log.events),
                "root": tree.root().hex(),
                "inclusion": "\n".join(node.hex() for node in tree.inclusion_proof(1, 3)),
                "consistency": "\n".join(node.hex() for node in tree.consistency_proof(2, 3)),
                "head": signed.head.encode().decode(),
                "heads": (folder / "heads.jsonl").read_text().rstrip("\n"),
            }
    blocks["kinds"] = "\n".join(f"{kind} {record.describe()}" for kind, record in KINDS.items()).replace("\\|", "|")
    return blocks
