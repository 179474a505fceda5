"""What binds a session: the id that hashes parameters, roster, configuration and model, and the digest of all keys."""

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from protocols.labels import Label
from protocols.parameters import RoundParameters
from protocols.unchanging import place_of
from protocols.wire import u16, u32

PayloadDigest = Callable[[bytes | memoryview], bytes]


def payload_digest(payload: bytes | memoryview) -> bytes:
    """Return SHA-256 of the download as this end has it."""
    hasher = hashlib.sha256(Label.PAYLOAD.encoded)
    hasher.update(payload)
    return hasher.digest()


class RememberingDigest:
    """`payload_digest`, taken once of a download that many clients have received.

    For simulations in one process, where n clients read the same bytes in memory; whatever else arrives is hashed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[bytes | memoryview, tuple[int, int], bytes] | None = None

    def __call__(self, payload: bytes | memoryview) -> bytes:
        """Return SHA-256 of the download as this end has it."""
        place = place_of(payload)
        if place is None:
            return payload_digest(payload)
        with self._lock:  # who comes meanwhile waits for the result
            if self._known is None or self._known[1] != place:
                self._known = payload, place, payload_digest(payload)
            return self._known[2]


def session_id(parameters: RoundParameters, model_digest: bytes) -> bytes:
    """Return the 32-byte id of the session: equal exactly where parameters and received model are.

    Args:
        parameters: All public parameters.
        model_digest: `payload_digest` of what was received.
    """
    encoded = parameters.encode()
    return hashlib.sha256(Label.SESSION.encoded + u32(len(encoded)) + encoded + model_digest).digest()


def keys_digest_complete(session: bytes, advertisements: Mapping[int, bytes]) -> bytes:
    """Return the digest of all advertisements of a complete graph: {position: encoded advertisement}."""
    hasher = hashlib.sha256(Label.KEYS.encoded + session + u16(len(advertisements)))
    for position in sorted(advertisements):
        hasher.update(u16(position) + u16(len(advertisements[position])) + advertisements[position])
    return hasher.digest()


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """What every key derivation of a session takes in.

    Attributes:
        session_id: 32 bytes.
        keys_digest: 32 bytes over all advertised keys (complete graph) or commitments and nonces (k-regular graph).
    """

    session_id: bytes
    keys_digest: bytes
