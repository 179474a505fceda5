"""How large a frame may be, from the round's parameters: checked before anything of it is read."""

from protocols.messages.noise_shares import dealt_noise_bytes
from protocols.packing import packed_bytes
from protocols.parameters import RoundParameters
from protocols.sealing import SEALED_BYTES
from protocols.secret_values import NoiseShare
from protocols.stages import Stage
from protocols.wire import HEADER_BYTES, MAX_CLIENTS, MAX_PAYLOAD_BYTES

FIRST_REQUEST_LIMIT = HEADER_BYTES + 8 + 512 + 2 * MAX_CLIENTS + MAX_PAYLOAD_BYTES
"""Largest request of AdvertiseKeys or PlainInputCollection, before any parameter is known."""

_ADVERTISEMENT = 1 + 32 + 32 + 32 + 64
_DEALT = 16 + 16 + 1 + SEALED_BYTES
_BLOCK = 2 + 32


def request_limit(stage: Stage, parameters: RoundParameters) -> int:
    """Return the largest request of a stage, in bytes."""
    n, e = parameters.clients, parameters.excess
    survivors = 2 + (n + 7) // 8
    noise = 2 + n * (2 + dealt_noise_bytes(e, sealed=True)) if e else 0
    bodies = {
        Stage.REVEAL_NONCES: 2 + n * _BLOCK,
        Stage.SHARE_KEYS: 4 + n * (2 + _ADVERTISEMENT) + n * _BLOCK,
        Stage.MASKED_INPUT_COLLECTION: 2 + n * (2 + _DEALT) + noise,
        Stage.CONSISTENCY_CHECK: survivors,
        Stage.UNMASKING: survivors + 2 + n * 66,
    }
    return HEADER_BYTES + bodies[stage] if stage in bodies else FIRST_REQUEST_LIMIT


def reply_limit(stage: Stage, parameters: RoundParameters) -> int:
    """Return the largest reply of a stage, in bytes."""
    n, e = parameters.clients, parameters.excess
    dealt_noise = 3 + 32 * e + n * (2 + dealt_noise_bytes(e, sealed=True)) if e else 0
    removed_noise = 3 + n * (2 + NoiseShare.length * e) if e else 0
    vector = 7 + 2 * n + packed_bytes(parameters.vector_length, parameters.ring_bits)
    bodies = {
        Stage.ADVERTISE_KEYS: _ADVERTISEMENT,
        Stage.REVEAL_NONCES: 32,
        Stage.SHARE_KEYS: 34 + n * (2 + _DEALT) + dealt_noise,
        Stage.MASKED_INPUT_COLLECTION: vector,
        Stage.CONSISTENCY_CHECK: 64,
        Stage.UNMASKING: 2 + n * 39 + removed_noise,
        Stage.PLAIN_INPUT_COLLECTION: vector,
    }
    return HEADER_BYTES + bodies[stage]
