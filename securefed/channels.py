"""Which channel a configuration asks for, and the channel of the published compression."""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.codec import FixedPointCodec
from protocols.compression import Replica, parse_scheme
from protocols.compression.download import deflate, inflate
from protocols.compression.half import HalfCodec
from protocols.compression.scheme import SchemeKind
from protocols.result import RoundResult
from securefed.compression import (
    SCORE_UNIT,
    Contribution,
    Followed,
    OpenedSum,
    RingServer,
    RingSite,
    Rounding,
    ServerChannel,
    SiteChannel,
    ring_replica,
)
from securefed.config import SecureAggregationConfig
from securefed.fixed_point import FixedPointServer, FixedPointSite
from securefed.memoryless import MemorylessServer, MemorylessSite
from securefed.noisy import NoisyChannel

Vector = NDArray[np.float32]


class HalfServer(MemorylessServer):
    """The published compression: float16 + zlib in clear; the model in float32, deflated, as download."""

    def __init__(self, codec: HalfCodec) -> None:
        self.codec = codec

    def payload(self, vector: Vector) -> bytes:
        """Return the model's bytes, deflated."""
        return deflate(np.ascontiguousarray(vector, dtype="<f4"), zlib.Z_DEFAULT_STRATEGY)

    def open(self, result: RoundResult) -> OpenedSum:
        """Decode the sum; nothing was clamped."""
        survivors = len(result.survivors)
        mean = self.codec.decode_sum(result.total, survivors) / survivors
        return OpenedSum(mean, self.codec.decode_counter(result.total) / survivors / SCORE_UNIT, 0.0)


class HalfSite(MemorylessSite):
    """A site's half of the same; its contributions are bytes, for a round of their own kind in clear."""

    def __init__(self, codec: HalfCodec) -> None:
        self.codec = codec

    def receive(self, payload: bytes | memoryview) -> Vector:
        """Return the model."""
        return inflate(bytes(payload), "<f4", self.codec.dimension).astype(np.float32)

    def compress(self, contribution: Contribution) -> bytes:
        """Return the body of a reply."""
        return self.codec.encode(contribution.update, round(contribution.score * SCORE_UNIT))


@dataclass(frozen=True)
class ChannelMaker:
    """Makes the halves of a channel: both ends hold the same one, since all of it follows from the configuration.

    Attributes:
        scheme: Text of the scheme; not `auto`.
        secure: The section of the configuration.
        shapes: Shape of each tensor of an update.
        sites: All sites.
        initial: float32[d], the model before the first round.
        seed: Seed of the run, for stochastic rounding.
        noisy: The channel of a run that adds noise in shares, in place of all others.
    """

    scheme: str
    secure: SecureAggregationConfig
    shapes: Sequence[tuple[int, ...]]
    sites: Sequence[str]
    initial: Vector
    seed: int
    noisy: NoisyChannel | None = None

    def server(self) -> ServerChannel | HalfServer:
        """Return the server's half."""
        if self.noisy is not None:
            return self.noisy.server()
        kind = parse_scheme(self.scheme).kind
        if kind is SchemeKind.RING:
            return RingServer(self._replica(), self.sites)
        return HalfServer(self._half()) if kind is SchemeKind.FLOAT16_ZLIB else FixedPointServer(self._fixed())

    def site(self, site: str, followed: Followed) -> SiteChannel | HalfSite:
        """Return the half of one site; sites of one process may share what they have followed."""
        if self.noisy is not None:
            return self.noisy.site(site)
        kind = parse_scheme(self.scheme).kind
        rounding = seeded_rounding(self.seed)
        if kind is SchemeKind.RING:
            return RingSite(self._replica(), followed)
        if kind is SchemeKind.FLOAT16_ZLIB:
            return HalfSite(self._half())
        return FixedPointSite(site, self._fixed(), rounding)

    def _replica(self) -> Replica:
        return ring_replica(parse_scheme(self.scheme), self.shapes, len(self.sites), self.initial)

    def _half(self) -> HalfCodec:
        return HalfCodec(self.initial.size)

    def _fixed(self) -> FixedPointCodec:
        lengths = [int(np.prod(shape)) for shape in self.shapes]
        return fixed_point_codec(lengths, self.secure.update_range, self.secure.value_bits)


def fixed_point_codec(lengths: Sequence[int], limit: float, value_bits: int) -> FixedPointCodec:
    """Return the encoding without compression: one range, counters as fine as the values."""
    unit = (1 << value_bits) - 2
    return FixedPointCodec(lengths, [limit] * len(lengths), value_bits, max_counters=(unit, unit))


def seeded_rounding(seed: int) -> Rounding:
    """Return the generators of stochastic rounding: seeded, since it hides nothing, so that runs can be repeated."""

    def rounding(site: str, number: int) -> np.random.Generator:
        text = "\x1f".join(["securefed rounding", str(seed), site, str(number)])
        digest = hashlib.sha256(text.encode()).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))

    return rounding
