import copy
import hashlib
import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import AggregateError, AuthenticationError, ReproducibleEntropy, SpentError
from protocols.errors import OutOfRangeError, ShapeError
from protocols.key_agreement import (
    AgreementKey,
    Endpoint,
    is_small_order,
    pairwise_seed,
    public_key,
    sealing_keys,
    self_mask_key,
)
from protocols.keystream import MOST_AT_ONCE
from protocols.masking import RunningSum, mask
from protocols.pads import Pad, apply_pads
from protocols.ring import lane_dtype
from protocols.sealing import open_shares, seal_shares
from protocols.secret_values import (
    ChannelKey,
    MaskKey,
    MaskKeyShare,
    PairwiseSeed,
    SealingKey,
    Secret,
    SelfMaskSeed,
    SelfMaskShare,
)
from protocols.session import SessionKeys
from protocols.vectors import EncodedVector

SESSION = SessionKeys(b"s" * 32, b"k" * 32)
SMALL_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def test_x25519_agrees_with_rfc_7748_section_6_1():
    alice = ChannelKey(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
    bob = ChannelKey(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert public_key(alice).hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert public_key(bob).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert AgreementKey(alice).exchange(Endpoint(1, public_key(bob), "bob")).hex() == shared
    assert AgreementKey(bob).exchange(Endpoint(0, public_key(alice), "alice")).hex() == shared


def test_hkdf_agrees_with_rfc_5869_appendix_a_1():
    derived = HKDF(
        algorithm=hashes.SHA256(), length=42, salt=bytes(range(13)), info=bytes.fromhex("f0f1f2f3f4f5f6f7f8f9")
    ).derive(b"\x0b" * 22)
    assert derived.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_small_order_points_are_refused(point):
    """[M-7] A client MUST refuse an all-zero X25519 result (a public key of small order)."""
    own = AgreementKey(MaskKey(b"\x11" * 32))
    with pytest.raises(AuthenticationError) as caught:
        own.exchange(Endpoint(1, point, "mallory"))
    assert caught.value.peer == "mallory"


def test_the_points_of_small_order_are_those_with_which_every_agreement_is_zero():
    """In all of their encodings: beyond p, and with the top bit that X25519 ignores."""
    p, own = 2**255 - 19, AgreementKey(MaskKey(b"\x11" * 32))
    weak = {int.from_bytes(point, "little") % 2**255 % p for point in SMALL_ORDER}
    near = {value + step for value in (*weak, p) for step in range(-3, 4)}
    found = set()
    for value in sorted({value + top for value in near for top in (0, p, 2**255) if 0 <= value + top < 2**256}):
        point = value.to_bytes(32, "little")
        try:
            own.exchange(Endpoint(1, point, "mallory"))
        except AuthenticationError:
            found.add(value % 2**255 % p)
            assert is_small_order(point)
        else:
            assert not is_small_order(point)
    assert found == weak
    assert len(weak) == 5


def ends(p=2, q=5):
    private = {p: b"\x11" * 32, q: b"\x22" * 32}
    points = {
        position: Endpoint(position, public_key(MaskKey(key)), str(position)) for position, key in private.items()
    }
    return {position: AgreementKey(MaskKey(key)) for position, key in private.items()}, points


def test_both_ends_derive_the_same_keys_and_no_two_uses_the_same_key():
    keys, points = ends()
    out_2, in_2 = sealing_keys(keys[2], points[2], points[5], SESSION)
    out_5, in_5 = sealing_keys(keys[5], points[5], points[2], SESSION)
    assert (out_2, in_2) == (in_5, out_5)
    seeds = [pairwise_seed(keys[a], points[a], points[b], SESSION) for a, b in ((2, 5), (5, 2))]
    assert seeds[0] == seeds[1]
    own = self_mask_key(SelfMaskSeed(b"\x33" * 32), SESSION, 2)
    other = self_mask_key(SelfMaskSeed(b"\x33" * 32), SESSION, 5)
    everything = [key.expose() for key in (out_2, in_2, seeds[0], own, other)]
    assert len(set(everything)) == 5


@pytest.mark.parametrize("session", [SessionKeys(b"t" * 32, b"k" * 32), SessionKeys(b"s" * 32, b"l" * 32)])
def test_every_key_depends_on_session_and_keys_digest(session):
    keys, points = ends()
    assert pairwise_seed(keys[2], points[2], points[5], SESSION) != pairwise_seed(
        keys[2], points[2], points[5], session
    )
    assert sealing_keys(keys[2], points[2], points[5], SESSION) != sealing_keys(keys[2], points[2], points[5], session)
    seed = SelfMaskSeed(b"\x33" * 32)
    assert self_mask_key(seed, SESSION, 2) != self_mask_key(seed, session, 2)


def shares():
    return SelfMaskShare(bytes(range(36))), MaskKeyShare(bytes(range(36, 72)))


def test_sealed_shares_open_at_their_destination_only():
    key, entropy = SealingKey(b"\x44" * 32), ReproducibleEntropy(bytes(32))
    sealed = seal_shares(key, shares(), b"s" * 32, 2, 5, entropy)
    assert len(sealed) == 100
    assert open_shares(key, sealed, b"s" * 32, 2, 5) == shares()
    for session_id, source, destination in ((b"t" * 32, 2, 5), (b"s" * 32, 5, 2), (b"s" * 32, 2, 6), (b"s" * 32, 3, 5)):
        assert open_shares(key, sealed, session_id, source, destination) is None
    assert open_shares(SealingKey(b"\x45" * 32), sealed, b"s" * 32, 2, 5) is None
    for i in range(100):
        tampered = sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :]
        assert open_shares(key, tampered, b"s" * 32, 2, 5) is None
    assert open_shares(key, sealed[:-1], b"s" * 32, 2, 5) is None


def test_sealing_twice_gives_different_bytes():
    key, entropy = SealingKey(b"\x44" * 32), ReproducibleEntropy(bytes(32))
    first, second = (seal_shares(key, shares(), b"s" * 32, 2, 5, entropy) for _ in range(2))
    assert first[:12] != second[:12]


ROLES = [role for role in Secret.__subclasses__() if role.__module__ == "protocols.secret_values"]


@pytest.mark.parametrize("role", ROLES)
def test_secrets_do_not_print_pickle_copy_or_hash(role):
    secret = role(b"\xab" * role.length)
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r}"):
        assert text == f"<{role.__name__}>"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy, hash):
        with pytest.raises(TypeError):
            attempt(secret)
    assert not hasattr(secret, "__dict__")


@pytest.mark.parametrize("role", ROLES)
def test_secrets_of_two_roles_are_never_equal(role):
    for other in ROLES:
        if other.length == role.length:
            assert (role(b"\xab" * role.length) == other(b"\xab" * other.length)) is (role is other)
    assert role(b"\xab" * role.length) != b"\xab" * role.length


def test_an_erased_secret_is_gone():
    secret = SelfMaskSeed(b"\xab" * 32)
    held = secret._bytes
    secret.erase()
    assert held == bytes(32)
    with pytest.raises(SpentError):
        secret.expose()


def test_a_secret_has_its_length():
    with pytest.raises(ValueError, match="32 bytes"):
        SelfMaskSeed(bytes(31))


@pytest.mark.parametrize("ring_bits", [9, 16, 23, 32, 40])
@pytest.mark.parametrize("length", [1, 1000, MOST_AT_ONCE // 2 + 3])
def test_pads_are_the_keystream_read_as_lanes(ring_bits, length):
    dtype = lane_dtype(ring_bits)
    key = b"\x77" * 32
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(length * dtype.itemsize))
    expected = np.frombuffer(stream, dtype=dtype)
    lanes = np.zeros(length, dtype=dtype)
    apply_pads(lanes, [Pad(PairwiseSeed(key), negative=False)])
    assert np.array_equal(lanes, expected)
    apply_pads(lanes, [Pad(PairwiseSeed(key), negative=True)])
    assert not lanes.any()


def test_a_pad_is_applied_once():
    pad = Pad(PairwiseSeed(b"\x77" * 32), negative=False)
    apply_pads(np.zeros(3, np.uint32), [pad])
    lanes = np.zeros(3, np.uint32)
    with pytest.raises(SpentError):
        apply_pads(lanes, [pad])
    assert not lanes.any()
    assert repr(pad) == "<Pad>"


@given(ring_bits=st.integers(3, 62), clients=st.integers(2, 6), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_pads_cancel_in_the_sum(ring_bits, clients, seed):
    rng = np.random.default_rng(seed)
    bound = (1 << ring_bits) // clients - 1 if (1 << ring_bits) // clients > 1 else 1
    vectors = [EncodedVector(rng.integers(0, bound + 1, 50, dtype=np.uint64), bound) for _ in range(clients)]
    entropy = ReproducibleEntropy(rng.bytes(32))
    pair = {(p, q): entropy(32) for p in range(clients) for q in range(p + 1, clients)}
    own = [entropy(32) for _ in range(clients)]
    running = RunningSum(50, ring_bits)
    for p, vector in enumerate(vectors):
        pads = [Pad(PairwiseSeed(own[p]), negative=False)]
        pads += [Pad(PairwiseSeed(key), negative=p == high) for (low, high), key in pair.items() if p in (low, high)]
        running.add(mask(vector, pads, ring_bits))
    running.remove([Pad(PairwiseSeed(key), negative=True) for key in own])
    total = running.open(clients, bound, 0)
    assert np.array_equal(total.integers(), sum(v.lanes(62).astype(np.int64) for v in vectors))


def test_a_vector_that_does_not_fit_the_ring_is_refused():
    with pytest.raises(OutOfRangeError):
        mask(EncodedVector(np.zeros(3, np.uint32), 1 << 10), [], 10)


def test_a_masked_vector_of_another_round_is_refused():
    masked = mask(EncodedVector(np.zeros(3, np.uint32), 1), [], 10)
    with pytest.raises(ShapeError):
        RunningSum(4, 10).add(masked)
    with pytest.raises(ShapeError):
        RunningSum(3, 11).add(masked)


def test_a_total_that_no_inputs_sum_to_is_refused():
    """[M-35] The server MUST refuse a total with a coordinate that survivors' inputs and noise cannot sum to."""
    running = RunningSum(4, 10)
    running.add(mask(EncodedVector(np.array([0, 101, 100, 1023], np.uint32), 1023), [], 10))
    with pytest.raises(AggregateError):
        running.open(2, 50, 0)
    running = RunningSum(4, 10)
    running.add(mask(EncodedVector(np.array([0, 101, 100, 1023], np.uint32), 1023), [], 10))
    assert running.open(2, 50, 1).integers().tolist() == [0, 101, 100, -1]


def test_masked_vectors_are_uniform_and_use_the_whole_ring():
    """10^6 masked zeros in a ring of 10 bits: chi-square over 1024 cells, false alarm below 1e-9."""
    length = 1_000_000
    seed = hashlib.sha256(b"uniform").digest()
    masked = mask(EncodedVector(np.zeros(length, np.uint32), 1), [Pad(PairwiseSeed(seed), negative=True)], 10)
    counts = np.bincount(masked.lanes, minlength=1024)
    expected = length / 1024
    assert len(counts) == 1024
    assert ((counts - expected) ** 2 / expected).sum() < 1023 + 6.5 * (2 * 1023) ** 0.5
