"""Logs, keys and run folders to test on, made with a clock that ticks and keys that are known."""

import csv
import hashlib
import json
import struct
from collections import Counter
from datetime import UTC, datetime, timedelta

import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import EventLog
from audit.accounting import Repeated, SampledGaussian, mechanism_fields, upper_epsilon
from audit.canonical import decode_canonical, encode_canonical
from audit.heads import HeadBook, Witness
from audit.history import read_history
from audit.log import GENESIS
from audit.roster import Roster

D = "ab" * 32
RESULTS = ("config.toml", "summary.json", "fam.safetensors", "bytes.csv")
SITES = ("north", "south", "west")
DIMENSION = 1000
STEP = SampledGaussian(1.2, 0.016)
STEPS = 62


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


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def model_of(number):
    """The parameters of the model after a round: two tensors."""
    values = range(number, number + DIMENSION // 2)
    return {"fam.b": struct.pack(f"<{len(values)}f", *values), "fam.a": b"".join(struct.pack("<f", -v) for v in values)}


def model_digest(number):
    return sha256(b"".join(model_of(number).values()))


def safetensors(tensors, metadata):
    header, data = {"__metadata__": metadata}, b""
    for name in sorted(tensors):
        header[name] = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + len(tensors[name])]}
        data += tensors[name]
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def round_fields(number, sites=SITES):
    up = {"MaskedInputCollection": {"payload": 1000 + number, "overhead": 10}, "Unmasking": {"shares": 64}}
    return {
        "round": number,
        "cohort": list(sites),
        "survivors": list(sites),
        "dropouts": {},
        "aggregate_digest": sha256(str(number).encode()),
        "model_digest": model_digest(number),
        "bytes": {site: {"up": up, "down": {"AdvertiseKeys": {"payload": 2000}}} for site in sites},
    }


def configuration(rounds, *, private=False, masked=False):
    """The sections of a configuration that verification reads."""
    privacy = {"mode": "off"}
    if private:
        privacy = {"mode": "local", "unit": "image", "adjacency": "add-or-remove-one", "delta": 1e-5, "epsilon": 0.0}
        privacy |= {"noise_multiplier": STEP.noise_multiplier, "sampling_rate": STEP.sampling_rate, "steps": STEPS}
        privacy |= {"noise": "system", "max_colluders": 0}
    sums = {"enabled": masked, "threat_model": "active", "threshold": 0, "corrupt": -1, "losses": 0.1}
    sums |= {"compression": "none"}
    return {"federation": {"rounds": rounds, "rate": 1.0}, "secure_aggregation": sums, "privacy": privacy}


def summary_of(history, rounds):
    """What summary.json says of a finished log: settings, sums, the claim, and metrics of which there is one value."""
    config, claim = history.last("config").fields, history.claim.fields
    logged = dict(history.last("evaluation").fields["values"])
    guest = history.last("data_described").fields.get("held_out_site") if history.last("data_described") else None
    held_out = {"global_site": {"site": guest, **logged.pop(guest)} if guest in logged else None}
    over_sites = {**held_out, "mean": next(iter(logged.values())), "worst": next(iter(logged.values()))}
    protocol = history.last("protocol_described")
    sums = {} if protocol is None else dict(protocol.fields)
    compressed = {name: value for name, value in sums.get("values", {}).items() if name == "compression"}
    last = {round_.number: round_.dropouts for round_ in history.rounds}
    lost = Counter(stage for dropouts in last.values() for stage in dropouts.values())
    return {
        "rounds_completed": rounds,
        "chosen_round": rounds,
        "fam_sha256": model_digest(rounds),
        "config": config["values"],
        "config_digest": config["digest"],
        "method": config["values"]["federation"].get("method"),
        "sites": {site: {"test": metrics} for site, metrics in logged.items()},
        **over_sites,
        "secure_aggregation": {
            **sums,
            "enabled": sums.get("secure_aggregation", False),
            "dropouts": lost,
            **compressed,
        },
        "privacy": {
            "mode": claim["mode"],
            "unit": claim.get("unit"),
            "claim": f"{claim['claim']}: {claim['reason']}",
            "target_epsilon": claim.get("target_epsilon"),
            "coupling": claim.get("values", {}).get("coupling"),
            "mechanism": claim.get("values", {}),
            "unprotected": claim.get("unprotected"),
        },
        "provenance": provenance_of(history),
    }


def provenance_of(history):
    data, encoder = history.last("data_described"), history.last("encoder_described")
    found = {} if encoder is None else {"encoder": encoder.fields["name"], "encoder_digest": encoder.fields["digest"]}
    if data is not None:
        found |= {"data_fingerprint": data.fields["fingerprint"], "data_keyed": data.fields.get("keyed", False)}
    return found


def communication_of(history):
    """The block of summary.json, as securefed/summary.py has it."""
    ways, counts = {"up": "upload", "down": "download"}, {"stage": {}, "kind": {}}
    for row in (row for attempt in history.attempts for row in attempt.byte_rows()):
        for name, found in counts.items():
            one = found.setdefault(getattr(row, name), Counter())
            one[ways[row.way]] += row.bytes
    clients = max(1, sum(len(record.bytes) for record in history.training))
    mean = {way: sum(record.total(way) for record in history.training) / clients for way in ways}
    return {
        "upload_bytes": history.byte_total("up", all_sent=True),
        "download_bytes": history.byte_total("down", all_sent=True),
        "upload_bytes_per_client_round": mean["up"],
        "download_bytes_per_client_round": mean["down"],
        "by_stage": counts["stage"],
        "by_kind": counts["kind"],
        "ratio_to_fedavg_clip": 151_277_313 * 4 / mean["up"] if mean["up"] else None,
        "ratio_to_paper_fam": 1_426_063 / mean["up"] if mean["up"] else None,
    }


class Run:
    """A run folder with a log, heads and the files that the log names."""

    def __init__(self, folder, rounds=3, sites=SITES, run_id="r1", private=False, masked=False):
        self.folder = folder
        self.sites = sites
        self.private = private
        self.roster = roster_of(sites)
        folder.mkdir(parents=True)
        values = configuration(rounds, private=private, masked=masked)
        (folder / "config.toml").write_text(tomli_w.dumps(values))
        (folder / "roster.json").write_bytes(self.roster.encode())
        self.log = EventLog.create(folder / "audit.jsonl", {"run_id": run_id, "operation": "simulation"}, Ticks())
        keys = {"server": self.roster.server, "hospitals": dict(self.roster.hospitals)}
        self.log.append("roster", {"digest": self.roster.digest, **keys})
        self.log.append("config", {"digest": sha256(encode_canonical(values)), "values": values})
        claim = {"mode": "off", "claim": "NOT CLAIMED", "reason": "no noise was added"}
        if private:
            claim = {"mode": "local", "claim": "CLAIMED", "reason": "joint DP-SGD at each hospital"}
            claim |= {"unit": "image", "adjacency": "add-or-remove-one", "delta": 1e-5, "values": {"noise": "system"}}
        self.log.append("privacy_claim", claim)
        self.book = HeadBook(self.log, key_of("server"), self.roster, folder / "heads.jsonl")
        self.witnesses = []
        for site in sites:
            (folder / "sites" / site).mkdir(parents=True)
            path = folder / "sites" / site / "heads.jsonl"
            self.witnesses.append(Witness(site, key_of(site), self.roster.server, path, run_id))
        for number in range(1, rounds + 1):
            self.round(number)

    def digest(self, name):
        return sha256((self.folder / name).read_bytes())

    def has(self, kind):
        return any(event.kind == kind for event in self.log.events)

    def describe(self):
        data = {"name": "scans", "fingerprint": D, "sites": list(self.sites), "classes": ["a", "b"]}
        self.log.append("data_described", data)

    def start(self, number):
        if not self.has("data_described"):
            self.describe()
        fields = {"round": number, "cohort": list(self.sites), "model_digest": model_digest(number - 1)}
        self.log.append("round_started", fields)
        if self.private:
            for site in self.sites:
                noise = {"mechanism": mechanism_fields(STEP), "repetitions": STEPS}
                self.log.append("privacy_event", {**noise, "hospital": site, "round": number})
                upper = upper_epsilon([Repeated(STEP, STEPS * number)], 1e-5)
                stated = {"view": "everybody", "delta": 1e-5, "upper": upper, "accountant": "PLD"}
                self.log.append("epsilon", {**stated, "hospital": site, "round": number})

    def round(self, number):
        self.start(number)
        self.log.append("round_completed", round_fields(number, self.sites))
        self.book.publish(number, self.witnesses)

    def complete(self, rounds=3, **changes):
        if not self.has("evaluation"):
            values = {site: {"ensemble": {"accuracy": 0.5}} for site in self.sites}
            fields = {"round": rounds, "split": "test", "leaves_hospital": False, "values": values}
            self.log.append("evaluation", fields)
        history = read_history(self.log.events)
        privacy = {"epsilon": None, "delta": None}
        if self.private:
            privacy = {"epsilon": upper_epsilon([Repeated(STEP, STEPS * rounds)], 1e-5), "delta": 1e-5}
            privacy |= {"adjacency": "add-or-remove-one", "noise": "system"}
        summary = summary_of(history, rounds) | {"communication": communication_of(history)}
        summary["privacy"] |= privacy
        (self.folder / "summary.json").write_text(json.dumps(summary | changes))
        metadata = {"fam_sha256": model_digest(rounds), "layout": json.dumps(list(model_of(rounds)))}
        if data := history.last("data_described"):
            metadata["classes"] = json.dumps(data.fields["classes"])
        (self.folder / "fam.safetensors").write_bytes(safetensors(model_of(rounds), metadata))
        with (self.folder / "bytes.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["round", "site", "direction", "stage", "kind", "bytes"])
            for row in (row for attempt in history.attempts for row in attempt.byte_rows()):
                direction = {"up": "upload", "down": "download"}[row.way]
                writer.writerow([row.round, row.client, direction, row.stage, row.kind, row.bytes])
        files = {name: self.digest(name) for name in RESULTS}
        ended = {"rounds": rounds, "chosen_round": rounds, "files": files, "model_digest": model_digest(rounds)}
        self.log.append("run_completed", ended)
        self.book.publish(rounds, self.witnesses)
        self.log.close()
        return self.folder


def rechained(lines):
    """The lines with seq and prev made consistent again: what a forger who can write the file does."""
    prev, found = GENESIS, []
    for seq, line in enumerate(lines):
        line = encode_canonical({**decode_canonical(line), "seq": seq, "prev": prev})
        prev = sha256(line)
        found.append(line)
    return found


def signed_again(folder, lines, roster=None, server="server", sites=SITES):
    """Write lines as the log of a folder with heads signed anew, as a server does that owns these keys."""
    from audit.heads import SERVER_LABEL, WITNESS_LABEL, SignedHead, TreeHead
    from audit.merkle import MerkleTree

    (folder / "audit.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    last = decode_canonical(lines[-1])
    events = [decode_canonical(line) for line in lines]
    done = [event["round"] for event in events if event["kind"] == "round_completed"]
    head = TreeHead(events[0]["run_id"], max(done, default=0), len(lines), MerkleTree(lines).root().hex(), last["time"])
    signatures = {site: key_of(site).sign(WITNESS_LABEL + head.encode()).hex() for site in sites}
    signed = SignedHead(head, key_of(server).sign(SERVER_LABEL + head.encode()).hex(), signatures)
    (folder / "heads.jsonl").write_bytes(signed.encode() + b"\n")
