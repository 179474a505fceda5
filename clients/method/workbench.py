"""Where hospitals train: a model and its memory, lent to one hospital at a time.

A hospital by itself has one. In a simulation thousands of hospitals share a few, one for each that works at the same
moment: between rounds a hospital then holds no more than what it has learned for itself.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from clients.method.kept import kept_copies
from clients.method.layout import Vector, unflatten
from clients.method.lean.trainer import LeanTrainer
from clients.method.model import HospitalModel
from clients.method.parts import private_part, shared_part

PrivateTensors = Mapping[str, Tensor]
"""What a hospital keeps, by the names of `parts.private_part`; never changed in place."""


class Workbench:
    """A model, its trainer, and whose private tensors it has loaded.

    Args:
        model: The model.
        method: One of `METHODS`; decides what is shared.
    """

    def __init__(self, model: HospitalModel, method: str) -> None:
        self.model = model
        self.shared = shared_part(model, method)
        self._method = method
        self._trainer: LeanTrainer | None = None
        self._loaded: PrivateTensors | None = None

    @property
    def trainer(self) -> LeanTrainer:
        """The trainer of the model, made when it is first asked for."""
        if self._trainer is None:
            self._trainer = LeanTrainer(self.model)
        return self._trainer

    @torch.no_grad()
    def load(self, vector: Vector, private: PrivateTensors) -> None:
        """Put the shared vector float32[d] and a hospital's own tensors into the model.

        Raises:
            ValueError: The vector's length does not fit.
        """
        unflatten(vector, self.shared)
        if private is not self._loaded:
            for name, tensor in private_part(self.model, self._method).items():
                tensor.copy_(private[name])
        self._loaded = private

    def take(self) -> PrivateTensors:
        """Return copies of the private tensors as they are now, after training."""
        private = kept_copies(private_part(self.model, self._method))
        self._loaded = private
        return private

    def forget(self) -> None:
        """The model is about to change: what was loaded is no longer what it holds."""
        self._loaded = None


class Workbenches:
    """As many workbenches as hospitals work at the same moment; all hospitals have the same method and shapes.

    Args:
        make: Makes a model.
        method: One of `METHODS`.
    """

    def __init__(self, make: Callable[[], HospitalModel], method: str) -> None:
        self._make, self._method = make, method
        self._free: list[Workbench] = []
        self._lock = threading.Lock()

    @contextmanager
    def lend(self) -> Iterator[Workbench]:
        """Lend a workbench to one hospital; may be called from several threads."""
        with self._lock:
            bench = self._free.pop() if self._free else None
        bench = bench or Workbench(self._make(), self._method)
        try:
            yield bench
        finally:
            with self._lock:
                self._free.append(bench)
