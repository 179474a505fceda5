"""Shares on their way from dealer to holder: AES-256-GCM with session, source and destination as associated data."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols.entropy import Entropy
from protocols.labels import Label
from protocols.secret_values import MaskKeyShare, SealingKey, SelfMaskShare
from protocols.wire import u16

NONCE_BYTES = 12
TAG_BYTES = 16
SEALED_BYTES = NONCE_BYTES + SelfMaskShare.length + MaskKeyShare.length + TAG_BYTES


def seal_shares(
    key: SealingKey,
    shares: tuple[SelfMaskShare, MaskKeyShare],
    session_id: bytes,
    source: int,
    destination: int,
    entropy: Entropy,
) -> bytes:
    """Return nonce, ciphertext and tag: 100 bytes."""
    nonce = entropy(NONCE_BYTES)
    plaintext = shares[0].expose() + shares[1].expose()
    return nonce + AESGCM(key.expose()).encrypt(nonce, plaintext, _associated_data(session_id, source, destination))


def open_shares(
    key: SealingKey, sealed: bytes, session_id: bytes, source: int, destination: int
) -> tuple[SelfMaskShare, MaskKeyShare] | None:
    """Return the two shares, or None where the bytes are not from that source to that destination in this session."""
    if len(sealed) != SEALED_BYTES:
        return None
    nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        plaintext = AESGCM(key.expose()).decrypt(nonce, ciphertext, _associated_data(session_id, source, destination))
    except InvalidTag:
        return None
    return SelfMaskShare(plaintext[: SelfMaskShare.length]), MaskKeyShare(plaintext[SelfMaskShare.length :])


def _associated_data(session_id: bytes, source: int, destination: int) -> bytes:
    return Label.SEALED_SHARES.encoded + session_id + u16(source) + u16(destination)
