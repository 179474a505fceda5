"""Compressed updates through the main job: the same with and without masks, over losses and restarts; what is sent."""

import dataclasses
import json
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from protocols import messages
from protocols.client.machine import ClientMachine
from protocols.compression import decode_download
from protocols.errors import ProtocolError, SessionMismatchError
from protocols.messages import decode_message
from protocols.wire import MAX_PAYLOAD_BYTES
from securefed.compression import Contribution, Fate, Followed, RingServer, RingSite, ring_replica
from securefed.compression_choice import LADDER, choose
from securefed.config import config_from_mapping
from securefed.errors import ConfigError
from securefed.observer import Observer
from securefed.run_folder import RunFolder, read_byte_rows
from securefed.simulation import resume_run, simulate
from tests.securefed.test_compression_pilot import Notes

SPEC = Path(messages.__file__).parents[1] / "SPEC.md"
RING = {"compression": "ring:4,subspace:0.25"}
LOSSES = {"drop": ["site1@2:MaskedInputCollection", "site3@3:Unmasking"]}


def run(config, tmp_path, name="run", **more):
    return simulate(config, output=tmp_path / name, cache_dir=tmp_path / "cache", **more)


@pytest.mark.parametrize("scheme", ["ring:4,subspace:0.25", "ring:2", "ring:12"])
def test_masks_change_no_bit_of_the_model_with_losses_too(small_run, tmp_path, scheme):
    made = {}
    for enabled in (True, False):
        secure = {"enabled": enabled, "compression": scheme}
        made[enabled] = run(small_run(secure_aggregation=secure, simulation=LOSSES), tmp_path, f"run-{enabled}").summary
    assert made[True]["fam_sha256"] == made[False]["fam_sha256"]
    assert made[True]["sites"] == made[False]["sites"]
    assert made[True]["secure_aggregation"]["compression"] == scheme


def test_a_resumed_run_ends_with_the_same_bits(small_run, tmp_path):
    config = small_run(secure_aggregation=RING, simulation=LOSSES, federation={"rounds": 5})
    whole = run(config, tmp_path, "whole")

    class Stop(Observer):
        def round_finished(self, view):
            if view.number == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, "cut", observer=Stop())
    private = sorted(path.name for path in (tmp_path / "cut").rglob("*-channel.safetensors"))
    assert private == [f"site-{number:04d}-channel.safetensors" for number in range(5)]
    for path in (tmp_path / "cut").rglob("*-channel.safetensors"):
        assert path.stat().st_mode & 0o077 == 0
    resumed = resume_run(tmp_path / "cut", cache_dir=tmp_path / "cache")
    assert resumed.summary["fam_sha256"] == whole.summary["fam_sha256"]
    assert resumed.summary["sites"] == whole.summary["sites"]


class BothEnds:
    """The server's half of a ring channel and those of four sites."""

    def __init__(self, scheme="ring:4,subspace:0.5"):
        from protocols.compression import parse_scheme

        initial = np.zeros(16 * 12 + 16, np.float32)
        replica = ring_replica(parse_scheme(scheme), ((16, 12), (16,)), 4, initial)
        self.server, followed = RingServer(replica, tuple("abcd")), Followed()
        self.sites = {site: RingSite(replica, followed) for site in "abcd"}

    def follow(self):
        """Let every site receive the next download."""
        payload = self.server.payload(self.server._history.replica.vector)
        for half in self.sites.values():
            half.receive(payload)

    def memories(self):
        return {site: half.memory()["feedback"] for site, half in self.sites.items()}


class Result:
    def __init__(self, codec, vectors, survivors):
        from protocols.vectors import Aggregate

        lanes = sum(vectors[site].lanes(32).astype(np.uint32) for site in survivors)
        self.total, self.survivors = Aggregate(lanes, 30, len(survivors)), tuple(survivors)


def test_a_lost_hospital_keeps_what_it_offered_and_the_others_what_rounding_kept():
    ring, vector = BothEnds(), np.zeros(208, np.float32)
    rng = np.random.default_rng(0)
    updates = {site: (0.01 * rng.normal(size=208)).astype(np.float32) for site in "abcd"}
    codec = ring.server.codec
    payload = ring.server.payload(vector)
    vectors = {}
    for site, update in updates.items():
        ring.sites[site].receive(payload)
        vectors[site] = ring.sites[site].encode(1, codec.digest, Contribution(update, 0.5))
    opened = ring.server.open(Result(codec, vectors, "abd"))
    for site, half in ring.sites.items():
        half.close(Fate.LOST if site == "c" else Fate.DELIVERED)
    ring.follow()
    memory = ring.memories()
    assert np.array_equal(memory["c"], updates["c"])
    given = sum(updates[site].astype(np.float64) - memory[site] for site in "abd")
    np.testing.assert_allclose(given, 3 * opened.mean_update / np.float32(1.05), atol=1e-6)  # SPEC.md, section 4: g
    assert opened.mean_score == pytest.approx(0.5, abs=1e-4)


def lying_sums(length, survivors, count):
    """A download of `count` sums that are nothing but zeros, packed as small as they can be."""
    packed = zlib.compress(bytes(length), 9)
    one = struct.pack("<IIqBI", survivors, length, 0, 1, len(packed)) + packed
    return b"SFD1\x00" + struct.pack("<I", 0) + bytes(32) + struct.pack("<I", count) + count * one


@pytest.mark.parametrize(("longer", "survivors", "refused"), [
    (1 << 20, 4, "another length"), (0, 5, "another length, or more clients"), (0, 4, "the server")
])  # fmt: skip
def test_a_download_takes_no_memory_beyond_its_size_whatever_it_announces(longer, survivors, refused):
    """Sums of other federations stay packed, and those of this one are held one at a time."""
    ring = BothEnds()
    payload = lying_sums(ring.server.codec.public_length + longer, survivors, 500)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match=refused):
            ring.sites["a"].receive(payload)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(payload) + (1 << 18)


def test_a_round_that_is_given_up_changes_no_memory():
    ring, vector = BothEnds(), np.zeros(208, np.float32)
    before = ring.memories()
    payload = ring.server.payload(vector)
    for site in "ab":
        ring.sites[site].receive(payload)
        ring.sites[site].encode(1, ring.server.codec.digest, Contribution(np.full(208, 0.01, np.float32), 0.0))
        ring.sites[site].close(Fate.WITHDRAWN)
    after = ring.memories()
    for site in "abcd":
        assert np.array_equal(before[site], after[site])


def test_a_hospital_encodes_only_as_the_opened_sums_say():
    ring = BothEnds()
    ring.sites["a"].receive(ring.server.payload(np.zeros(208, np.float32)))
    other = BothEnds("ring:5,subspace:0.5").server.codec.digest
    with pytest.raises(SessionMismatchError):
        ring.sites["a"].encode(1, other, Contribution(np.zeros(208, np.float32), 0.0))
    with pytest.raises(ValueError, match="global model"):
        ring.server.payload(np.ones(208, np.float32))


def contributed(ring, site):
    """Let every site contribute the same to a first round; the sum of all but `site` is opened."""
    payload, vectors = ring.server.payload(np.zeros(208, np.float32)), {}
    codec = ring.server.codec
    for name, half in ring.sites.items():
        half.receive(payload)
        vectors[name] = half.encode(1, codec.digest, Contribution(np.full(208, 0.013, np.float32), 0.0))
    return vectors, codec


@pytest.mark.parametrize("opened", [True, False])
def test_a_site_that_was_not_told_never_sends_the_same_update_twice(opened):
    """What is on its way survives a restart; the next download tells whether a sum was opened since."""
    ring = BothEnds()
    vectors, codec = contributed(ring, "a")
    restarted = BothEnds().sites["a"]
    restarted.restore(ring.sites["a"].state())
    if opened:
        ring.server.open(Result(codec, vectors, "abcd"))
    restarted.receive(ring.server.payload(ring.server._history.replica.vector))
    ring.sites["a"].close(Fate.DELIVERED if opened else Fate.WITHDRAWN)
    ring.follow()
    kept = restarted.memory()["feedback"]
    assert np.array_equal(kept, ring.memories()["a"])
    assert kept.any() == opened
    assert not np.array_equal(kept, np.full(208, 0.013, np.float32))


@pytest.mark.parametrize("missed", [0, 1])
def test_a_site_settles_by_the_sum_that_it_was_in_or_forgets_where_it_never_sees_it(missed):
    """After a whole model a site knows the lifts of the last sum only; nothing is sent twice for want of older ones."""
    ring = BothEnds()
    vectors, codec = contributed(ring, "a")
    ring.server.open(Result(codec, vectors, "abcd"))
    behind = BothEnds().sites["a"]
    behind.restore(ring.sites["a"].state())
    ring.sites["a"].close(Fate.DELIVERED)
    ring.follow()
    if missed:
        vectors, codec = contributed_again(ring)
        ring.server.open(Result(codec, vectors, "bcd"))
    vector = ring.server._history.replica.vector
    ring.server.restore(ring.server.state(), vector, known=False)
    behind.close(Fate.DELIVERED)
    received = behind.receive(ring.server.payload(vector))
    assert np.array_equal(received, vector)
    kept = behind.memory()["feedback"]
    if missed:
        assert not kept.any()
    else:
        assert kept.any()
        assert np.array_equal(kept, ring.memories()["a"])


def contributed_again(ring):
    """Let all sites but the first contribute to a second round."""
    payload, codec, vectors = ring.server.payload(ring.server._history.replica.vector), ring.server.codec, {}
    for name in "bcd":
        ring.sites[name].receive(payload)
        vectors[name] = ring.sites[name].encode(2, codec.digest, Contribution(np.full(208, 0.01, np.float32), 0.0))
    return vectors, codec


def test_a_restarted_server_brings_sites_along_that_are_behind():
    ring = BothEnds()
    vectors, codec = contributed(ring, "a")
    ring.server.open(Result(codec, vectors, "abcd"))
    vector = ring.server._history.replica.vector
    restarted = BothEnds().server
    restarted.restore(ring.server.state(), vector, known=False)
    ring.sites["b"].receive(ring.server.payload(vector))
    for site in "ab":  # one behind, one not
        assert np.array_equal(ring.sites[site].receive(restarted.payload(vector)), vector)
    restarted.scored(tuple("abcd"))
    assert len(restarted.payload(vector)) < 100  # nobody is behind any more


SENT = {
    # class: {field: what SPEC.md, section 12, calls it in the row of that type or in the line of a structure}
    messages.AdvertiseKeysReply: {"advertisement": "advertisement"},
    messages.Advertisement: {
        "channel_public": "channel public key",
        "mask_public": "mask public key",
        "nonce_commitment": "nonce_commitment",
        "signature": "signature",
    },
    messages.ShareKeysReply: {"seed_commitment": "seed_commitment", "shares": "dealt shares"},
    messages.DealtShares: {
        "self_mask_commitment": "self_mask_commitment",
        "mask_key_commitment": "mask_key_commitment",
        "sealed": "sealed shares",
    },
    messages.MaskedInputReply: {
        "unusable": "unusable dealers",
        "ring_bits": "ring_bits",
        "length": "u32 d",
        "packed": "packed vector",
    },
    messages.ConsistencyCheckReply: {"signature": "signature"},
    messages.UnmaskingReply: {"shares": "bytes[36] share"},
}
REPLIES = {kind.TYPE: kind for kind in SENT if hasattr(kind, "TYPE")}


def specified(kind):
    """What SPEC.md says of a message or a structure."""
    section = SPEC.read_text(encoding="utf-8").split("## 12 Messages")[1].split("\n## ")[0]
    if hasattr(kind, "TYPE"):
        (row,) = [line for line in section.splitlines() if line.startswith(f"| {int(kind.TYPE)} | {kind.__name__} |")]
        return row
    name = {"Advertisement": "advertisement = ", "DealtShares": "dealt shares  = "}[kind.__name__]
    return section.split(name)[1].split(" = ")[0]


def test_no_private_statistic_leaves_in_clear(small_run, tmp_path, monkeypatch):
    """Every field of every frame that a hospital sends, against SPEC.md: keys, shares and ring elements, no more."""
    for kind, fields in SENT.items():
        assert {field.name for field in dataclasses.fields(kind)} == set(fields), kind
        assert all(words in specified(kind) for words in fields.values()), kind
    frames = []
    answer = ClientMachine.answer

    def recorded(self, stage, data):
        reply = answer(self, stage, data)
        frames.append((stage, data, reply))
        return reply

    monkeypatch.setattr(ClientMachine, "answer", recorded)
    summary = run(small_run(secure_aggregation=RING), tmp_path).summary
    stages = {stage for stage, _, _ in frames}
    assert stages == {"AdvertiseKeys", "ShareKeys", "MaskedInputCollection", "ConsistencyCheck", "Unmasking"}
    for _, _, reply in frames:
        kind = REPLIES[messages.frame_type(reply)]
        header, message = decode_message(kind, reply, 1 << 24)
        # the fields hold all bytes of the frame: nothing travels beside them
        assert messages.encode_message(message, header.round, header.session_id) == reply
        if kind is messages.MaskedInputReply:
            assert message.unusable == ()
            assert message.ring_bits in (summary["secure_aggregation"]["ring_bits"], 19)
    lengths = {}
    for stage, _, reply in frames:
        lengths.setdefault((stage, struct.unpack_from("<I", reply, 4)[0]), set()).add(len(reply))
    # equal for all hospitals of a round, whatever they hold: sizes say nothing either
    assert all(len(sizes) == 1 for sizes in lengths.values())
    opened = [request for stage, request, _ in frames if stage == "AdvertiseKeys"]
    for request in opened:  # what comes down: opened sums of values and clamp counters, and the model's digest
        payload = request[request.index(b"SFD1") :]
        download = decode_download(payload)
        assert download.whole is None
        assert len(payload) < MAX_PAYLOAD_BYTES
        assert {field.name for field in dataclasses.fields(download)} == {"base", "model_digest", "steps", "whole"}


def test_masked_bytes_of_the_same_contribution_differ_between_runs(small_run, tmp_path, monkeypatch):
    seen = []
    answer = ClientMachine.answer

    def recorded(self, stage, data):
        reply = answer(self, stage, data)
        if stage == "MaskedInputCollection":
            seen.append(reply)
        return reply

    monkeypatch.setattr(ClientMachine, "answer", recorded)
    config = small_run(secure_aggregation=RING, federation={"rounds": 1, "select": "last"})
    first, second = run(config, tmp_path, "one"), run(config, tmp_path, "two")
    assert first.summary["fam_sha256"] == second.summary["fam_sha256"]
    assert len(set(seen)) == 10


def test_a_byte_budget_decides_and_says_why(small_run, tmp_path):
    notes = Notes()
    config = small_run(secure_aggregation={"compression": "auto", "upload_budget": 3000}, federation={"rounds": 1})
    result = run(config, tmp_path, observer=notes)
    chosen = result.summary["secure_aggregation"]["compression"]
    assert chosen in LADDER
    assert chosen != "none"
    assert len(notes.texts) == 1
    assert chosen in notes.texts[0]
    assert "3,000" in notes.texts[0]
    rows = [row for row in read_byte_rows(RunFolder.open(tmp_path / "run").bytes) if row.round == 1]
    sent = sum(row.bytes for row in rows if row.direction == "upload" and row.site == "site0")
    assert sent <= 3000
    assert f"sends {sent:,} of" in notes.texts[0]


def test_a_budget_below_the_smallest_scheme_is_refused():
    sizes = {scheme: 1000 - 100 * index for index, scheme in enumerate(LADDER)}
    assert choose(10**6, sizes.__getitem__).scheme == "none"
    assert choose(850, sizes.__getitem__).scheme == LADDER[2]
    assert choose(800, sizes.__getitem__).scheme == LADDER[2]
    assert choose(799, sizes.__getitem__).scheme == LADDER[3]
    with pytest.raises(ConfigError, match="too few"):
        choose(10, sizes.__getitem__)


def test_float16_zlib_runs_in_clear_and_is_refused_under_masks(small_run, tmp_path):
    result = run(small_run(secure_aggregation={"compression": "float16-zlib", "enabled": False}), tmp_path)
    assert result.summary["secure_aggregation"]["compression"] == "float16-zlib"
    assert result.summary["secure_aggregation"]["ring_bits"] is None
    report = json.loads((result.folder.path / "report.json").read_text())
    assert not [entry for entry in report["communication"]["comparison"] if "ring bits" in entry["name"]]
    assert "ring_bits" not in report["protocol"]
    assert result.summary["mean"]["fam"]["accuracy"] > 0
    with pytest.raises(ConfigError, match="cannot be summed under masks"):
        config_from_mapping({"secure_aggregation": {"compression": "float16-zlib"}})


@pytest.mark.parametrize("text", ["ring:1", "gzip", "ring:4,subspace:0"])
def test_unknown_schemes_are_refused_by_the_key(text):
    with pytest.raises(ConfigError, match=r"secure_aggregation\.compression"):
        config_from_mapping({"secure_aggregation": {"compression": text}})
