"""Steps of training that a GPU repeats by itself: recorded once as a CUDA graph, replayed from then on.

A step is some hundred and fifty short kernels. Python takes ten times as long to ask for them as a GPU to run them;
a graph of several steps is asked for once. What a replay does is what the same calls would have done: random numbers
are those that the generators have reached, and everything that differs between two steps lies in memory on the device.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

_STEPS = 8
"""Steps of a graph, at most."""

_KERNELS = 1500
"""Of a graph, about: more steps than that are not recorded in one."""

_KERNELS_OF_STEP = 150
"""About, beside those that draw for one hospital each."""

_DRAWS = 3
"""Kernels that draw for one hospital in a step."""

_GRAPHS = 64
"""Recorded at most; other steps are run one call at a time."""


class Replays:
    """Runs steps call by call, as a processor must."""

    records = False
    """Whether steps are recorded: they may then read nothing that Python holds and changes."""

    @staticmethod
    def on(device: torch.device, dtype: torch.dtype) -> "Replays":
        """Return what suits a device; in double precision nothing is recorded (a recorded learning rate is single)."""
        if device.type != "cuda":
            return Replays()
        return RecordedSteps(device) if dtype == torch.float32 else OnStream(device)

    def stream(self) -> AbstractContextManager[None]:
        """Return where all work on the stack has to happen."""
        return nullcontext()

    def beside(self) -> AbstractContextManager[None]:
        """Return where what depends on nothing of the step so far may happen, beside the rest of it."""
        return nullcontext()

    def wait(self) -> None:
        """Wait until all work is done."""

    def mark(self) -> None:
        """Remember how far the work is that has been asked for."""

    def wait_for_mark(self) -> None:
        """Wait until all work before the mark is done."""

    def run(
        self, key: tuple[int, ...], times: int, step: Callable[[], None], generators: Sequence[torch.Generator]
    ) -> None:
        """Take a step some times.

        Args:
            key: Steps with the same key are the same calls on the same memory.
            times: How often.
            step: Makes the calls.
            generators: All that it draws from.
        """
        del key, generators
        for _ in range(times):
            step()


class OnStream(Replays):
    """Runs steps call by call, on a stream of their own: other work on the GPU goes on beside them.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._mark = torch.cuda.Event()  # type: ignore[no-untyped-call]

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Work on the stream, after all that was asked of the current one."""
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            yield

    def wait(self) -> None:
        """Wait until all work on the stream is done."""
        self._stream.synchronize()

    def mark(self) -> None:
        """Remember how far the work on the stream is that has been asked for."""
        self._mark.record(self._stream)

    def wait_for_mark(self) -> None:
        """Wait until all work before the mark is done."""
        self._mark.synchronize()


class RecordedSteps(OnStream):
    """Records steps as they come for the second time, and replays them from then on.

    Args:
        device: A CUDA device.
    """

    records = True

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._seen: set[tuple[int, ...]] = set()
        self._graphs: dict[tuple[tuple[int, ...], int], torch.cuda.CUDAGraph] = {}
        self._fork: torch.cuda.Event | None = None

    def run(
        self, key: tuple[int, ...], times: int, step: Callable[[], None], generators: Sequence[torch.Generator]
    ) -> None:
        """Take a step some times: see `Replays.run`. What a first step makes (handles, memory) is not for a graph."""
        if key not in self._seen:
            self._seen.add(key)
            step()
            times -= 1
        several = max(1, min(_STEPS, _KERNELS // (_KERNELS_OF_STEP + _DRAWS * len(generators))))
        for length, count in ((several, times // several), (1, times % several)):
            graph = self._graph(key, length, step, generators) if count else None
            for _ in range(count):
                if graph is not None:
                    graph.replay()
                else:
                    for _ in range(length):
                        step()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """While a step is recorded: a branch of the graph that began with the step."""
        if self._fork is None:
            yield
            return
        self._side.wait_event(self._fork)
        with torch.cuda.stream(self._side):
            yield
        self._stream.wait_stream(self._side)

    def _graph(
        self, key: tuple[int, ...], length: int, step: Callable[[], None], generators: Sequence[torch.Generator]
    ) -> torch.cuda.CUDAGraph | None:
        """Return the graph of so many steps, recorded if need be; None where there are too many already."""
        graph = self._graphs.get((key, length))
        if graph is None and len(self._graphs) < _GRAPHS:
            graph = torch.cuda.CUDAGraph()
            for generator in generators:
                graph.register_generator_state(generator)
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                for _ in range(length):
                    self._fork = self._stream.record_event()
                    step()
            finally:
                self._fork = None
                graph.capture_end()
            self._graphs[key, length] = graph
        return graph
