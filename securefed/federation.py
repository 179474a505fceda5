"""A federated run from the top.

Hospitals train, updates are encoded and masked, the sum is opened, the model moves, the evidence is written.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from securefed.aggregation import Aggregator, OpenedRound
from securefed.checkpoint import Checkpoint, Snapshot
from securefed.compression import ChannelState
from securefed.run_folder import Arrays
from securefed.selection import BestRound, Score
from securefed.spill import spilled

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class RoundReport:
    """One finished round.

    Attributes:
        number: The round, from 1.
        opened: What the server saw of it.
        checkpoint: Where the run stands after it.
        val_accuracy: {site: {part: accuracy on the site's validation images}} with the new model. A simulation may
            look; in a deployment these stay at the hospitals.
        keep_ratios: {site: {part: share of rows kept}}.
    """

    number: int
    opened: OpenedRound
    checkpoint: Checkpoint
    val_accuracy: Mapping[str, Mapping[str, float]]
    keep_ratios: Mapping[str, Mapping[str, float]]


class Hospitals(Protocol):
    """What the loop may see of the hospitals: in a simulation all of this, in a deployment nothing."""

    @property
    def seconds(self) -> float:
        """Seconds spent at the hospitals since the start."""
        ...

    def private_states(self) -> dict[str, Arrays]:
        """Return {site: what it keeps to itself}."""
        ...

    def load_private_states(self, states: Mapping[str, Arrays]) -> None:
        """Put back what `private_states` returned."""
        ...

    def begin(self, vector: Vector, number: int) -> None:
        """Every site is about to receive a vector for a round: whoever can may begin to train."""
        ...

    def validation_accuracy(self, vector: Vector) -> Mapping[str, Mapping[str, float]]:
        """Return {site: {part: accuracy on its validation images}}."""
        ...

    def keep_ratios(self, vector: Vector) -> Mapping[str, Mapping[str, float]]:
        """Return {site: {part: share of rows kept}}."""
        ...


class OutOfSight:
    """The hospitals of a deployment, as the server sees them: not at all. Their own nodes keep what is theirs."""

    seconds = 0.0

    def private_states(self) -> dict[str, Arrays]:
        """Return nothing."""
        return {}

    def load_private_states(self, states: Mapping[str, Arrays]) -> None:
        """Nothing is theirs."""

    def begin(self, vector: Vector, number: int) -> None:
        """They will receive it."""

    def validation_accuracy(self, vector: Vector) -> Mapping[str, Mapping[str, float]]:
        """Return nothing."""
        del vector
        return {}

    def keep_ratios(self, vector: Vector) -> Mapping[str, Mapping[str, float]]:
        """Return nothing."""
        del vector
        return {}


class Federation:
    """The server's loop over rounds.

    Args:
        hospitals: What may be seen of the hospitals.
        aggregator: How contributions become a sum (under masks or in clear: the same integers either way). Each site
            receives the model, scores it, trains and contributes in its own node (securefed/nodes/site.py).
        vector: float32[d], the global model to start from.
        select: `best-val` or `last` (securefed/selection.py).

    Attributes:
        moved: Called with the snapshot of a round and the state of its sums, before the hospitals validate the model.
    """

    def __init__(self, hospitals: Hospitals, aggregator: Aggregator, vector: Vector, select: str) -> None:
        self._hospitals = hospitals
        self._aggregator = aggregator
        self._vector = vector
        self._scored = select == "best-val"
        self._best_round = BestRound()
        self._best: Snapshot | None = None
        self._current = Snapshot(0, vector, {})  # never the best: nobody will ask what the hospitals had then
        self.seconds = {"train": 0.0, "aggregate": 0.0, "evaluate": 0.0}
        self.moved: Callable[[Snapshot, ChannelState], None] = lambda _snapshot, _channel: None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on after the round of a checkpoint."""
        self._best = checkpoint.best and replace(checkpoint.best, private=spilled(checkpoint.best.private))
        self._vector = checkpoint.current.vector
        self._aggregator.restore(checkpoint.channel, self._vector)
        self._hospitals.load_private_states(checkpoint.current.private)
        self._current = self._snapshot(checkpoint.current.number)
        if checkpoint.best is not None:
            self._best_round = BestRound(checkpoint.best.number, checkpoint.best_mean)
        self.seconds.update(checkpoint.seconds)

    def run(self, rounds: int, finished: Callable[[RoundReport], None]) -> Snapshot:
        """Run the rounds that are left and return the model that the selection rule keeps.

        Args:
            rounds: The last round.
            finished: Called after each round with what happened; a checkpoint that it writes makes the round final.

        Raises:
            RoundAbortedError: A round ended without a sum.
        """
        if self._current.number < rounds:
            self._hospitals.begin(self._vector, self._current.number + 1)
        for number in range(self._current.number + 1, rounds + 1):
            if not self._scored:  # nobody will ask for the model before this round: let its memory go
                self._current = Snapshot(number - 1, self._vector, {})
            opened = self._open_round(number)
            self._vector = (self._vector + opened.mean_update).astype(np.float32)
            self._current = self._snapshot(number)
            channel = self._aggregator.channel_state()
            self.moved(self._current, channel)
            if number < rounds:
                self._hospitals.begin(self._vector, number + 1)
            with self._clock("evaluate"):
                accuracy = self._hospitals.validation_accuracy(self._vector)
                kept = self._hospitals.keep_ratios(self._vector)
            finished(RoundReport(number, opened, self._checkpoint(channel), accuracy, kept))
        return self._keep(rounds)

    def _open_round(self, number: int) -> OpenedRound:
        """One round: every hospital that is not lost receives the model, trains and contributes; the sum is opened."""
        start, before = time.perf_counter(), self._hospitals.seconds
        opened = self._aggregator.open_round(number, self._vector)
        training = self._hospitals.seconds - before
        self.seconds["train"] += training
        self.seconds["aggregate"] += time.perf_counter() - start - training
        self._take_score(Score(number - 1, opened.mean_score))
        self._aggregator.close_round(number, opened, self._best_round.number)
        return opened

    def _keep(self, rounds: int) -> Snapshot:
        if not self._scored:
            return self._current
        with self._clock("aggregate"):
            mean = self._aggregator.open_scores(rounds + 1, self._vector)
        self._take_score(Score(rounds, mean))
        assert self._best is not None  # noqa: S101 (a score was taken in just now)
        return self._best

    def _snapshot(self, number: int) -> Snapshot:
        """The model as it is now; another round follows before it is known whether it was the best."""
        states = self._hospitals.private_states()
        return Snapshot(number, self._vector, spilled(states) if self._scored else states)

    def _take_score(self, score: Score) -> None:
        """The score of the model that the round *began* with: the snapshot is still that of the round before."""
        if self._scored and self._best_round.consider(score):
            self._best = self._current

    def _checkpoint(self, channel: ChannelState) -> Checkpoint:
        return Checkpoint(self._current, self._best, self._best_round.mean, dict(self.seconds), channel)

    def _clock(self, phase: str) -> "_Clock":
        return _Clock(self.seconds, phase)


class _Clock:
    """Adds the seconds of a block to a phase."""

    def __init__(self, seconds: dict[str, float], phase: str) -> None:
        self._seconds, self._phase = seconds, phase

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._phase] += time.perf_counter() - self._start
