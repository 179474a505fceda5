"""Which channel a configuration asks for, and the channel of the published compression."""

import hashlib
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protocols.codec import FixedPointCodec
from protocols.compression import SchemeKind, parse_scheme
from protocols.compression.download import deflate, inflate
from protocols.compression.half import HalfCodec
from protocols.result import RoundResult
from securefed.compression import (
    SCORE_UNIT,
    Channel,
    ChannelState,
    Contribution,
    FixedPointChannel,
    OpenedSum,
    RingChannel,
    Rounding,
)
from securefed.config import SecureAggregationConfig

Vector = NDArray[np.float32]


class HalfChannel:
    """The published compression: float16 + zlib in clear; the model in float32, deflated, as download."""

    def __init__(self, dimension: int) -> None:
        self.codec = HalfCodec(dimension)

    def payload(self, vector: Vector) -> bytes:
        """Return the model's bytes, deflated."""
        return deflate(np.ascontiguousarray(vector, dtype="<f4"), zlib.Z_DEFAULT_STRATEGY)

    def receive(self, site: str, payload: bytes | memoryview) -> Vector:
        """Return the model."""
        del site  # every site gets the same bytes and knows nothing else
        return inflate(bytes(payload), "<f4", self.codec.dimension).astype(np.float32)

    def compress(self, contribution: Contribution) -> bytes:
        """Return the body of a reply."""
        return self.codec.encode(contribution.update, round(contribution.score * SCORE_UNIT))

    def open(self, result: RoundResult) -> OpenedSum:
        """Decode the sum; nothing was clamped."""
        survivors = len(result.survivors)
        mean = self.codec.decode_sum(result.total, survivors) / survivors
        return OpenedSum(mean, self.codec.decode_counter(result.total) / survivors / SCORE_UNIT, 0.0)

    def scored(self, survivors: tuple[str, ...]) -> None:
        """Nothing depends on it."""

    def withdraw(self) -> None:
        """Nothing is remembered."""

    def state(self) -> ChannelState:
        """Return nothing."""
        return ChannelState()

    def restore(self, state: ChannelState, vector: Vector) -> None:
        """Nothing is needed."""


def make_channel(
    text: str,
    secure: SecureAggregationConfig,
    shapes: Sequence[tuple[int, ...]],
    sites: Sequence[str],
    initial: Vector,
    seed: int,
) -> Channel | HalfChannel:
    """Return the channel of a scheme.

    Args:
        text: The scheme; not `auto`.
        secure: The section of the configuration.
        shapes: Shape of each tensor of an update.
        sites: All sites.
        initial: float32[d], the model before the first round.
        seed: Seed of the run, for stochastic rounding.
    """
    scheme = parse_scheme(text)
    if scheme.kind is SchemeKind.RING:
        return RingChannel(scheme, shapes, sites, initial, seeded_rounding(seed))
    lengths = [int(np.prod(shape)) for shape in shapes]
    if scheme.kind is SchemeKind.FLOAT16_ZLIB:
        return HalfChannel(sum(lengths))
    return fixed_point(lengths, secure.update_range, secure.value_bits, seed)


def fixed_point(lengths: Sequence[int], limit: float, value_bits: int, seed: int) -> FixedPointChannel:
    """Return the channel without compression: one range, counters as fine as the values."""
    unit = (1 << value_bits) - 2
    codec = FixedPointCodec(lengths, [limit] * len(lengths), value_bits, max_counters=(unit, unit))
    return FixedPointChannel(codec, seeded_rounding(seed))


def seeded_rounding(seed: int) -> Rounding:
    """Return the generators of stochastic rounding: seeded, since it hides nothing, so that runs can be repeated."""

    def rounding(site: str, number: int) -> np.random.Generator:
        text = "\x1f".join(["securefed rounding", str(seed), site, str(number)])
        digest = hashlib.sha256(text.encode()).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))

    return rounding
