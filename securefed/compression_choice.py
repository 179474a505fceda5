"""`auto`: which compression fits the byte budget of a hospital, and why."""

from collections.abc import Callable
from dataclasses import dataclass

from protocols.packing import packed_bytes
from protocols.parameters import RoundParameters
from protocols.traffic import expected_traffic
from protocols.wire import HEADER_BYTES
from securefed.errors import ConfigError

LADDER = (
    "none",
    "ring:8,subspace:0.125",
    "ring:4,subspace:0.125",
    "ring:3,subspace:0.125",
    "ring:4,subspace:0.0625",
    "ring:4,subspace:0.03125",
    "ring:3,subspace:0.015625",
)
"""Schemes from the most faithful to the smallest (docs/results/compression.md)."""


_AROUND_PLAIN_VECTOR = HEADER_BYTES + 5
"""The frame's header, width and length."""


@dataclass(frozen=True)
class Choice:
    """A scheme and why it was taken.

    Attributes:
        scheme: Text of the scheme.
        reason: One sentence; empty where nothing was chosen.
    """

    scheme: str
    reason: str = ""


def choose(budget: int, upload_bytes: Callable[[str], int]) -> Choice:
    """Return the most faithful scheme of the ladder whose upload fits.

    Args:
        budget: Bytes that a hospital may send in a round, protocol overhead included.
        upload_bytes: Exact bytes of a scheme in a round without losses.

    Raises:
        ConfigError: Not even the smallest fits.
    """
    for index, scheme in enumerate(LADDER):
        size = upload_bytes(scheme)
        if size <= budget:
            above = "" if index == 0 else f"; {LADDER[index - 1]} would send {upload_bytes(LADDER[index - 1]):,}"
            reason = f"compression auto: {scheme} sends {size:,} of the {budget:,} bytes a hospital and round{above}"
            return Choice(scheme, reason)
    raise ConfigError(
        "secure_aggregation.upload_budget",
        f"{budget:,} bytes a round are too few: {LADDER[-1]} needs {upload_bytes(LADDER[-1]):,}",
    )


def upload_bytes(parameters: RoundParameters, *, in_clear: bool) -> int:
    """Return what one hospital sends in a round without losses, from the byte formula of the protocol."""
    if in_clear:
        return _AROUND_PLAIN_VECTOR + packed_bytes(parameters.vector_length, parameters.max_coordinate.bit_length())
    traffic = expected_traffic(
        parameters.clients,
        parameters.neighbours,
        parameters.quorum(parameters.clients),
        parameters.threat_model,
        parameters.vector_length,
        parameters.ring_bits,
        payload_bytes=0,
    )
    return sum(stage.up for stage in traffic.values())
