"""Domain separation: every hash, key derivation and signature begins with one of these labels (SPEC.md, "Labels").

A label is encoded as its length in one byte followed by its ASCII bytes, so that no label is a prefix of another input.
"""

from enum import Enum

VERSION = 1
"""Version of the wire format and of every label; a change to either raises it."""


class Label(Enum):
    """The uses of hashes, key derivations and signatures."""

    SESSION = "session"
    PAYLOAD = "payload"
    ROSTER = "roster"
    ENCODING = "encoding"
    ADVERTISEMENT = "advertisement"
    NONCE = "nonce"
    GRAPH = "graph"
    ORDER = "order"
    KEYS = "keys"
    SELF_MASK_SEED = "self-mask-seed"
    SELF_MASK = "self-mask"
    PAIRWISE_MASK = "pairwise-mask"
    CHANNEL = "channel"
    SEALED_SHARES = "sealed-shares"
    SELF_MASK_SHARE = "self-mask-share"
    MASK_KEY_SHARE = "mask-key-share"
    SURVIVORS = "survivors"
    NOISE_SEED = "noise-seed"
    NOISE_SHARE = "noise-share"
    SEALED_NOISE_SHARES = "sealed-noise-shares"

    def __init__(self, use: str) -> None:
        text = f"securefed/secagg/v{VERSION}/{use}".encode("ascii")
        self.encoded: bytes = bytes([len(text)]) + text
        """The label's bytes: one length byte, then `securefed/secagg/v1/<use>` in ASCII."""
