"""Where hospitals train: a model and its memory, lent to one hospital at a time.

A hospital by itself has one. In a simulation thousands of hospitals share a few, one for each that works at the same
moment: between rounds a hospital then holds no more than what it has learned for itself.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.method.crew import Crew
from clients.method.kept import kept_copies
from clients.method.layout import Vector, flatten, seeded_generator, unflatten
from clients.method.lean.trainer import LeanTrainer
from clients.method.masked_linear import MaskedLinear, masks_held
from clients.method.model import HospitalModel
from clients.method.parts import private_part, shared_part
from clients.method.prediction import Validated, answer, calibrate, log_probabilities

PrivateTensors = Mapping[str, Tensor]
"""What a hospital keeps, by the names of `parts.private_part`; never changed in place."""


@dataclass(frozen=True)
class TrainingRows:
    """What a hospital trains on.

    Attributes:
        site: Its name.
        seed: Seed of the run.
        features: float32[N, D] on the device of the model.
        labels: int64[N] there too.
        class_weights: float32[C] or None.
    """

    site: str
    seed: int
    features: Tensor
    labels: Tensor
    class_weights: Tensor | None

    @classmethod
    def on(
        cls,
        device: str | torch.device,
        site: str,
        seed: int,
        features: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        class_weights: npt.NDArray[np.float32] | None,
    ) -> "TrainingRows":
        """Return rows on a device; on a processor they are the given memory."""
        weights = None if class_weights is None else torch.from_numpy(class_weights).to(device)
        return cls(site, seed, torch.from_numpy(features).to(device), torch.from_numpy(labels).to(device), weights)

    def generator(self, round_number: int) -> torch.Generator:
        """Return the generator of a round: of (seed, site, round) and nothing else."""
        return seeded_generator("round", self.seed, self.site, round_number, device=self.features.device)


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

    def train_round(
        self, rows: TrainingRows, vector: Vector, private: PrivateTensors, round_number: int
    ) -> tuple[PrivateTensors, Vector]:
        """Train one round; return the hospital's own tensors after it, and the update float32[d], local minus global.

        Raises:
            ValueError: The vector's length does not fit.
        """
        self.load(vector, private)
        self.forget()
        generator = rows.generator(round_number)
        self.trainer.train(rows.features, rows.labels, rows.class_weights, round_number, generator)
        trained, update = self.take(), flatten(self.shared)
        return trained, np.subtract(update, vector, out=update)

    def validate(
        self,
        features: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        vector: Vector,
        private: PrivateTensors,
    ) -> Validated:
        """Return what a model says of validation images, calibrated on them where the settings have it so."""
        self.load(vector, private)
        with masks_held(self.model):
            on_val, ratios = log_probabilities(self.model, features), self.keep_ratios()
        calibration = calibrate(on_val, labels) if self.model.settings.ensemble == "pool" else None
        return Validated(answer(on_val, calibration), calibration, ratios)

    def keep_ratios(self) -> dict[str, float]:
        """Return the share of rows, in [0, 1], that each masked layer keeps."""
        layers = self.model.named_modules()
        return {name: module.keep_ratio() for name, module in layers if isinstance(module, MaskedLinear)}

    def forget(self) -> None:
        """The model is about to change: what was loaded is no longer what it holds."""
        self._loaded = None


class Workbenches:
    """As many workbenches as hospitals work at the same moment; all hospitals have the same method and shapes.

    Args:
        make: Makes a model.
        method: One of `METHODS`.

    Attributes:
        crew: Processes that train in place of the workbenches here; None without.
    """

    def __init__(self, make: Callable[[], HospitalModel], method: str) -> None:
        self.crew: Crew | None = None
        self._make, self._method = make, method
        self._free: list[Workbench] = []
        self._lock = threading.Lock()

    def train_round(
        self, rows: TrainingRows, vector: Vector, private: PrivateTensors, round_number: int
    ) -> tuple[PrivateTensors, Vector]:
        """Train one round of a hospital, in a process of the crew where there is one; see `Workbench.train_round`."""
        if self.crew is not None:
            return self.crew.train_round(rows.site, vector, private, round_number)
        with self.lend() as bench:
            return bench.train_round(rows, vector, private, round_number)

    def validate(
        self,
        site: str,
        features: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        vector: Vector,
        private: PrivateTensors,
    ) -> Validated:
        """Validate a hospital's model, in a process of the crew where there is one; see `Workbench.validate`."""
        if self.crew is not None:
            return self.crew.validate(site, vector, private)
        with self.lend() as bench:
            return bench.validate(features, labels, vector, private)

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
