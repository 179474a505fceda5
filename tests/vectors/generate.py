"""Writes the known answers: whole rounds and primitives with every intermediate value, from fixed entropy.

Run from the repository root: python tests/vectors/generate.py
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocols import FixedPointCodec, ReproducibleEntropy, RoundContext, Stage
from protocols.codec import FixedPointCodec as Codec
from protocols.commitments import commit_to_nonce, commit_to_seed
from protocols.graph import CompleteGraph, RingGraph, graph_seed, ring_order
from protocols.key_agreement import AgreementKey, Endpoint, pairwise_seed, sealing_keys, self_mask_key
from protocols.labels import Label
from protocols.messages import (
    AdvertiseKeysReply,
    ConsistencyCheckReply,
    MaskedInputReply,
    RevealNoncesReply,
    RevealNoncesRequest,
    ShareKeysReply,
    ShareKeysRequest,
    UnmaskingReply,
    decode_message,
)
from protocols.packing import pack, unpack
from protocols.parameters import RoundParameters
from protocols.ring import lane_dtype
from protocols.roster import Roster
from protocols.sealing import open_shares
from protocols.secret_values import ChannelKey, GraphNonce, MaskKey, SelfMaskSeed, SelfMaskShare
from protocols.session import SessionKeys, keys_digest_complete, payload_digest
from protocols.shamir import combine, lagrange_at_zero, split
from protocols.simulator import DEFAULT_CONFIG, DEFAULT_PAYLOAD, Recorder, SimulatedFederation

HERE = Path(__file__).parent
LIMIT = 1 << 20
PAD_BYTES = 64


def round_vectors(federation: SimulatedFederation, lost: str, comment: str) -> dict[str, object]:
    """Run one round and write down everything that happens in it."""
    recorder = Recorder()
    result = federation.run(recorder, drops={lost: Stage.MASKED_INPUT_COLLECTION.value})
    parameters, names = federation.parameters(), federation.names
    model = payload_digest(DEFAULT_PAYLOAD)
    session = result.session_id
    clients = {name: _client_secrets(federation, name) for name in names}
    keys = _session_keys(recorder, names, parameters, session)
    order = () if parameters.is_complete else ring_order(keys.keys_digest, parameters.clients)
    graph = CompleteGraph(len(names)) if parameters.is_complete else RingGraph(order, parameters.neighbours)
    pairs = [
        _pair(clients, keys, low, high) for low in range(len(names)) for high in graph.neighbours(low) if high > low
    ]
    described = {}
    for position, name in enumerate(names):
        described[name] = {"position": position, **_describe(federation, recorder, clients, keys, position, lost)}
    survivors = [names.index(name) for name in result.survivors]
    frames = [
        {"stage": stage, "client": client, "direction": way, "frame": frame.hex()}
        for stage, client, way, frame in recorder.transcript
    ]
    return {
        "comment": comment,
        "roster": {
            "members": {name: federation.identities[name].public.hex() for name in names},
            "digest": federation.roster.digest.hex(),
        },
        "config_digest": DEFAULT_CONFIG.hex(),
        "encoding": _describe_codec(federation.codec),
        "parameters": parameters.encode().hex(),
        "payload": DEFAULT_PAYLOAD.hex(),
        "model_digest": model.hex(),
        "session_id": session.hex(),
        "keys_digest": keys.keys_digest.hex(),
        "ring_order": list(order),
        "clients": described,
        "pairs": pairs,
        "frames": frames,
        "consistency_check_request": recorder.find("ConsistencyCheck", names[0], "down").hex(),
        "survivors": survivors,
        "sum": [int(value) for value in result.total.integers()],
        "decoded_sum": federation.codec.decode_sum(result.total, len(survivors)).tolist(),
    }


def _client_secrets(federation: SimulatedFederation, name: str) -> dict[str, bytes]:
    """The simulation draws identity, channel key, mask key, seed and nonce in this order."""
    entropy = ReproducibleEntropy(hashlib.sha256(federation.seed + name.encode()).digest())
    drawn = ["identity_seed", "channel_private", "mask_private", "self_mask_seed"]
    if not federation.parameters().is_complete:
        drawn.append("nonce")
    secrets = {what: entropy(32) for what in drawn}
    for use in ("channel", "mask"):
        private = X25519PrivateKey.from_private_bytes(secrets[f"{use}_private"])
        secrets[f"{use}_public"] = private.public_key().public_bytes_raw()
    return secrets


def _session_keys(recorder: Recorder, names: list[str], parameters: RoundParameters, session: bytes) -> SessionKeys:
    if parameters.is_complete:
        request = decode_message(ShareKeysRequest, recorder.find("ShareKeys", names[0], "down"), LIMIT)[1]
        shown = {position: entry.encode() for position, entry in request.advertisements.items()}
        return SessionKeys(session, keys_digest_complete(session, shown))
    commitments = decode_message(RevealNoncesRequest, recorder.find("RevealNonces", names[0], "down"), LIMIT)[
        1
    ].commitments
    nonces = decode_message(ShareKeysRequest, recorder.find("ShareKeys", names[0], "down"), LIMIT)[1].nonces
    return SessionKeys(session, graph_seed(session, commitments.encode(), nonces.encode()))


def _pair(clients: dict[str, dict[str, bytes]], keys: SessionKeys, low: int, high: int) -> dict[str, object]:
    """Both directions of the channel, and the pad, between two positions."""
    first, second = list(clients.values())[low], list(clients.values())[high]
    here, there = Endpoint(low, first["channel_public"], ""), Endpoint(high, second["channel_public"], "")
    forth, back = sealing_keys(AgreementKey(ChannelKey(first["channel_private"])), here, there, keys)
    mask_here, mask_there = Endpoint(low, first["mask_public"], ""), Endpoint(high, second["mask_public"], "")
    seed = pairwise_seed(AgreementKey(MaskKey(first["mask_private"])), mask_here, mask_there, keys)
    positions = low.to_bytes(2, "little") + high.to_bytes(2, "little")
    info = Label.PAIRWISE_MASK.encoded + keys.session_id + positions + mask_here.public + mask_there.public
    return {
        "low": low,
        "high": high,
        "channel_shared_secret": _exchange(first["channel_private"], second["channel_public"]),
        "sealing_key_low_to_high": forth.expose().hex(),
        "sealing_key_high_to_low": back.expose().hex(),
        "mask_shared_secret": _exchange(first["mask_private"], second["mask_public"]),
        "pairwise_info": info.hex(),
        "pairwise_key": seed.expose().hex(),
        "pad_start": _keystream(seed.expose()),
    }


def _exchange(private: bytes, public: bytes) -> str:
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public)).hex()


def _keystream(key: bytes) -> str:
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(PAD_BYTES)).hex()


def _describe(
    federation: SimulatedFederation,
    recorder: Recorder,
    clients: dict[str, dict[str, bytes]],
    keys: SessionKeys,
    position: int,
    lost: str,
) -> dict[str, object]:
    name, parameters = federation.names[position], federation.parameters()
    secrets, session = clients[name], keys.session_id
    find = recorder.find
    advertisement = decode_message(AdvertiseKeysReply, find("AdvertiseKeys", name, "up"), LIMIT)[1].advertisement
    dealt = decode_message(ShareKeysReply, find("ShareKeys", name, "up"), LIMIT)[1]
    self_mask = self_mask_key(SelfMaskSeed(secrets["self_mask_seed"]), keys, position).expose()
    context = RoundContext(parameters.round, DEFAULT_PAYLOAD, parameters, name)
    described: dict[str, object] = {what: value.hex() for what, value in secrets.items()}
    described |= {
        "advertisement_signature": advertisement.signature.hex(),
        "seed_commitment": commit_to_seed(SelfMaskSeed(secrets["self_mask_seed"]), session, position).hex(),
        "self_mask_info": (Label.SELF_MASK.encoded + session + position.to_bytes(2, "little")).hex(),
        "self_mask_key": self_mask.hex(),
        "self_mask_start": _keystream(self_mask),
        "update": federation.update(name).tolist(),
        "encoded": [int(value) for value in federation.contribute(context).lanes(62)],
        "shares": {},
    }
    if "nonce" in secrets:
        described["nonce_commitment"] = commit_to_nonce(GraphNonce(secrets["nonce"]), session, position).hex()
        revealed = decode_message(RevealNoncesReply, find("RevealNonces", name, "up"), LIMIT)[1]
        assert revealed.nonce == secrets["nonce"]
    for holder, entry in dealt.shares.items():
        described["shares"][str(holder)] = _share(clients, keys, position, holder, entry)  # type: ignore[index]
    if name == lost:
        return described
    masked = decode_message(MaskedInputReply, find("MaskedInputCollection", name, "up"), LIMIT)[1]
    lanes = unpack(masked.packed, masked.length, masked.ring_bits)
    signature = decode_message(ConsistencyCheckReply, find("ConsistencyCheck", name, "up"), LIMIT)[1].signature
    returned = decode_message(UnmaskingReply, find("Unmasking", name, "up"), LIMIT)[1].shares
    described |= {
        "masked": [int(value) for value in lanes],
        "survivors_signature": signature.hex(),
        "returned": {
            str(owner): {"kind": 1 if isinstance(share, SelfMaskShare) else 2, "share": share.expose().hex()}
            for owner, share in returned.items()
        },
    }
    return described


def _share(
    clients: dict[str, dict[str, bytes]], keys: SessionKeys, owner: int, holder: int, entry: object
) -> dict[str, str]:
    """What a holder opens; the owner's own entry carries commitments only."""
    described = {
        "self_mask_commitment": entry.self_mask_commitment.hex(),
        "mask_key_commitment": entry.mask_key_commitment.hex(),
    }
    if owner == holder:
        return described
    of, at = list(clients.values())[owner], list(clients.values())[holder]
    me, peer = Endpoint(holder, at["channel_public"], ""), Endpoint(owner, of["channel_public"], "")
    incoming = sealing_keys(AgreementKey(ChannelKey(at["channel_private"])), me, peer, keys)[1]
    opened = open_shares(incoming, entry.sealed, keys.session_id, owner, holder)
    assert opened is not None
    return {
        **described,
        "sealed": entry.sealed.hex(),
        "self_mask_share": opened[0].expose().hex(),
        "mask_key_share": opened[1].expose().hex(),
    }


def _describe_codec(codec: FixedPointCodec) -> dict[str, object]:
    return {
        "lengths": codec.lengths,
        "ranges": codec.ranges,
        "value_bits": codec.value_bits,
        "max_weight": codec.max_weight,
        "max_counters": codec.max_counters,
        "max_coordinate": codec.max_coordinate,
        "digest": codec.digest.hex(),
    }


def primitive_vectors() -> dict[str, object]:
    """Packing, sharing, ring order, encoding, each small enough to check by hand."""
    rng = np.random.default_rng(20)
    packing = []
    for width, length in ((1, 9), (5, 8), (12, 3), (16, 4), (23, 11), (32, 2), (33, 7), (62, 65)):
        values = rng.integers(0, 1 << width, length, dtype=np.uint64)
        packed = pack(values.astype(lane_dtype(width)), width)
        packing.append({"width": width, "values": [int(v) for v in values], "packed": packed.hex()})
    entropy = ReproducibleEntropy(bytes(range(32)))
    secret = entropy(32)
    shares = split([secret], [1, 2, 5, 9, 40], 3, entropy)[0]
    order_seed = hashlib.sha256(b"order").digest()
    codec = Codec([3, 2], [0.5, 0.01], 8, max_weight=10, max_counters=(7,))
    exact = np.array([-0.5, 0.0, 0.5, 0.01, -0.01], dtype=np.float32)
    grid = np.array([-1.0, 0.0, 1.0, 1.0, -1.0])
    assert np.allclose(exact, grid * np.repeat(codec.ranges, codec.lengths))
    return {
        "packing": packing,
        "packing_refused": [
            {"why": "padding bits are not zero", "width": 5, "length": 3, "packed": "ffff"},
            {"why": "a byte too many", "width": 8, "length": 1, "packed": "0000"},
        ],
        "sharing": {
            "secret": secret.hex(),
            "threshold": 3,
            "x": [1, 2, 5, 9, 40],
            "shares": [share.hex() for share in shares],
            "lagrange_1_5_40": [int(value) for value in lagrange_at_zero((1, 5, 40))],
            "rebuilt_from_1_5_40": combine([1, 5, 40], [shares[0], shares[2], shares[4]]).hex(),
        },
        "ring_order": {"seed": order_seed.hex(), "clients": 12, "order": list(ring_order(order_seed, 12))},
        "labels": {label.value: label.encoded.hex() for label in Label},
        "encoding": {
            **_describe_codec(codec),
            "update": exact.tolist(),
            "weight": 10,
            "counter": 4,
            "encoded": [0, 127, 254, 254, 0, 10, 4],
        },
        "roster": {
            "members": {"b": (b"\x02" * 32).hex(), "ä": (b"\x03" * 32).hex(), "a": (b"\x01" * 32).hex()},
            "digest": Roster({"b": b"\x02" * 32, "ä": b"\x03" * 32, "a": b"\x01" * 32}).digest.hex(),
        },
    }


def complete_round() -> dict[str, object]:
    """Four clients, complete graph, the third is lost before it masks."""
    codec = FixedPointCodec([4, 2], [0.5, 0.125], 12, max_weight=900, max_counters=(6,))
    weights = {f"site-{i:03d}": weight for i, weight in enumerate((900, 1, 161, 870))}
    federation = SimulatedFederation(4, codec, weights=weights, seed=b"vectors: complete")
    return round_vectors(
        federation, "site-002", "n = 4, complete graph, active, site-002 lost at MaskedInputCollection"
    )


def ring_round() -> dict[str, object]:
    """Nine clients on a ring of degree six."""
    choices = {"neighbours": 6, "threshold": 4, "corrupt": 0}
    federation = SimulatedFederation(9, FixedPointCodec([5], [1.0], 10), choices=choices, seed=b"vectors: ring")
    return round_vectors(
        federation, "site-004", "n = 9, ring of degree 6, active, site-004 lost at MaskedInputCollection"
    )


FILES = {"complete.json": complete_round, "ring.json": ring_round, "primitives.json": primitive_vectors}


def render(content: dict[str, object]) -> str:
    """Return the file's text."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for file, make in FILES.items():
        (HERE / file).write_text(render(make()), encoding="utf-8")
