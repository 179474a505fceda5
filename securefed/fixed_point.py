"""The channel without compression: the update as it is, the model in float32 as download."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protocols.codec import FixedPointCodec
from protocols.result import RoundResult
from protocols.secret_values import NoiseSeed
from protocols.vectors import EncodedVector
from securefed.compression import Contribution, OpenedSum, Rounding, check_codec
from securefed.memoryless import MemorylessServer, MemorylessSite

Vector = NDArray[np.float32]


class FixedPointServer(MemorylessServer):
    """The update as it is: one public range, the model in float32 as download; without memory."""

    def __init__(self, codec: FixedPointCodec) -> None:
        self.codec = codec
        self._unit = codec.max_counters[0]

    def payload(self, vector: Vector) -> bytes:
        """Return the model's bytes."""
        return np.ascontiguousarray(vector, dtype="<f4").tobytes()

    def open(self, result: RoundResult) -> OpenedSum:
        """Decode the sum."""
        survivors = len(result.survivors)
        score, clamped = self.codec.decode_counters(result.total)
        mean = self.codec.decode_mean(result.total, survivors)
        return OpenedSum(mean, score / survivors / self._unit, clamped / survivors / self._unit)


class FixedPointSite(MemorylessSite):
    """A site's half of the same.

    Args:
        site: Its name.
        codec: The encoding.
        rounding: Generator of stochastic rounding by site and round.
    """

    def __init__(self, site: str, codec: FixedPointCodec, rounding: Rounding) -> None:
        self._site = site
        self._codec = codec
        self._rounding = rounding
        self._unit = codec.max_counters[0]

    def receive(self, payload: bytes | memoryview) -> Vector:
        """Return the model, read-only where the payload is: a view of it."""
        return np.frombuffer(payload, dtype="<f4").astype(np.float32, copy=False)

    def encode(
        self, number: int, digest: bytes, contribution: Contribution, excess: Sequence[NoiseSeed] = ()
    ) -> EncodedVector:
        """Clamp, count what was clamped, round."""
        del excess  # a channel without noise
        check_codec(self._codec, digest)
        clamped, count = self._codec.saturate(contribution.update)
        share = -(-count * self._unit // contribution.update.size)  # rounded up: one clamped coordinate shows
        counters = (round(contribution.score * self._unit), share)
        rounding = self._rounding(self._site, number)
        return self._codec.encode(clamped, rounding, counters=counters, constant=contribution.constant)
