"""The known answers are reproduced, and follow from the primitives alone, without this package's own code."""

import hashlib
import hmac
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols import DecodeError, FixedPointCodec, Roster
from protocols.graph import ring_order
from protocols.packing import pack, unpack
from protocols.ring import lane_dtype
from protocols.shamir import PRIME, combine, lagrange_at_zero

VECTORS = Path(__file__).parents[1] / "vectors"
ROUNDS = ["complete.json", "ring.json"]


def load(name):
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def label(use):
    text = b"securefed/secagg/v1/" + use
    return bytes([len(text)]) + text


def u16(value):
    return value.to_bytes(2, "little")


def u32(value):
    return value.to_bytes(4, "little")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def hkdf(ikm, salt, info):
    """RFC 5869, one block."""
    key = hmac.new(salt, ikm, hashlib.sha256).digest()
    return hmac.new(key, info + b"\x01", hashlib.sha256).digest()


def keystream(key, size):
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(size))


@pytest.mark.parametrize("name", [*ROUNDS, "primitives.json"])
def test_the_committed_files_are_what_the_generator_makes(name):
    spec = importlib.util.spec_from_file_location("generate", VECTORS / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.render(generate.FILES[name]()) == (VECTORS / name).read_text(encoding="utf-8")


@pytest.fixture(params=ROUNDS)
def recorded(request):
    content = load(request.param)
    content["ordered"] = sorted(content["clients"].values(), key=lambda client: client["position"])
    return content


def test_session_id(recorded):
    parameters, payload = bytes.fromhex(recorded["parameters"]), bytes.fromhex(recorded["payload"])
    members = b"".join(
        bytes([len(name)]) + name.encode() + bytes.fromhex(key)
        for name, key in sorted(recorded["roster"]["members"].items())
    )
    roster = sha256(label(b"roster"), u32(len(recorded["roster"]["members"])), members)
    assert roster.hex() == recorded["roster"]["digest"]
    assert parameters[1 + 4 + 8 + 1 + 4 + 8 + 8 :][:32] == roster
    model = sha256(label(b"payload"), payload)
    assert model.hex() == recorded["model_digest"]
    session = sha256(label(b"session"), u32(len(parameters)), parameters, model)
    assert session.hex() == recorded["session_id"]
    assert all(frame["frame"][16:80] == session.hex() for frame in recorded["frames"])


def test_keys_and_signatures(recorded):
    session = bytes.fromhex(recorded["session_id"])
    for client in recorded["ordered"]:
        for use in ("channel", "mask"):
            private = X25519PrivateKey.from_private_bytes(bytes.fromhex(client[f"{use}_private"]))
            assert private.public_key().public_bytes_raw().hex() == client[f"{use}_public"]
        identity = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(client["identity_seed"]))
        commitment = b""
        if "nonce" in client:
            commitment = sha256(label(b"nonce"), session, u16(client["position"]), bytes.fromhex(client["nonce"]))
            assert commitment.hex() == client["nonce_commitment"]
        keys = bytes.fromhex(client["channel_public"] + client["mask_public"]) + commitment
        signature = identity.sign(label(b"advertisement") + session + u16(client["position"]) + keys)
        assert signature.hex() == client["advertisement_signature"]
        seed = bytes.fromhex(client["self_mask_seed"])
        assert (
            sha256(label(b"self-mask-seed"), session, u16(client["position"]), seed).hex() == client["seed_commitment"]
        )


def advertisement(client):
    nonce = client.get("nonce_commitment", "")
    flags = "03" if nonce else "01"
    return bytes.fromhex(
        flags + client["channel_public"] + client["mask_public"] + nonce + client["advertisement_signature"]
    )


def test_keys_digest_and_order(recorded):
    session, clients = bytes.fromhex(recorded["session_id"]), recorded["ordered"]
    positions = u16(len(clients)) + b"".join(u16(client["position"]) for client in clients)
    if "nonce" not in clients[0]:
        shown = b"".join(u16(c["position"]) + u16(len(advertisement(c))) + advertisement(c) for c in clients)
        assert sha256(label(b"keys"), session, u16(len(clients)), shown).hex() == recorded["keys_digest"]
        return
    commitments, nonces = (
        positions + b"".join(bytes.fromhex(client[what]) for client in clients)
        for what in ("nonce_commitment", "nonce")
    )
    seed = sha256(label(b"graph"), session, u32(len(commitments)), u32(len(nonces)), commitments, nonces)
    assert seed.hex() == recorded["keys_digest"]
    order = sorted(range(len(clients)), key=lambda position: sha256(label(b"order"), seed, u16(position)))
    assert order == recorded["ring_order"]


def test_pairs(recorded):
    session, digest = bytes.fromhex(recorded["session_id"]), bytes.fromhex(recorded["keys_digest"])
    clients = recorded["ordered"]
    count, degree = len(clients), 6 if recorded["ring_order"] else len(clients) - 1
    assert len(recorded["pairs"]) == count * degree // 2
    for pair in recorded["pairs"]:
        low, high = clients[pair["low"]], clients[pair["high"]]
        for use in ("channel", "mask"):
            shared = X25519PrivateKey.from_private_bytes(bytes.fromhex(low[f"{use}_private"])).exchange(
                X25519PublicKey.from_public_bytes(bytes.fromhex(high[f"{use}_public"]))
            )
            assert shared.hex() == pair[f"{use}_shared_secret"]
        forth, back = u16(pair["low"]) + u16(pair["high"]), u16(pair["high"]) + u16(pair["low"])
        publics = [bytes.fromhex(low["channel_public"]), bytes.fromhex(high["channel_public"])]
        channel = bytes.fromhex(pair["channel_shared_secret"])
        info = label(b"channel") + session
        assert hkdf(channel, digest, info + forth + publics[0] + publics[1]).hex() == pair["sealing_key_low_to_high"]
        assert hkdf(channel, digest, info + back + publics[1] + publics[0]).hex() == pair["sealing_key_high_to_low"]
        info = label(b"pairwise-mask") + session + forth + bytes.fromhex(low["mask_public"] + high["mask_public"])
        assert info.hex() == pair["pairwise_info"]
        key = hkdf(bytes.fromhex(pair["mask_shared_secret"]), digest, info)
        assert key.hex() == pair["pairwise_key"]
        assert keystream(key, 64).hex() == pair["pad_start"]


def test_shares(recorded):
    session, clients = bytes.fromhex(recorded["session_id"]), recorded["ordered"]
    sealing = {}
    for pair in recorded["pairs"]:
        sealing[pair["low"], pair["high"]] = bytes.fromhex(pair["sealing_key_low_to_high"])
        sealing[pair["high"], pair["low"]] = bytes.fromhex(pair["sealing_key_high_to_low"])
    threshold = int.from_bytes(bytes.fromhex(recorded["parameters"])[7:9], "little")
    for client in clients:
        owner, opened = client["position"], {}
        for text, share in client["shares"].items():
            holder = int(text)
            if "sealed" not in share:
                assert holder == owner
                continue
            sealed = bytes.fromhex(share["sealed"])
            associated = label(b"sealed-shares") + session + u16(owner) + u16(holder)
            plain = AESGCM(sealing[owner, holder]).decrypt(sealed[:12], sealed[12:], associated)
            assert plain.hex() == share["self_mask_share"] + share["mask_key_share"]
            for what in ("self_mask", "mask_key"):
                use = what.replace("_", "-").encode() + b"-share"
                value = bytes.fromhex(share[f"{what}_share"])
                commitment = sha256(label(use), session, u16(owner), u16(holder), value)[:16]
                assert commitment.hex() == share[f"{what}_commitment"]
            opened[holder] = share
        for what, secret in (("self_mask_share", "self_mask_seed"), ("mask_key_share", "mask_private")):
            chosen = list(opened)[-threshold:]
            assert slow_combine([(h + 1, opened[h][what]) for h in chosen]).hex() == client[secret]


def slow_combine(points):
    """Lagrange interpolation at zero in Python integers, limb by limb."""
    value = 0
    for limb in range(9):
        y = [int.from_bytes(bytes.fromhex(share)[4 * limb : 4 * limb + 4], "little") for _, share in points]
        total = 0
        for i, (x, _) in enumerate(points):
            weight = 1
            for j, (other, _) in enumerate(points):
                if i != j:
                    weight = weight * other * pow(other - x, -1, PRIME) % PRIME
            total += y[i] * weight
        value |= total % PRIME << 30 * limb
    return value.to_bytes(32, "little")


def test_masked_vectors_and_the_sum(recorded):
    clients = recorded["ordered"]
    parameters = bytes.fromhex(recorded["parameters"])
    ring_bits = parameters[13]
    size = 2 if ring_bits <= 16 else 4
    length = len(clients[0]["encoded"])
    assert length * size <= 64
    pads = {(pair["low"], pair["high"]): bytes.fromhex(pair["pad_start"]) for pair in recorded["pairs"]}
    total = [0] * length
    for client in clients:
        position = client["position"]
        self_key = hkdf(
            bytes.fromhex(client["self_mask_seed"]),
            bytes.fromhex(recorded["keys_digest"]),
            bytes.fromhex(client["self_mask_info"]),
        )
        assert self_key.hex() == client["self_mask_key"]
        assert keystream(self_key, 64).hex() == client["self_mask_start"]
        if "masked" not in client:
            continue
        values = list(client["encoded"])
        total = [a + b for a, b in zip(total, client["encoded"], strict=True)]
        for (low, high), pad in pads.items():
            if position in (low, high):
                sign = 1 if position == low else -1
                values = [v + sign * lane(pad, i, size) for i, v in enumerate(values)]
        own = bytes.fromhex(client["self_mask_start"])
        values = [(v + lane(own, i, size)) % (1 << ring_bits) for i, v in enumerate(values)]
        assert values == client["masked"]
    assert total == recorded["sum"]
    survivors = [client["position"] for client in clients if "masked" in client]
    assert survivors == recorded["survivors"]


def lane(stream, i, size):
    return int.from_bytes(stream[i * size : (i + 1) * size], "little")


def test_survivor_signatures_and_returned_shares(recorded):
    session, digest = bytes.fromhex(recorded["session_id"]), bytes.fromhex(recorded["keys_digest"])
    clients = recorded["ordered"]
    bits = sum(1 << position for position in recorded["survivors"])
    survivors = u16(len(clients)) + bits.to_bytes(-(-len(clients) // 8), "little")
    for client in clients:
        if "masked" not in client:
            continue
        identity = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(client["identity_seed"]))
        signature = identity.sign(label(b"survivors") + session + digest + survivors)
        assert signature.hex() == client["survivors_signature"]
        for text, returned in client["returned"].items():
            owner = int(text)
            assert returned["kind"] == (1 if owner in recorded["survivors"] else 2)
            if owner != client["position"]:
                what = "self_mask_share" if returned["kind"] == 1 else "mask_key_share"
                assert returned["share"] == clients[owner]["shares"][str(client["position"])][what]


def test_encoding_of_updates(recorded):
    described = recorded["encoding"]
    codec = FixedPointCodec(
        described["lengths"],
        described["ranges"],
        described["value_bits"],
        max_weight=described["max_weight"],
        max_counters=described["max_counters"],
    )
    assert codec.digest.hex() == described["digest"]
    top = 2 ** described["value_bits"] - 2
    ranges = np.repeat(described["ranges"], described["lengths"])
    for client in recorded["ordered"]:
        update, encoded = np.array(client["update"]), np.array(client["encoded"])
        share = encoded[len(update)] / described["max_weight"] if described["max_weight"] else 1
        exact = (update * share / ranges + 1) * top / 2
        assert (np.floor(exact) <= encoded[: len(update)]).all()
        assert (encoded[: len(update)] <= np.ceil(exact)).all()


def test_primitives():
    content = load("primitives.json")
    for entry in content["packing"]:
        values = np.array(entry["values"], dtype=np.uint64).astype(lane_dtype(entry["width"]))
        assert pack(values, entry["width"]).hex() == entry["packed"]
        number = sum(value << (i * entry["width"]) for i, value in enumerate(entry["values"]))
        assert number.to_bytes(len(entry["packed"]) // 2, "little").hex() == entry["packed"]
    for entry in content["packing_refused"]:
        with pytest.raises(DecodeError):
            unpack(bytes.fromhex(entry["packed"]), entry["length"], entry["width"])
    sharing = content["sharing"]
    points = [(x, share) for x, share in zip(sharing["x"], sharing["shares"], strict=True) if x in (1, 5, 40)]
    assert slow_combine(points).hex() == sharing["secret"] == sharing["rebuilt_from_1_5_40"]
    assert combine([x for x, _ in points], [bytes.fromhex(share) for _, share in points]).hex() == sharing["secret"]
    assert lagrange_at_zero((1, 5, 40)).tolist() == sharing["lagrange_1_5_40"]
    order = content["ring_order"]
    assert list(ring_order(bytes.fromhex(order["seed"]), order["clients"])) == order["order"]
    assert all(label(use.encode()).hex() == encoded for use, encoded in content["labels"].items())
    roster = content["roster"]
    assert (
        Roster({name: bytes.fromhex(key) for name, key in roster["members"].items()}).digest.hex() == roster["digest"]
    )
    encoding = content["encoding"]
    codec = FixedPointCodec(
        encoding["lengths"],
        encoding["ranges"],
        encoding["value_bits"],
        max_weight=encoding["max_weight"],
        max_counters=encoding["max_counters"],
    )
    encoded = codec.encode(
        np.array(encoding["update"], dtype=np.float32),
        np.random.default_rng(0),
        weight=encoding["weight"],
        counters=(encoding["counter"],),
    )
    assert encoded.lanes(32).tolist() == encoding["encoded"]
    assert codec.digest.hex() == encoding["digest"]
