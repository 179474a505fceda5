import copy
import pickle

import pytest

from protocols import AuthenticationError, IdentityKey, IdentitySeed, ParameterError, RememberingVerifier, Roster
from protocols.roster import Ed25519Verifier, verify_signature

KEYS = {name: IdentityKey(IdentitySeed(name.encode() * 32)) for name in "abc"}
VERIFIERS = [Ed25519Verifier, RememberingVerifier]


def test_rfc_8032_test_1():
    identity = IdentityKey(
        IdentitySeed(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    )
    assert identity.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


@pytest.mark.parametrize("make", VERIFIERS)
def test_signatures(make):
    verifier, message = make(), b"message"
    signature = KEYS["a"].sign(message)
    for _ in range(2):
        assert verifier.verify(KEYS["a"].public, message, signature)
        assert not verifier.verify(KEYS["b"].public, message, signature)
        assert not verifier.verify(KEYS["a"].public, b"massage", signature)
        assert not verifier.verify(KEYS["a"].public, message, signature[:-1] + bytes([signature[-1] ^ 1]))
        assert not verifier.verify(KEYS["a"].public, message, signature[:-1])
        assert not verifier.verify(b"short", message, signature)
    with pytest.raises(AuthenticationError) as caught:
        verify_signature(verifier, KEYS["b"].public, message, signature, "advertisement", "b")
    assert (caught.value.what, caught.value.peer) == ("advertisement", "b")


def test_order_digest_and_look_ups():
    roster = Roster.of(KEYS)
    same = Roster({name: KEYS[name].public for name in "cba"})
    assert roster.digest == same.digest
    assert roster.names == ("a", "b", "c")
    assert roster.indices(["c", "a"]) == (0, 2)
    assert roster.select((2, 0)) == ("c", "a")
    assert roster.name_of(KEYS["b"].public) == "b"
    others = [
        Roster({"a": KEYS["a"].public, "b": KEYS["b"].public}),
        Roster({"a": KEYS["b"].public, "b": KEYS["a"].public, "c": KEYS["c"].public}),
        Roster({"a": KEYS["a"].public, "b": KEYS["b"].public, "d": KEYS["c"].public}),
    ]
    assert len({roster.digest, *(other.digest for other in others)}) == 4


@pytest.mark.parametrize(
    "members",
    [{}, {"": bytes(32)}, {"a" * 256: bytes(32)}, {"a": bytes(31)}, {"a": bytes(32), "b": bytes(32)}],
)
def test_rosters_that_cannot_be(members):
    with pytest.raises(ParameterError):
        Roster(members)


def test_strangers_are_refused():
    with pytest.raises(ParameterError):
        Roster.of(KEYS).index("d")
    with pytest.raises(ParameterError):
        Roster.of(KEYS).name_of(bytes(32))


def test_an_identity_keeps_to_itself():
    assert repr(KEYS["a"]) == "<IdentityKey>"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(KEYS["a"])
    assert KEYS["a"].seed == IdentitySeed(b"a" * 32)
