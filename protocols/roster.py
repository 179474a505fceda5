"""Who takes part: client names and their Ed25519 identity keys, pinned out of band, and what checks signatures."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, Protocol, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocols.entropy import Entropy
from protocols.errors import AuthenticationError, ParameterError
from protocols.labels import Label
from protocols.secret_values import Secret
from protocols.wire import MAX_CLIENTS

SIGNATURE_BYTES = 64


class IdentitySeed(Secret):
    """The 32 bytes of an Ed25519 private key (RFC 8032)."""

    __slots__ = ()


class IdentityKey:
    """A client's long-term signing key.

    Args:
        seed: The private key.
    """

    __slots__ = ("_key",)

    def __init__(self, seed: IdentitySeed) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed.expose())

    @classmethod
    def generate(cls, entropy: Entropy) -> Self:
        """Make a new identity."""
        return cls(IdentitySeed(entropy(32)))

    @property
    def public(self) -> bytes:
        """The 32 bytes that go into the roster."""
        return self._key.public_key().public_bytes_raw()

    @property
    def seed(self) -> IdentitySeed:
        """The private key, to be written to the client's own protected storage."""
        return IdentitySeed(self._key.private_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature (RFC 8032, deterministic)."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return "<IdentityKey>"

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError("an identity key is never pickled or copied")


class SignatureVerifier(Protocol):
    """Checks Ed25519 signatures."""

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Return whether the signature is that of the key over the message."""
        ...


class Ed25519Verifier:
    """Checks each signature each time: for every real client and server."""

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Return whether the signature is that of the key over the message (RFC 8032)."""
        try:
            _public_key(public_key).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class RememberingVerifier:
    """Checks each distinct (key, message, signature) once.

    For simulations in one process, where n clients check the same signature; a forged one is still refused everywhere.
    """

    def __init__(self) -> None:
        self._inner = Ed25519Verifier()
        self._seen: dict[bytes, bool] = {}

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Return whether the signature is that of the key over the message."""
        if len(public_key) != 32 or len(signature) != SIGNATURE_BYTES:
            return False
        entry = hashlib.sha256(public_key + signature + message).digest()
        valid = self._seen.get(entry)
        if valid is None:
            if len(self._seen) >= 1 << 16:
                self._seen.clear()
            valid = self._seen[entry] = self._inner.verify(public_key, message, signature)
        return valid


@lru_cache(maxsize=1 << 14)
def _public_key(data: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(data)


_PRIME: Final = 2**255 - 19
_Y_OF_ORDER_8: Final = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SMALL_ORDER: Final = frozenset({1, _PRIME - 1, 0, _Y_OF_ORDER_8, _PRIME - _Y_OF_ORDER_8})
"""y of the points of order 1, 2, 4 and 8 of edwards25519."""


def is_small_order_identity(public: bytes) -> bool:
    """Return whether anybody can sign under an Ed25519 public key: a point of small order, however it is encoded.

    Such a point times eight is the identity, so that R = A = that point, S = 0 verifies some messages or all.
    """
    y = int.from_bytes(public, "little") % 2**255  # without the sign of x
    return y % _PRIME in _SMALL_ORDER


class Roster:
    """All clients that may take part, in the order of their names; the same bytes at every client and the server.

    Args:
        members: {name: 32-byte Ed25519 public key}. Names are opaque text of 1 to 255 bytes in UTF-8.

    Raises:
        ParameterError: No members, too many, a malformed entry, one key under two names or one under which anybody can
            sign.
    """

    __slots__ = ("_digest", "_keys", "_positions", "names")

    def __init__(self, members: Mapping[str, bytes]) -> None:
        if not 1 <= len(members) <= MAX_CLIENTS:
            raise ParameterError("roster", f"must have 1 to {MAX_CLIENTS} members")
        if not all(1 <= len(name.encode()) <= 255 for name in members):
            raise ParameterError("roster", "names must be 1 to 255 bytes")
        if not all(len(key) == 32 for key in members.values()):
            raise ParameterError("roster", "identity keys must be 32 bytes")
        if len(set(members.values())) != len(members):
            raise ParameterError("roster", "one identity key stands under two names")
        if weak := sorted(name for name, key in members.items() if is_small_order_identity(key)):
            raise ParameterError(
                "roster",
                f"anybody can sign under the identity key of {weak[0]!r} (a point of small order); make it another",
            )
        self.names: tuple[str, ...] = tuple(sorted(members))
        self._keys = tuple(bytes(members[name]) for name in self.names)
        self._positions = {name: i for i, name in enumerate(self.names)}
        entries = (
            bytes([len(name.encode())]) + name.encode() + key for name, key in zip(self.names, self._keys, strict=True)
        )
        self._digest = hashlib.sha256(
            Label.ROSTER.encoded + len(members).to_bytes(4, "little") + b"".join(entries)
        ).digest()

    @classmethod
    def of(cls, identities: Mapping[str, IdentityKey]) -> Self:
        """Return the roster of these identities."""
        return cls({name: identity.public for name, identity in identities.items()})

    def __len__(self) -> int:
        return len(self.names)

    @property
    def digest(self) -> bytes:
        """SHA-256 over all names and keys (SPEC.md, "Roster")."""
        return self._digest

    def index(self, name: str) -> int:
        """Return a member's place.

        Raises:
            ParameterError: Nobody has that name.
        """
        if name not in self._positions:
            raise ParameterError("cohort", f"{name!r} is not in the roster")
        return self._positions[name]

    def indices(self, names: Iterable[str]) -> tuple[int, ...]:
        """Return the members' places, ascending."""
        return tuple(sorted(self.index(name) for name in names))

    def key(self, index: int) -> bytes:
        """Return the identity key at a place."""
        return self._keys[index]

    def name_of(self, key: bytes) -> str:
        """Return the member with an identity key.

        Raises:
            ParameterError: Nobody has that key.
        """
        if key not in self._keys:
            raise ParameterError("identity", "is not in the roster")
        return self.names[self._keys.index(key)]

    def select(self, indices: Sequence[int]) -> tuple[str, ...]:
        """Return the names at places."""
        return tuple(self.names[index] for index in indices)


def verify_signature(
    verifier: SignatureVerifier, key: bytes, message: bytes, signature: bytes, what: str, peer: str
) -> None:
    """Check a signature.

    Raises:
        AuthenticationError: It does not verify; names `what` of `peer`.
    """
    if not verifier.verify(key, message, signature):
        raise AuthenticationError(what, peer)
