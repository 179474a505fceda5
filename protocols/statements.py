"""The two statements that clients sign: "these are my keys in this session" and "these clients are in the sum"."""

from protocols.labels import Label
from protocols.messages import Advertisement
from protocols.messages.consistency import SurvivorSet
from protocols.session import SessionKeys
from protocols.wire import u16


def advertisement_message(session_id: bytes, position: int, advertisement: Advertisement) -> bytes:
    """Return the bytes that a client signs under its round keys."""
    return b"".join(
        (
            Label.ADVERTISEMENT.encoded,
            session_id,
            u16(position),
            advertisement.channel_public,
            advertisement.mask_public,
            advertisement.nonce_commitment,
        )
    )


def survivors_message(session: SessionKeys, survivors: SurvivorSet) -> bytes:
    """Return the bytes that a client signs under the survivor set."""
    return Label.SURVIVORS.encoded + session.session_id + session.keys_digest + survivors.encode()
