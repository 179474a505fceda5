import copy
import pickle

import pytest

from audit.roster import _SMALL_ORDER, is_small_order
from protocols import AuthenticationError, IdentityKey, IdentitySeed, ParameterError, RememberingVerifier, Roster
from protocols.roster import Ed25519Verifier, is_small_order_identity, verify_signature

KEYS = {name: IdentityKey(IdentitySeed(name.encode() * 32)) for name in "abc"}
KEY = KEYS["a"].public
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
    [{}, {"": KEY}, {"a" * 256: KEY}, {"a": KEY[:-1]}, {"a": KEY, "b": KEY}],
)
def test_rosters_that_cannot_be(members):
    with pytest.raises(ParameterError):
        Roster(members)


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("encoded", sorted(_SMALL_ORDER))
def test_a_key_under_which_anybody_can_sign_is_in_no_roster(encoded, sign):
    """[M-43] A client and the server MUST refuse a roster with an identity key of small order, in any of its encodings:
    anybody can sign under it.
    """
    weak = encoded[:-1] + bytes([encoded[-1] | sign])
    with pytest.raises(ParameterError, match="sign under the identity key of 'b'"):
        Roster({"a": KEY, "b": weak})


def test_no_other_key_is_refused_and_the_audit_says_the_same():
    """The rule stands twice, as the packages do not import each other: there as bytes, here as numbers."""
    near = [(number % 2**255).to_bytes(32, "little") for number in (*range(20), *range(2**255 - 40, 2**255))]
    for key in (*near, *(identity.public for identity in KEYS.values())):
        assert is_small_order_identity(key) == is_small_order(key.hex())


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
