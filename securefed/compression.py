"""How updates travel: one channel a scheme, each with its encoding, its download and its memory.

A channel plays both ends of a simulation: the server's (download, opened sum) and, by site, the hospitals' (their copy
of the model, encoding, error feedback). What belongs to a hospital never enters what belongs to the server.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Codec, FixedPointCodec
from protocols.compression import CompressionState, DownloadHistory, ErrorFeedback, Replica, Scheme, Step
from protocols.compression.codec import CompressedCodec
from protocols.errors import SessionMismatchError
from protocols.result import RoundResult
from protocols.vectors import EncodedVector
from securefed.run_folder import Arrays

Vector = NDArray[np.float32]
Rounding = Callable[[str, int], np.random.Generator]

SCORE_UNIT = (1 << 14) - 1
"""Scores and shares in compressed sums are summed in units of 1 / 16383."""

FEEDBACK_DECAY = 1.0
"""Share of the error feedback that is kept from round to round: all of it, chosen on validation data
(docs/results/compression.md)."""


@dataclass(frozen=True)
class Contribution:
    """What a hospital gives to a round.

    Attributes:
        update: float32[d], local minus global.
        score: Accuracy in [0, 1] of the received model on its validation images; 0 where nothing is scored.
    """

    update: Vector
    score: float


@dataclass(frozen=True)
class OpenedSum:
    """What a sum says.

    Attributes:
        mean_update: float64[d], unweighted mean of the survivors' updates as the sum carries them.
        mean_score: Mean of their scores.
        mean_clamped: Mean share of the coordinates that were clamped into a public range.
    """

    mean_update: NDArray[np.float64]
    mean_score: float
    mean_clamped: float


@dataclass(frozen=True)
class ChannelState:
    """What a channel needs to go on after a restart: `public` arrays, and those of each site, which stay there."""

    public: Arrays = field(default_factory=dict)
    private: dict[str, Arrays] = field(default_factory=dict)


class Channel(Protocol):
    """How updates travel."""

    @property
    def codec(self) -> Codec:
        """The encoding of the next sum."""
        ...

    def payload(self, vector: Vector) -> bytes:
        """Return the next download; `vector` is the global model."""
        ...

    def receive(self, site: str, payload: bytes | memoryview) -> Vector:
        """Return the model that a site gets from a download."""
        ...

    def encode(self, site: str, number: int, digest: bytes, contribution: Contribution) -> EncodedVector:
        """Encode a site's contribution; `digest` is the codec that the round's parameters name."""
        ...

    def open(self, result: RoundResult) -> OpenedSum:
        """Decode an opened sum and end the round at both ends."""
        ...

    def scored(self, survivors: tuple[str, ...]) -> None:
        """Note who has answered with the present model in a round without updates."""
        ...

    def withdraw(self) -> None:
        """End a round in which nothing was opened."""
        ...

    def state(self) -> ChannelState:
        """Return what is needed to go on."""
        ...

    def restore(self, state: ChannelState, vector: Vector) -> None:
        """Go on from a state, with the global model that belongs to it."""
        ...


class FixedPointChannel:
    """The update as it is: one public range, the model in float32 as download; without memory."""

    def __init__(self, codec: FixedPointCodec, rounding: Rounding) -> None:
        self.codec = codec
        self._rounding = rounding
        self._unit = codec.max_counters[0]

    def payload(self, vector: Vector) -> bytes:
        """Return the model's bytes."""
        return np.ascontiguousarray(vector, dtype="<f4").tobytes()

    def receive(self, site: str, payload: bytes | memoryview) -> Vector:
        """Return the model."""
        del site  # every site gets the same bytes and knows nothing else
        return np.frombuffer(payload, dtype="<f4").astype(np.float32)

    def encode(self, site: str, number: int, digest: bytes, contribution: Contribution) -> EncodedVector:
        """Clamp, count what was clamped, round."""
        _check_codec(self.codec, digest)
        clamped, count = self.codec.saturate(contribution.update)
        share = -(-count * self._unit // contribution.update.size)  # rounded up: one clamped coordinate shows
        counters = (round(contribution.score * self._unit), share)
        return self.codec.encode(clamped, self._rounding(site, number), counters=counters)

    def open(self, result: RoundResult) -> OpenedSum:
        """Decode the sum."""
        survivors = len(result.survivors)
        score, clamped = self.codec.decode_counters(result.total)
        mean = self.codec.decode_mean(result.total, survivors)
        return OpenedSum(mean, score / survivors / self._unit, clamped / survivors / self._unit)

    def scored(self, survivors: tuple[str, ...]) -> None:
        """Nothing depends on it."""

    def withdraw(self) -> None:
        """Nothing is remembered."""

    def state(self) -> ChannelState:
        """Return nothing."""
        return ChannelState()

    def restore(self, state: ChannelState, vector: Vector) -> None:
        """Nothing is needed."""


class RingChannel:
    """Compressed updates: subspaces, narrow grids, error feedback; opened sums as download.

    Every hospital follows the model from the opened sums, and takes part only in the encoding that follows from them.

    Args:
        scheme: A `ring` scheme.
        shapes: Shape of each tensor of an update.
        sites: All sites.
        initial: float32[d], the model before the first round.
        rounding: Generator of stochastic rounding by site and round.
    """

    def __init__(
        self,
        scheme: Scheme,
        shapes: Sequence[tuple[int, ...]],
        sites: Sequence[str],
        initial: Vector,
        rounding: Rounding,
    ) -> None:
        start = CompressionState.start(shapes, scheme, len(sites), max_counters=(SCORE_UNIT,))
        self._sites = tuple(sites)
        self._rounding = rounding
        self._begin(Replica(initial, start))
        self._feedback = {site: ErrorFeedback(initial.size, FEEDBACK_DECAY) for site in sites}

    def _begin(self, replica: Replica) -> None:
        self._server = DownloadHistory(replica, self._sites)
        self._replicas = {site: Replica(replica.vector, replica.state) for site in self._sites}
        self._codec = replica.state.codec()
        self._codecs = dict.fromkeys(self._sites, self._codec)
        self._followed: dict[tuple[bytes, int], tuple[Replica, CompressedCodec]] = {}

    @property
    def codec(self) -> CompressedCodec:
        """The encoding of the next sum."""
        return self._codec

    def payload(self, vector: Vector) -> bytes:
        """Return the sums since the oldest model that a site may have.

        Raises:
            ValueError: The global model is not what the opened sums lead to.
        """
        if not np.array_equal(vector, self._server.replica.vector):
            raise ValueError("the global model is not the one that the opened sums lead to")
        self._followed.clear()
        return self._server.payload()

    def receive(self, site: str, payload: bytes | memoryview) -> Vector:
        """Let the site's copy follow; sites of this process that are at the same step share the work."""
        mine = self._replicas[site]
        key = (hashlib.sha256(payload).digest(), mine.step)
        if key not in self._followed:
            copy = Replica(mine.vector, mine.state)
            copy.receive(payload)
            self._followed[key] = (copy, copy.state.codec())
        followed, self._codecs[site] = self._followed[key]
        self._replicas[site] = Replica(followed.vector, followed.state)
        return followed.vector

    def encode(self, site: str, number: int, digest: bytes, contribution: Contribution) -> EncodedVector:
        """Add the feedback, project, round; note what is on its way."""
        codec = (
            self._codec
            if self._replicas[site].step == self._server.replica.step
            else self._replicas[site].state.codec()
        )
        _check_codec(codec, digest)
        feedback = self._feedback[site]
        quantised = codec.quantise(feedback.offer(contribution.update), self._rounding(site, number))
        feedback.sent(codec.delivered(quantised))
        return codec.encode(quantised, (round(contribution.score * SCORE_UNIT),))

    def open(self, result: RoundResult) -> OpenedSum:
        """Move the server's copy; each site keeps what the sum does not contain of its offer."""
        codec, survivors = self._codec, len(result.survivors)
        public = result.total.integers()[: codec.public_length]
        mean = self._server.opened(Step(survivors, public), result.survivors)
        self._codec = self._server.replica.state.codec()
        for site, feedback in self._feedback.items():
            if site in result.survivors:
                feedback.delivered()
            else:
                feedback.lost()
        (score,) = codec.decode_counters(result.total)
        clamped = sum(codec.clamped_of(public)) / codec.num_values
        return OpenedSum(mean, score / survivors / SCORE_UNIT, clamped / survivors)

    def scored(self, survivors: tuple[str, ...]) -> None:
        """These sites have the present model."""
        self._server.seen(survivors)

    def withdraw(self) -> None:
        """Nothing was opened: every site's memory is that of before the round."""
        for feedback in self._feedback.values():
            feedback.withdrawn()

    def state(self) -> ChannelState:
        """Return the public state of the encoding and each site's memory."""
        state = self._server.replica.state
        public: dict[str, NDArray[Any]] = {
            f"basis.{index}": basis for index, basis in enumerate(state.bases) if basis is not None
        }
        public |= {"step": np.asarray([state.step], np.int64), "ranges": np.asarray(state.ranges, np.float64)}
        return ChannelState(public, {site: {"feedback": memory.memory} for site, memory in self._feedback.items()})

    def restore(self, state: ChannelState, vector: Vector) -> None:
        """Put all parties at the model of a checkpoint, which every hospital keeps.

        Raises:
            ValueError: The state is of another federation.
        """
        present, public = self._server.replica.state, state.public
        if set(state.private) != set(self._sites) or not {"step", "ranges"} <= set(public):
            raise ValueError("the state of the compression is of another federation")
        bases = tuple(
            None if basis is None else public[f"basis.{index}"].astype(np.int16)
            for index, basis in enumerate(present.bases)
        )
        ranges = tuple(float(r) for r in public["ranges"])
        self._begin(Replica(vector, present.at(int(public["step"][0]), ranges, bases)))
        for site, arrays in state.private.items():
            self._feedback[site].memory = arrays["feedback"]


def _check_codec(codec: Codec, digest: bytes) -> None:
    """A hospital encodes only as it knows the encoding to be."""
    if codec.digest != digest:
        raise SessionMismatchError("the server")
