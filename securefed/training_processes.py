"""When the hospitals of a simulation train in processes of their own: where a run's first round shows that it pays."""

import math
import threading
from collections.abc import Callable, Iterable, Mapping

from clients.encoders import FeatureBundle
from clients.method import shared_arrays
from clients.method.crew import Crew, CrewError, ModelArguments
from clients.method.hospital import Hospital
from clients.method.layout import vector_layout
from clients.method.settings import TrainingSettings
from clients.method.workbench import Workbenches
from securefed.errors import TrainingProcessError

WORTH_SECONDS = 30.0
"""Of training left, as the last round took. A process takes two seconds to start and saves a sixth of the time."""


class TrainingProcesses:
    """Starts a crew for the hospitals of a run, once.

    Args:
        benches: Where they train until then; it learns of the crew.
        start: Starts a crew.
        rounds: The last round of the run.
        seconds: Returns the seconds of training so far.
        worth: Seconds of training left from which a crew pays; None for `WORTH_SECONDS`.
    """

    def __init__(
        self,
        benches: Workbenches,
        start: Callable[[], Crew],
        rounds: int,
        seconds: Callable[[], float],
        worth: float | None = None,
    ) -> None:
        self._benches, self._start, self._rounds, self._seconds = benches, start, rounds, seconds
        self._worth = WORTH_SECONDS if worth is None else worth
        self._lock = threading.Lock()
        self._round, self._before = 0, 0.0

    def begin(self, number: int) -> None:
        """A site is about to train in a round; called before each, from any thread.

        Raises:
            TrainingProcessError: The processes do not start.
        """
        with self._lock:
            if number == self._round or self._benches.crew is not None:
                return
            now = self._seconds()
            took, consecutive = now - self._before, number == self._round + 1 and self._round
            self._round, self._before = number, now
            if consecutive and took * (self._rounds - number + 1) >= self._worth:
                try:
                    self._benches.crew = self._start()
                except (CrewError, OSError) as error:
                    raise TrainingProcessError(f"processes to train in do not start: {error}") from error

    @property
    def crew(self) -> Crew | None:
        """The processes; None where there are none."""
        return self._benches.crew

    def close(self) -> None:
        """End the processes, if there are any."""
        with self._lock:
            if self._benches.crew is not None:
                self._benches.crew.close()
                self._benches.crew = None
            self._round = 0


def can_have_crew(hospitals: Iterable[Hospital], workers: int, device: str) -> bool:
    """Return whether hospitals can train in processes: several at a time, with a model, on a processor, on Linux."""
    if workers < 2 or device != "cpu" or not shared_arrays.available():
        return False
    return all(hospital.private_tensors is not None for hospital in hospitals)


def start_crew(
    processes: int, model: ModelArguments, seed: int, hospitals: Mapping[str, Hospital], length: int
) -> Crew:
    """Start processes for hospitals that have the same model and share a vector of some length."""
    private = next(iter(hospitals.values())).private_tensors
    assert private is not None  # noqa: S101 (can_have_crew has looked)
    rows = {site: hospital.rows_for_a_crew() for site, hospital in hospitals.items()}
    return Crew(min(processes, len(rows)), model, seed, rows, private, length)


def vector_length(bundle: FeatureBundle, settings: TrainingSettings, method: str) -> int:
    """Return the length d of the vector that hospitals share."""
    shapes = vector_layout(bundle.embed_dim, settings, method, len(bundle.classes))
    return sum(math.prod(shape) for _, shape in shapes)
