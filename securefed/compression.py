"""How updates travel: a channel a scheme, cut at the wire into the server's half and a half at each site.

The server's half makes the download and decodes the opened sum. A site's half follows the model from downloads, encodes
the site's contribution and remembers what a sum did not carry. What belongs to a hospital never enters the server's.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Codec
from protocols.compression import CompressionState, DownloadHistory, ErrorFeedback, Replica, Scheme, Step
from protocols.compression.codec import CompressedCodec
from protocols.compression.parts import Bases
from protocols.errors import SessionMismatchError
from protocols.result import RoundResult
from protocols.secret_values import NoiseSeed
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
        constant: Whether both hang on nothing of the hospital's own: a round in which it only measured.
    """

    update: Vector
    score: float
    constant: bool = False


@dataclass(frozen=True)
class OpenedSum:
    """What a sum says.

    Attributes:
        mean_update: float[d], what the model moves by: the unweighted mean of the survivors' updates as the sum carries
            them (float64), of compressed ones times the server's step (float32).
        mean_score: Mean of their scores.
        mean_clamped: Mean share of the coordinates that were clamped into a public range.
    """

    mean_update: NDArray[np.floating[Any]]
    mean_score: float
    mean_clamped: float


@dataclass(frozen=True)
class ChannelState:
    """What a channel needs to go on after a restart: `public` arrays, and those of each site, which stay there."""

    public: Arrays = field(default_factory=dict)
    private: dict[str, Arrays] = field(default_factory=dict)


class Fate(StrEnum):
    """What became of a site's vector."""

    DELIVERED = "delivered"
    """The opened sum contains it."""

    LOST = "lost"
    """The sum was opened without it."""

    WITHDRAWN = "withdrawn"
    """Nothing was opened; the round can be begun again."""


class ServerChannel(Protocol):
    """The server's half."""

    @property
    def codec(self) -> Codec:
        """The encoding of the next sum."""
        ...

    def payload(self, vector: Vector) -> bytes:
        """Return the next download; `vector` is the global model."""
        ...

    def open(self, result: RoundResult) -> OpenedSum:
        """Decode an opened sum."""
        ...

    def scored(self, survivors: tuple[str, ...]) -> None:
        """Note who has answered with the present model in a round without updates."""
        ...

    def state(self) -> Arrays:
        """Return what is needed to go on, beside the global model; all of it is public."""
        ...

    def restore(self, state: Arrays, vector: Vector, *, known: bool) -> None:
        """Go on from a state, with the global model that belongs to it; `known` if every site has that model."""
        ...


class SiteChannel(Protocol):
    """One site's half."""

    def receive(self, payload: bytes | memoryview) -> Vector:
        """Return the model that a download leads to."""
        ...

    def encode(
        self, number: int, digest: bytes, contribution: Contribution, excess: Sequence[NoiseSeed] = ()
    ) -> EncodedVector:
        """Encode the site's contribution to a round.

        Args:
            number: The round.
            digest: The codec that the round's parameters name.
            contribution: What the hospital gives.
            excess: Seeds of noise that can be removed, where the channel adds noise.
        """
        ...

    def close(self, fate: Fate) -> None:
        """End the round; without a contribution on its way nothing changes."""
        ...

    def memory(self) -> Arrays:
        """Return what the site remembers between rounds. Secrecy: stays at the site."""
        ...

    def recall(self, memory: Arrays) -> None:
        """Put back an earlier `memory`; what was on its way is withdrawn."""
        ...

    def state(self) -> Arrays:
        """Return all that the half needs to go on, also within a round. Secrecy: stays at the site."""
        ...

    def restore(self, state: Arrays) -> None:
        """Go on from `state`; or, at the start of a round, from `memory`, the server's state and its `vector`."""
        ...


class RingServer:
    """Compressed updates: subspaces, narrow grids; opened sums as download.

    Every hospital follows the model from the opened sums, and takes part only in the encoding that follows from them.

    Args:
        replica: The model before the first round and the encoding at it.
        sites: All sites.
    """

    def __init__(self, replica: Replica, sites: Sequence[str]) -> None:
        self._sites = tuple(sites)
        self._begin(replica)

    def _begin(self, replica: Replica, *, known: bool = True) -> None:
        self._history = DownloadHistory(replica, self._sites, known=known)
        self._codec = replica.state.codec()

    @property
    def codec(self) -> CompressedCodec:
        """The encoding of the next sum."""
        return self._codec

    def payload(self, vector: Vector) -> bytes:
        """Return the sums since the oldest model that a site may have.

        Raises:
            ValueError: The global model is not what the opened sums lead to.
        """
        if not np.array_equal(vector, self._history.replica.vector):
            raise ValueError("the global model is not the one that the opened sums lead to")
        return self._history.payload()

    def open(self, result: RoundResult) -> OpenedSum:
        """Move the server's copy."""
        codec, survivors = self._codec, len(result.survivors)
        public = result.total.integers()[: codec.public_length]
        mean = self._history.opened(Step(survivors, public), result.survivors)
        self._codec = self._history.replica.state.codec()
        (score,) = codec.decode_counters(result.total)
        clamped = sum(codec.clamped_of(public)) / codec.num_values
        return OpenedSum(mean, score / survivors / SCORE_UNIT, clamped / survivors)

    def scored(self, survivors: tuple[str, ...]) -> None:
        """These sites have the present model."""
        self._history.seen(survivors)

    def state(self) -> Arrays:
        """Return step, ranges and bases of the encoding."""
        return _public(self._history.replica.state)

    def restore(self, state: Arrays, vector: Vector, *, known: bool) -> None:
        """Put the server at the model of a checkpoint; it is sent whole until every site is known to have it.

        Raises:
            ValueError: The state is of another federation.
        """
        self._begin(Replica(vector, _at(self._history.replica.state, state)), known=known)


class Followed:
    """Downloads that were followed already: sites of one process that are at the same step share the work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._payload: bytes | memoryview = b""
        self._known: dict[int, tuple[Replica, CompressedCodec]] = {}

    def receive(self, mine: Replica, payload: bytes | memoryview) -> tuple[Replica, CompressedCodec]:
        """Return a copy of a replica that has followed a download, and the encoding at its model."""
        digest = hashlib.sha256(payload).digest()
        with self._lock:
            if digest != self._payload:
                self._payload, self._known = digest, {}
            if mine.step not in self._known:
                copy = mine.copy()
                copy.receive(payload)
                self._known[mine.step] = (copy, copy.state.codec())
            followed, codec = self._known[mine.step]
        return followed.copy(), codec


class RingSite:
    """A site's half of the same: its copy of the model, and error feedback.

    Args:
        replica: As for the server.
        followed: Shared by the sites of one process, or its own.
    """

    def __init__(self, replica: Replica, followed: Followed) -> None:
        self._replica = Replica(replica.vector, replica.state)
        self._codec = replica.state.codec()
        self._followed = followed
        self._feedback = ErrorFeedback(replica.vector.size, FEEDBACK_DECAY)
        self._offered_at = -1

    def receive(self, payload: bytes | memoryview) -> Vector:
        """Follow the sums, and learn from them what was delivered.

        A contribution that is not known to be lost counts as delivered if a sum was opened since, so that nothing is
        ever sent twice, and as withdrawn if none was.
        """
        self._replica, self._codec = self._followed.receive(self._replica, payload)
        if self._offered_at >= 0:
            self._settle()
        return self._replica.vector

    def _settle(self) -> None:
        """Keep what the sum does not contain of the offer; nothing if this site has skipped the sum."""
        lifts = self._replica.lifts(self._offered_at)
        if self._replica.step <= self._offered_at:
            self._feedback.withdrawn()
        elif lifts is None:
            self._feedback.clear()
        else:
            self._feedback.delivered(lambda rest: self._codec.lifted(rest, lifts))
        self._offered_at = -1

    def encode(
        self, number: int, digest: bytes, contribution: Contribution, excess: Sequence[NoiseSeed] = ()
    ) -> EncodedVector:
        """Add the feedback, project, round to the nearest; note what is on its way."""
        del number, excess  # nothing is drawn, and no noise is added
        check_codec(self._codec, digest)
        quantised = self._codec.quantise(self._feedback.offer(contribution.update), None)
        self._feedback.sent(*self._codec.contribution(quantised))
        self._offered_at = self._replica.step
        return self._codec.encode(quantised, (round(contribution.score * SCORE_UNIT),))

    def close(self, fate: Fate) -> None:
        """Learn how the round ended; how much of an offer was delivered, the sum in the next download will say."""
        if fate is Fate.DELIVERED:
            return
        if fate is Fate.LOST:
            self._feedback.lost()
        else:
            self._feedback.withdrawn()
        self._offered_at = -1

    def memory(self) -> Arrays:
        """Return the error feedback, and what is on its way."""
        on_its_way = self._feedback.on_its_way
        if on_its_way is None:
            return {"feedback": self._feedback.memory}
        pending = dict(zip(("offered", "kept", "rest"), on_its_way, strict=True))
        return {"feedback": self._feedback.memory, **pending, "offered_at": np.asarray([self._offered_at], np.int64)}

    def recall(self, memory: Arrays) -> None:
        """Put back an earlier feedback."""
        self._feedback.memory = memory["feedback"]
        self._offered_at = -1

    def state(self) -> Arrays:
        """Return the memory, the copy of the model and the encoding at it."""
        return {**self.memory(), **_public(self._replica.state), "vector": self._replica.vector.copy()}

    def restore(self, state: Arrays) -> None:
        """Put the site where it was.

        Raises:
            ValueError: The state is of another federation.
        """
        self._replica = Replica(state["vector"], _at(self._replica.state, state))
        self._codec = self._replica.state.codec()
        self.recall(state)
        if "offered" in state:
            self._feedback.on_its_way = state["offered"], state["kept"], state["rest"]
            self._offered_at = int(state["offered_at"][0])


def ring_replica(scheme: Scheme, shapes: Sequence[tuple[int, ...]], clients: int, initial: Vector) -> Replica:
    """Return where all parties of a `ring` scheme begin: the initial model and the encoding at it."""
    return Replica(initial, CompressionState.start(shapes, scheme, clients, max_counters=(SCORE_UNIT,)))


def check_codec(codec: Codec, digest: bytes) -> None:
    """A hospital encodes only as it knows the encoding to be."""
    if codec.digest != digest:
        raise SessionMismatchError("the server")


def _public(state: CompressionState) -> Arrays:
    public: dict[str, NDArray[Any]] = {}
    for index, (bases, lifted) in enumerate(zip(state.bases, state.lifts, strict=True)):
        if bases is not None and lifted is not None:
            public |= {f"left.{index}": bases.left, f"right.{index}": bases.right, f"lift.{index}": lifted}
    return public | {"step": np.asarray([state.step], np.int64), "ranges": np.asarray(state.ranges, np.float64)}


def _at(present: CompressionState, public: Arrays) -> CompressionState:
    if not {"step", "ranges"} <= set(public):
        raise ValueError("the state of the compression is of another federation")
    kept = [None if bases is None else str(index) for index, bases in enumerate(present.bases)]
    bases = tuple(
        None if i is None else Bases(public[f"left.{i}"].astype(np.int16), public[f"right.{i}"].astype(np.int16))
        for i in kept
    )
    lifts = tuple(None if i is None else public[f"lift.{i}"].astype(np.int32) for i in kept)
    return present.at(int(public["step"][0]), tuple(float(r) for r in public["ranges"]), bases, lifts)
