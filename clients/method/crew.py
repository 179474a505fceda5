"""Processes in which the hospitals of a simulation train, one hospital at a time in each.

A step is a hundred short calls from Python. Two threads that make them wait for each other's lock and share one
allocator; two processes do neither. A process holds a model and its buffers but nothing of a hospital between two jobs:
vector and private tensors come to it through shared memory and go back the same way, so that any process can do any
hospital's next job, and what a run keeps is in one place as before. What passes through the pipe is the job's name.

A process that has lost its pipe ends itself. It computes what `Workbench` computes, which is what it calls: results are
the same bit for bit.
"""

import os
import queue
import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.method import shared_arrays
from clients.method.kept import kept_copies
from clients.method.layout import Vector
from clients.method.prediction import Validated
from clients.method.settings import TrainingSettings
from clients.method.shared_arrays import Arrays, Layout

VECTOR = "vector"
"""The shared vector on the way in, the update on the way back."""

PRIVATE = "private/"
"""Before the names of private tensors."""

_KEPT_FREE = str(1 << 28)
"""Bytes that a process's allocator keeps for the next step in place of giving them back and asking for them again."""

_HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""Asks the system for pages of two megabytes where it has them: a step goes through the weights and both moments, and
takes a twentieth less where their addresses need few translations. Other C libraries do not read it.
"""

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": _KEPT_FREE,
    "MALLOC_MMAP_THRESHOLD_": _KEPT_FREE,
}

_PROGRAM = "import sys; sys.path[:] = {path!r}; from clients.method.crew_process import main; main({descriptor})"


class CrewError(RuntimeError):
    """A process of a crew has ended, or a job failed in it; `site` is whose job it was."""

    def __init__(self, site: str, reason: str) -> None:
        super().__init__(f"the training process of {site} {reason}")
        self.site = site


@dataclass(frozen=True)
class ModelArguments:
    """What a model is made from, the same for all hospitals (clients.method.parts.build_model)."""

    text_features: npt.NDArray[np.float32]
    logit_scale: float
    settings: TrainingSettings
    method: str


@dataclass(frozen=True)
class HospitalRows:
    """The rows of one hospital: features float32[N, D], labels int64[N], weights of the classes float32[C] or None."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    class_weights: npt.NDArray[np.float32] | None
    val_features: npt.NDArray[np.float32]
    val_labels: npt.NDArray[np.int64]

    def arrays(self) -> Arrays:
        """Return them by name."""
        named: dict[str, npt.NDArray[np.generic] | None] = dict(vars(self))
        return {name: array for name, array in named.items() if array is not None}


@dataclass(frozen=True)
class Beginning:
    """What a process is told first: the model, the run's seed, and where rows and desk lie."""

    model: ModelArguments
    seed: int
    rows: Layout
    rows_descriptor: int
    desk: Layout
    desk_descriptor: int


@dataclass(frozen=True)
class Job:
    """One job on what lies on the desk: train a site in a round, or with round 0 validate the model there."""

    site: str
    round_number: int


@dataclass(frozen=True)
class Failed:
    """What went wrong in a job."""

    reason: str
    trace: str


def on_desk(arrays: Arrays) -> tuple[Vector, dict[str, Tensor]]:
    """Return the vector and the private tensors by their names, in the memory of a desk."""
    vector: Any = arrays[VECTOR]
    names = [name for name in arrays if name.startswith(PRIVATE)]
    return vector, {name.removeprefix(PRIVATE): torch.from_numpy(arrays[name]) for name in names}


class Crew:
    """As many processes as hospitals train at the same time. Methods may be called from several threads.

    Args:
        processes: How many.
        model: What a model is made from.
        seed: Seed of the run.
        hospitals: {site: its rows}; they are copied once, into memory that all processes see.
        private: The private tensors of one hospital, for their names, types and shapes.
        length: Length d of the shared vector.

    Raises:
        CrewError: A process does not start.
    """

    def __init__(
        self,
        processes: int,
        model: ModelArguments,
        seed: int,
        hospitals: Mapping[str, HospitalRows],
        private: Mapping[str, Tensor],
        length: int,
    ) -> None:
        named = {f"{site}/{name}": a for site, rows in hospitals.items() for name, a in rows.arrays().items()}
        rows_layout = shared_arrays.layout(named.items())
        likes = {VECTOR: np.empty(length, np.float32)}
        desk = shared_arrays.layout([*likes.items(), *((PRIVATE + n, t.numpy()) for n, t in private.items())])
        self._free: queue.SimpleQueue[_Member] = queue.SimpleQueue()
        members: list[_Member] = []
        self._end = weakref.finalize(self, _end_all, members)
        rows_descriptor = shared_arrays.create(rows_layout)
        try:
            for _ in range(processes):
                member = _Member(model, seed, rows_layout, rows_descriptor, desk)
                members.append(member)
                self._free.put(member)
            for name, array in shared_arrays.views(rows_descriptor, rows_layout).items():
                array[...] = named[name]  # while the processes start; they read rows when they have a job
            for member in members:
                member.receive("a simulation")
        except BaseException:
            self.close()
            raise
        finally:
            os.close(rows_descriptor)
        self.process_ids: Sequence[int] = tuple(member.process.pid for member in members)
        """Of all processes."""

    def train_round(
        self, site: str, vector: Vector, private: Mapping[str, Tensor], round_number: int
    ) -> tuple[dict[str, Tensor], Vector]:
        """Return the private tensors after a round, and the update: what `Workbench.train_round` returns."""
        with self._at_desk(vector, private) as member:
            member.do(Job(site, round_number))
            return kept_copies(member.private), member.vector.copy()

    def validate(self, site: str, vector: Vector, private: Mapping[str, Tensor]) -> Validated:
        """Return what `Workbench.validate` returns."""
        with self._at_desk(vector, private) as member:
            answer: Validated = member.do(Job(site, 0))
            return answer

    def close(self) -> None:
        """End all processes, whatever they are doing; nothing of theirs is left."""
        self._end()

    @contextmanager
    def _at_desk(self, vector: Vector, private: Mapping[str, Tensor]) -> Iterator["_Member"]:
        member = self._free.get()
        try:
            if vector.shape != member.vector.shape:
                raise ValueError(
                    f"the shared vector has shape {vector.shape}, these settings need {member.vector.shape}"
                )
            np.copyto(member.vector, vector)
            for name, tensor in member.private.items():
                tensor.copy_(private[name])
            yield member
        finally:
            self._free.put(member)


class _Member:
    """One process, and its desk in shared memory."""

    def __init__(self, model: ModelArguments, seed: int, rows: Layout, rows_descriptor: int, desk: Layout) -> None:
        self._connection: Connection[Any, Any]
        self._connection, theirs = Pipe()
        descriptor = shared_arrays.create(desk)
        try:
            views = shared_arrays.views(descriptor, desk)
            program = _PROGRAM.format(path=[p or str(Path.cwd()) for p in sys.path], descriptor=theirs.fileno())
            self.process = subprocess.Popen(
                [sys.executable, "-c", program],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), rows_descriptor, descriptor),
                process_group=0,  # Ctrl-C is for the process that has started it
            )
            self.send(Beginning(model, seed, rows, rows_descriptor, desk, descriptor), "a simulation")
        finally:
            theirs.close()
            os.close(descriptor)
        self.vector, self.private = on_desk(views)

    def do(self, job: Job) -> Any:
        """Return what the process answers to a job.

        Raises:
            CrewError: The job failed, or the process has ended.
        """
        self.send(job, job.site)
        try:
            return self.receive(job.site)
        except Exception:
            raise
        except BaseException:  # an answer that nobody waits for would be taken for that of the next job
            self._connection.close()
            raise

    def send(self, what: object, site: str) -> None:
        """Send a message."""
        try:
            self._connection.send(what)
        except OSError as error:
            raise self._ended(site) from error

    def receive(self, site: str) -> Any:
        """Return the next answer."""
        try:
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._ended(site) from error
        if isinstance(answer, Failed):
            failure = CrewError(site, f"failed: {answer.reason}")
            failure.add_note(answer.trace)
            raise failure
        return answer

    def end(self) -> None:
        """End the process."""
        self._connection.close()
        self.process.kill()
        self.process.wait()

    def _ended(self, site: str) -> CrewError:
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return CrewError(site, "has been given up")
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return CrewError(site, f"{how} (signal 9 is often the system, out of memory)")


def _environment() -> dict[str, str]:
    """Return the environment of a process; what the user has tuned stays."""
    tuned = os.environ.get("GLIBC_TUNABLES", "")
    return {**os.environ, **_ENVIRONMENT, "GLIBC_TUNABLES": f"{_HUGE_PAGES}:{tuned}" if tuned else _HUGE_PAGES}


def _end_all(members: Sequence[_Member]) -> None:
    for member in members:
        member.end()
