"""The messages of a round: one frozen class each, with its body's bytes and nothing else (SPEC.md, "Messages")."""

from protocols.messages.consistency import ConsistencyCheckReply, ConsistencyCheckRequest
from protocols.messages.frames import FrameKind, Message, decode_message, encode_message, frame_type
from protocols.messages.inputs import MaskedInputReply, PlainInputReply, PlainInputRequest
from protocols.messages.keys import (
    AdvertiseKeysReply,
    AdvertiseKeysRequest,
    Advertisement,
    RevealNoncesReply,
    RevealNoncesRequest,
)
from protocols.messages.noise_shares import (
    DealtNoise,
    NoisyMaskedInputRequest,
    NoisyShareKeysReply,
    NoisyUnmaskingReply,
)
from protocols.messages.refusal import Refusal
from protocols.messages.shares import (
    DealtShares,
    MaskedInputRequest,
    ShareKeysReply,
    ShareKeysRequest,
)
from protocols.messages.unmasking import UnmaskingReply, UnmaskingRequest

__all__ = [
    "AdvertiseKeysReply",
    "AdvertiseKeysRequest",
    "Advertisement",
    "ConsistencyCheckReply",
    "ConsistencyCheckRequest",
    "DealtNoise",
    "DealtShares",
    "FrameKind",
    "MaskedInputReply",
    "MaskedInputRequest",
    "Message",
    "NoisyMaskedInputRequest",
    "NoisyShareKeysReply",
    "NoisyUnmaskingReply",
    "PlainInputReply",
    "PlainInputRequest",
    "Refusal",
    "RevealNoncesReply",
    "RevealNoncesRequest",
    "ShareKeysReply",
    "ShareKeysRequest",
    "UnmaskingReply",
    "UnmaskingRequest",
    "decode_message",
    "encode_message",
    "frame_type",
]
