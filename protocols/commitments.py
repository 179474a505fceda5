"""Hash commitments to secrets of 256 bits or more: they bind the committer and, by the secret's entropy, hide it."""

import hashlib

from protocols.blocks import PositionedBlocks
from protocols.errors import SurvivorSetError
from protocols.labels import Label
from protocols.secret_values import GraphNonce, MaskKeyShare, NoiseSeed, NoiseShare, SelfMaskSeed, SelfMaskShare
from protocols.wire import u8, u16

SHARE_COMMITMENT_BYTES = 16


def commit_to_seed(seed: SelfMaskSeed, session_id: bytes, owner: int) -> bytes:
    """Return the 32-byte commitment to a client's self-mask seed."""
    return hashlib.sha256(Label.SELF_MASK_SEED.encoded + session_id + u16(owner) + seed.expose()).digest()


def commit_to_nonce(nonce: GraphNonce, session_id: bytes, owner: int) -> bytes:
    """Return the 32-byte commitment to a client's nonce for the order of the ring."""
    return _commit_to_nonce(nonce.expose(), session_id, owner)


def verify_nonces(session_id: bytes, commitments: PositionedBlocks, nonces: PositionedBlocks) -> None:
    """Check that every revealed nonce opens the commitment of its client.

    Raises:
        SurvivorSetError: One does not, or its client never committed.
    """
    committed = dict(commitments.items())
    for position, nonce in nonces.items():
        if committed.get(position) != _commit_to_nonce(nonce, session_id, position):
            raise SurvivorSetError("a nonce does not open its commitment")


def _commit_to_nonce(nonce: bytes, session_id: bytes, owner: int) -> bytes:
    return hashlib.sha256(Label.NONCE.encoded + session_id + u16(owner) + nonce).digest()


def commit_to_share(share: SelfMaskShare | MaskKeyShare, session_id: bytes, owner: int, holder: int) -> bytes:
    """Return the 16-byte commitment to one holder's share of one of the owner's secrets.

    16 bytes suffice: a forger needs a second preimage, and the dealer gains nothing from a collision.
    """
    label = Label.SELF_MASK_SHARE if isinstance(share, SelfMaskShare) else Label.MASK_KEY_SHARE
    digest = hashlib.sha256(label.encoded + session_id + u16(owner) + u16(holder) + share.expose()).digest()
    return digest[:SHARE_COMMITMENT_BYTES]


def commit_to_noise_seed(seed: NoiseSeed, session_id: bytes, owner: int, component: int) -> bytes:
    """Return the 32-byte commitment to the seed of a component of a client's noise."""
    data = Label.NOISE_SEED.encoded + session_id + u16(owner) + u8(component) + seed.expose()
    return hashlib.sha256(data).digest()


def commit_to_noise_share(share: NoiseShare, session_id: bytes, owner: int, holder: int, component: int) -> bytes:
    """Return the 16-byte commitment to one holder's share of such a seed."""
    data = Label.NOISE_SHARE.encoded + session_id + u16(owner) + u16(holder) + u8(component) + share.expose()
    return hashlib.sha256(data).digest()[:SHARE_COMMITMENT_BYTES]
