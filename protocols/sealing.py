"""Shares on their way from dealer to holder: AES-256-GCM with session, source and destination as associated data."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols.entropy import Entropy
from protocols.labels import Label
from protocols.secret_values import MaskKeyShare, NoiseShare, SealingKey, SelfMaskShare
from protocols.wire import u16

NONCE_BYTES = 12
TAG_BYTES = 16
SEALING_OVERHEAD = NONCE_BYTES + TAG_BYTES
SEALED_BYTES = SEALING_OVERHEAD + SelfMaskShare.length + MaskKeyShare.length


def seal_shares(
    key: SealingKey,
    shares: tuple[SelfMaskShare, MaskKeyShare],
    session_id: bytes,
    source: int,
    destination: int,
    entropy: Entropy,
) -> bytes:
    """Return nonce, ciphertext and tag: 100 bytes."""
    plaintext = shares[0].expose() + shares[1].expose()
    return _seal(key, plaintext, _associated_data(Label.SEALED_SHARES, session_id, source, destination), entropy)


def open_shares(
    key: SealingKey, sealed: bytes, session_id: bytes, source: int, destination: int
) -> tuple[SelfMaskShare, MaskKeyShare] | None:
    """Return the two shares, or None where the bytes are not from that source to that destination in this session."""
    bound = _associated_data(Label.SEALED_SHARES, session_id, source, destination)
    plaintext = _open(key, sealed, bound, SEALED_BYTES)
    if plaintext is None:
        return None
    return SelfMaskShare(plaintext[: SelfMaskShare.length]), MaskKeyShare(plaintext[SelfMaskShare.length :])


def seal_noise_shares(
    key: SealingKey,
    shares: tuple[NoiseShare, ...],
    session_id: bytes,
    source: int,
    destination: int,
    entropy: Entropy,
) -> bytes:
    """Return nonce, ciphertext and tag of one holder's shares of noise seeds: 28 bytes and 36 for each."""
    plaintext = b"".join(share.expose() for share in shares)
    return _seal(key, plaintext, _associated_data(Label.SEALED_NOISE_SHARES, session_id, source, destination), entropy)


def open_noise_shares(
    key: SealingKey, sealed: bytes, session_id: bytes, source: int, destination: int, components: int
) -> tuple[NoiseShare, ...] | None:
    """Return the shares in order, or None where the bytes are not from that source to that destination."""
    bound = _associated_data(Label.SEALED_NOISE_SHARES, session_id, source, destination)
    plaintext = _open(key, sealed, bound, SEALING_OVERHEAD + NoiseShare.length * components)
    if plaintext is None:
        return None
    starts = range(0, len(plaintext), NoiseShare.length)
    return tuple(NoiseShare(plaintext[start : start + NoiseShare.length]) for start in starts)


def _seal(key: SealingKey, plaintext: bytes, associated_data: bytes, entropy: Entropy) -> bytes:
    nonce = entropy(NONCE_BYTES)
    return nonce + AESGCM(key.expose()).encrypt(nonce, plaintext, associated_data)


def _open(key: SealingKey, sealed: bytes, associated_data: bytes, size: int) -> bytes | None:
    if len(sealed) != size:
        return None
    try:
        return AESGCM(key.expose()).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated_data)
    except InvalidTag:
        return None


def _associated_data(label: Label, session_id: bytes, source: int, destination: int) -> bytes:
    return label.encoded + session_id + u16(source) + u16(destination)
