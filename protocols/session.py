"""What binds a session: the id that hashes parameters, roster, configuration and model, and the digest of all keys."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from protocols.labels import Label
from protocols.parameters import RoundParameters
from protocols.wire import u16, u32


def payload_digest(payload: bytes | memoryview) -> bytes:
    """Return SHA-256 of the download as this end has it."""
    hasher = hashlib.sha256(Label.PAYLOAD.encoded)
    hasher.update(payload)
    return hasher.digest()


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
