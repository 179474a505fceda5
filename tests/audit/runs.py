"""Logs, keys and run folders to test on, made with a clock that ticks and keys that are known."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import EventLog
from audit.heads import HeadBook, Witness
from audit.roster import Roster

D = "ab" * 32
SITES = ("north", "south", "west")


class Ticks:
    """A clock that moves one second a call."""

    def __init__(self):
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self):
        self.now += timedelta(seconds=1)
        return self.now


def key_of(name):
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def roster_of(sites=SITES):
    return Roster.of(key_of("server"), {site: key_of(site) for site in sites})


def round_fields(number, sites=SITES):
    up = {"MaskedInputCollection": {"payload": 1000 + number, "overhead": 10}, "Unmasking": {"shares": 64}}
    return {
        "round": number,
        "cohort": list(sites),
        "survivors": list(sites),
        "dropouts": {},
        "aggregate_digest": hashlib.sha256(str(number).encode()).hexdigest(),
        "model_digest": hashlib.sha256(f"model {number}".encode()).hexdigest(),
        "bytes": {site: {"up": up, "down": {"AdvertiseKeys": {"payload": 2000}}} for site in sites},
    }


class Run:
    """A run folder with a log, heads and the files that the log names."""

    def __init__(self, folder, rounds=3, sites=SITES, run_id="r1"):
        self.folder = folder
        self.sites = sites
        self.roster = roster_of(sites)
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text("[federation]\nrounds = 3\n")
        (folder / "roster.json").write_bytes(self.roster.encode())
        self.log = EventLog.create(folder / "audit.jsonl", {"run_id": run_id, "operation": "simulation"}, Ticks())
        keys = {"server": self.roster.server, "hospitals": dict(self.roster.hospitals)}
        self.log.append("roster", {"digest": self.roster.digest, **keys})
        self.log.append("config", {"digest": self.digest("config.toml"), "values": {"federation": {"rounds": rounds}}})
        self.book = HeadBook(self.log, key_of("server"), self.roster, folder / "heads.jsonl")
        self.witnesses = []
        for site in sites:
            (folder / "sites" / site).mkdir(parents=True)
            path = folder / "sites" / site / "heads.jsonl"
            self.witnesses.append(Witness(site, key_of(site), self.roster.server, path, run_id))
        for number in range(1, rounds + 1):
            self.round(number)

    def digest(self, name):
        return hashlib.sha256((self.folder / name).read_bytes()).hexdigest()

    def round(self, number):
        start = {"round": number, "cohort": list(self.sites), "model_digest": D}
        self.log.append("round_started", start)
        self.log.append("round_completed", round_fields(number, self.sites))
        self.book.publish(number, self.witnesses)

    def complete(self, rounds=3, up=None, down=None):
        sites = len(self.sites)
        up = sum(1074 + number for number in range(1, rounds + 1)) * sites if up is None else up
        down = 2000 * rounds * sites if down is None else down
        summary = {"rounds_completed": rounds, "communication": {"upload_bytes": up, "download_bytes": down}}
        (self.folder / "summary.json").write_text(json.dumps(summary))
        files = {name: self.digest(name) for name in ("config.toml", "summary.json")}
        self.log.append("run_completed", {"rounds": rounds, "chosen_round": rounds, "files": files})
        self.book.publish(rounds, self.witnesses)
        self.log.close()
        return self.folder
