"""X25519 key pairs (RFC 7748) and the keys that HKDF-SHA256 (RFC 5869) derives from what two clients share."""

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocols.errors import AuthenticationError
from protocols.labels import Label
from protocols.secret_values import ChannelKey, MaskKey, PairwiseSeed, SealingKey, SelfMaskPadKey, SelfMaskSeed
from protocols.session import SessionKeys
from protocols.wire import u16


def public_key(private: ChannelKey | MaskKey) -> bytes:
    """Return the 32-byte public key."""
    return X25519PrivateKey.from_private_bytes(private.expose()).public_key().public_bytes_raw()


class AgreementKey:
    """A private key loaded for a series of agreements; it lives as long as one stage.

    Args:
        private: The key; stays with the caller, who erases it.
    """

    __slots__ = ("_key",)

    def __init__(self, private: ChannelKey | MaskKey) -> None:
        self._key = X25519PrivateKey.from_private_bytes(private.expose())

    def exchange(self, peer: "Endpoint") -> bytes:
        """Return the shared secret.

        Raises:
            AuthenticationError: The peer's key is of small order.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(peer.public))
        except ValueError:  # the library refuses an all-zero result (RFC 7748, section 6.1)
            raise AuthenticationError("public key", peer.name) from None

    def __repr__(self) -> str:
        return "<AgreementKey>"


def is_small_order(public: bytes) -> bool:
    """Return whether every private key shares the same, all-zero secret with this public key (RFC 7748, section 7)."""
    return int.from_bytes(public, "little") % (1 << 255) % _P in _SMALL_ORDER


_P: Final = (1 << 255) - 19

_SMALL_ORDER: Final = frozenset(
    (
        0,
        1,
        0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
        0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
        _P - 1,
    )
)
"""The u-coordinates modulo p, of curve and twist, that eight takes to infinity; RFC 7748 ignores the top bit."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a key agreement: a client's position, the public key it advertised for this use, and its name."""

    position: int
    public: bytes
    name: str


def sealing_keys(
    own: AgreementKey, me: Endpoint, peer: Endpoint, session: SessionKeys
) -> tuple[SealingKey, SealingKey]:
    """Derive the key that seals shares from `me` to `peer` and the one that opens those from `peer` to `me`.

    Raises:
        AuthenticationError: The peer's key is of small order.
    """
    shared = own.exchange(peer)
    label = Label.CHANNEL.encoded + session.session_id
    outgoing, incoming = label + _pair(me, peer), label + _pair(peer, me)
    return (
        SealingKey(_derive(shared, session.keys_digest, outgoing)),
        SealingKey(_derive(shared, session.keys_digest, incoming)),
    )


def pairwise_seed(own: AgreementKey, me: Endpoint, peer: Endpoint, session: SessionKeys) -> PairwiseSeed:
    """Derive the seed of the pad between two clients: the same at both ends.

    Raises:
        AuthenticationError: The peer's key is of small order.
    """
    low, high = (me, peer) if me.position < peer.position else (peer, me)
    info = Label.PAIRWISE_MASK.encoded + session.session_id + _pair(low, high)
    return PairwiseSeed(_derive(own.exchange(peer), session.keys_digest, info))


def self_mask_key(seed: SelfMaskSeed, session: SessionKeys, owner: int) -> SelfMaskPadKey:
    """Derive the key of a client's self mask."""
    info = Label.SELF_MASK.encoded + session.session_id + u16(owner)
    return SelfMaskPadKey(_derive(seed.expose(), session.keys_digest, info))


def _pair(first: Endpoint, second: Endpoint) -> bytes:
    return u16(first.position) + u16(second.position) + first.public + second.public


def _derive(key_material: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(key_material)
