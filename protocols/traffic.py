"""The byte formula: how many bytes each stage carries for one client, from the parameters alone (SPEC.md, "Bytes")."""

from collections.abc import Mapping
from dataclasses import dataclass

from protocols.messages.noise_shares import dealt_noise_bytes
from protocols.packing import packed_bytes
from protocols.sealing import SEALED_BYTES
from protocols.secret_values import NoiseShare, SelfMaskShare
from protocols.stages import Stage, ThreatModel, stages_of
from protocols.wire import HEADER_BYTES

PARAMETER_BYTES = 132
"""Round parameters without the cohort's places."""

_DEALT = 2 + 16 + 16 + 1


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of one client at one stage.

    Attributes:
        down: Request.
        up: Reply.
    """

    down: int
    up: int


def expected_traffic(
    clients: int,
    neighbours: int,
    quorum: int,
    threat_model: ThreatModel,
    vector_length: int,
    ring_bits: int,
    payload_bytes: int,
    excess: int = 0,
) -> Mapping[Stage, Traffic]:
    """Return the exact bytes of one client at each stage of a round in which nobody is lost.

    Args:
        clients: n.
        neighbours: k.
        quorum: Signatures that a client is shown in an active round: t on a complete graph.
        threat_model: Decides on signatures.
        vector_length: d.
        ring_bits: b.
        payload_bytes: Size of the download.
        excess: Components of noise that can be removed, on a complete graph.
    """
    complete, active = neighbours == clients - 1, threat_model is ThreatModel.ACTIVE
    advertisement = 65 + (0 if complete else 32) + (64 if active else 0)
    survivors = 2 + (clients + 7) // 8
    own = 1 if complete else 0
    noise_dealt = noise_passed_on = noise_removed = 0
    if excess:
        to_others = 2 + dealt_noise_bytes(excess, sealed=True)
        noise_dealt = 3 + 32 * excess + neighbours * to_others + 2 + dealt_noise_bytes(excess, sealed=False)
        noise_passed_on = 2 + neighbours * to_others
        noise_removed = 3 + clients * (2 + NoiseShare.length * excess)
    bodies = {
        Stage.ADVERTISE_KEYS: (8 + PARAMETER_BYTES + 2 * clients + (excess > 0) + payload_bytes, advertisement),
        Stage.REVEAL_NONCES: (2 + 34 * clients, 32),
        Stage.SHARE_KEYS: (
            2 + (neighbours + 1) * (2 + advertisement) + 2 + (0 if complete else 34 * clients),
            34 + (neighbours + own) * _DEALT + neighbours * SEALED_BYTES + noise_dealt,
        ),
        Stage.MASKED_INPUT_COLLECTION: (
            2 + neighbours * (_DEALT + SEALED_BYTES) + noise_passed_on,
            7 + packed_bytes(vector_length, ring_bits),
        ),
        Stage.CONSISTENCY_CHECK: (survivors, 64),
        Stage.UNMASKING: (
            survivors + 2 + (66 * quorum if active else 0),
            2 + (neighbours + own) * (3 + SelfMaskShare.length) + noise_removed,
        ),
    }
    return {
        stage: Traffic(HEADER_BYTES + bodies[stage][0], HEADER_BYTES + bodies[stage][1])
        for stage in stages_of(threat_model, complete_graph=complete)
    }
