"""Private training of many hospitals at once, for a GPU: one computation a step for all of them.

Each hospital gets what `PrivateHospital` gets on its own, up to rounding: the sample and the noise of each step from
its own source and in the same order, a step without images as well. One by one are done: the steps in which hospitals
measure their mean features (`clients.privacy.centring`), and, with the coupling `one-way`, the training of the MLP
without noise, by the hospital that takes the result over.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.method.layout import Vector
from clients.method.lean.fleet import free_memory
from clients.method.model import HospitalModel
from clients.method.parts import shared_part
from clients.method.threads import usable_cores
from clients.privacy.centring import Centring, layer_centres
from clients.privacy.randomness import Randomness
from clients.privacy.sampling import UnitOfImages, have_several_images, sampled_rows
from clients.privacy.settings import PrivacySettings
from clients.privacy.stack import Sample, StackedClipping, StackedDescent
from clients.privacy.step import ROWS_AT_A_TIME
from clients.privacy.trained import trained_parameters

T = TypeVar("T")

_COPIES = 5
"""Parameter, gradient, momentum, noise, and the sum so far of a sample that is stepped in parts."""

_ACTIVATIONS = 40
"""Upper bound on the matrices float[B, 2 D] that a step holds."""

_PRODUCTS = 3
"""Matrices float[B, B] that the norms of patients need."""

_MEMORY_SHARE = 0.5
"""Of the memory that is free on a GPU."""

_DEVIATIONS = 6
"""By which a sample that memory is reckoned for is larger than the expected one."""


@dataclass(frozen=True)
class PrivateTrainee:
    """What a private fleet needs of one hospital.

    Attributes:
        features: float[N, D] on the device of the model.
        labels: int64[N] there too.
        units: The unit of privacy of each image.
        private: Its own tensors, by the names of `parts.private_part`.
        momentum: Of what is trained, by name.
        centring: What it has measured of its mean feature, as of `Centring.state`.
        source: Of its samples and its noise.
    """

    features: Tensor
    labels: Tensor
    units: UnitOfImages
    private: Mapping[str, Tensor]
    momentum: Mapping[str, Tensor]
    centring: Mapping[str, npt.NDArray[np.generic]]
    source: Randomness


@dataclass(frozen=True)
class PrivatelyTrained:
    """What a hospital has after a round of private steps.

    Attributes:
        vector: float32[d], the shared vector as it was trained here.
        shared: The same by name, in the precision of the model.
        private: As of the trainee.
        momentum: As of the trainee.
        centring: As of the trainee.
    """

    vector: Vector
    shared: Mapping[str, Tensor]
    private: Mapping[str, Tensor]
    momentum: Mapping[str, Tensor]
    centring: Mapping[str, npt.NDArray[np.generic]]


class PrivateFleet:
    """Trains private hospitals of one method side by side.

    Privacy: of each hospital as of `PrivateHospital.train_round` and `clipped_sum`. Nothing is charged here: whoever
        lets anything of a result leave, or keeps it, has recorded it before.

    Args:
        model: A model of the method: names and shapes of the tensors, text features.
        method: `fedmedclip` or `fedclip`.
        privacy: The private step, the same at all hospitals.
        memory: Bytes that a fleet may use; None for half of what is free on a GPU, no limit on a CPU.

    Raises:
        SettingsError: The settings couple the examples of a batch.
    """

    def __init__(self, model: HospitalModel, method: str, privacy: PrivacySettings, memory: int | None = None) -> None:
        self._model, self._privacy, self._memory = model, privacy, memory
        self._shared = [(name, parameter.shape) for name, parameter in shared_part(model, method)]

    def train(self, vector: Vector, trainees: Sequence[PrivateTrainee], round_number: int) -> list[PrivatelyTrained]:
        """Train one round from the shared vector float32[d] at every hospital.

        As many at a time as memory allows; where a GPU runs out of it all the same, half as many, from the beginning of
        their sources.

        Raises:
            ValueError: The vector's length does not fit.
        """
        cuda = self._model.text_features.device.type == "cuda"
        with ThreadPoolExecutor(usable_cores()) if cuda else nullcontext() as threads:
            return self._in_groups(vector, trainees, lambda stack: stack.train(round_number, threads))

    def clipped_sums(self, vector: Vector, trainees: Sequence[PrivateTrainee]) -> list[npt.NDArray[np.float64]]:
        """Return for every hospital the clipped sum float64[d] of `PrivateHospital.clipped_sum`: without noise.

        For a private step of the coupling `one-way` and a model in float64. Memory and errors as of `train`.
        """
        return self._in_groups(vector, trainees, _Stack.clipped_sums)

    def _in_groups(
        self, vector: Vector, trainees: Sequence[PrivateTrainee], what: Callable[["_Stack"], list[T]]
    ) -> list[T]:
        results: list[T] = []
        size = self._largest(trainees)
        while len(results) < len(trainees):
            group = trainees[len(results) : len(results) + size]
            try:
                results += what(_Stack(self._model, self._privacy, self._shared, vector, group))
                continue
            except torch.OutOfMemoryError:
                if len(group) == 1:
                    raise
            torch.cuda.empty_cache()  # here, where no traceback holds the group's stack any more
            size = len(group) // 2
            for trainee in group:
                trainee.source.rewind()
        return results

    def _largest(self, trainees: Sequence[PrivateTrainee]) -> int:
        """How many hospitals fit."""
        device = self._model.text_features.device
        memory = self._memory
        if memory is None:
            if device.type != "cuda":
                return 1 << 30
            memory = int(_MEMORY_SHARE * free_memory(device))
        settings, width, privacy = self._model.settings, self._model.text_features.shape[-1], self._privacy
        parameters = sum(p.numel() for p in self._model.parameters())
        expected = privacy.sampling_rate * max((len(t.labels) for t in trainees), default=0)
        rows = min(ROWS_AT_A_TIME, int(expected + _DEVIATIONS * expected**0.5) + 1)
        widest = 2 * max(width, settings.mlp_width)
        products = _PRODUCTS * rows**2 if _sum_units(privacy, trainees) else 0
        values = _COPIES * parameters + _ACTIVATIONS * rows * widest + products
        return max(1, memory // (values * self._model.text_features.element_size()))


def _sum_units(privacy: PrivacySettings, trainees: Sequence[PrivateTrainee]) -> bool:
    """Return whether a unit of some hospital may have several images: then all are summed by units."""
    return privacy.unit == "patient" or any(have_several_images(trainee.units) for trainee in trainees)


class _Stack:
    """One group of hospitals."""

    def __init__(
        self,
        model: HospitalModel,
        privacy: PrivacySettings,
        shared: Sequence[tuple[str, torch.Size]],
        vector: Vector,
        trainees: Sequence[PrivateTrainee],
    ) -> None:
        self._model, self._privacy, self._shared = model, privacy, [name for name, _ in shared]
        self._trainees, self._sums_units = trainees, _sum_units(privacy, trainees)
        self._centrings = [_centring(trainee, model, privacy) for trainee in self._trainees]
        received = _received(vector, shared, len(trainees), model.text_features)
        self._values = {
            name: received[name] if name in received else self._stacked(name)
            for name, _ in trained_parameters(model, privacy)
        }
        self._gradients = {name: torch.zeros_like(value) for name, value in self._values.items()}
        self._momentum = {name: torch.stack([t.momentum[name] for t in self._trainees]) for name in self._values}
        features = torch.cat([t.features for t in self._trainees]).to(model.text_features)
        labels = torch.cat([t.labels for t in self._trainees])
        self._starts = np.cumsum([0, *(len(t.labels) for t in self._trainees)])
        prior = self._stacked("log_prior")
        values, gradients = self._values, self._gradients
        self._clipping = StackedClipping(model, privacy, values, gradients, prior, features, labels)
        self._descent = StackedDescent(privacy, model.settings, values, gradients, self._momentum)
        self._centres: dict[str, Tensor] = {}
        if privacy.centring_steps:
            of_one = layer_centres(torch.zeros_like(model.text_features[0]), model, privacy)
            self._centres = {name: centre.repeat(len(trainees), 1) for name, centre in of_one.items()}
            for k in range(len(trainees)):
                self._place_centres(k)

    def _stacked(self, name: str) -> Tensor:
        """Return a private tensor of all trainees: float[K, ...], typed and placed as the model."""
        return torch.stack([t.private[name] for t in self._trainees]).to(self._model.text_features)

    def train(self, round_number: int, threads: ThreadPoolExecutor | None) -> list[PrivatelyTrained]:
        places, measuring = range(len(self._trainees)), self._privacy.measuring_steps(round_number)
        sources = [trainee.source for trainee in self._trainees]
        for number in range(self._privacy.steps):
            if number < measuring:
                for k in places:
                    self._measure(k)
                continue
            self._clipping([self._sample(k) for k in places], self._centres)
            self._descent.step(sources, self._centres, round_number, threads)
        vectors = _flat(self._values, self._shared).astype(np.float32, copy=False)
        return [self._result(k, vector) for k, vector in enumerate(vectors)]

    def clipped_sums(self) -> list[npt.NDArray[np.float64]]:
        self._clipping([self._sample(k) for k in range(len(self._trainees))], self._centres)
        return list(_flat(self._gradients, self._shared).astype(np.float64, copy=False))

    def _sample(self, k: int) -> Sample:
        units = self._trainees[k].units
        rows = sampled_rows(units, self._privacy.sampling_rate, self._trainees[k].source)
        return Sample(rows + self._starts[k], units[rows] if self._sums_units else None)

    def _measure(self, k: int) -> None:
        trainee = self._trainees[k]
        rows = torch.from_numpy(sampled_rows(trainee.units, self._privacy.sampling_rate, trainee.source))
        units = torch.from_numpy(trainee.units)[rows]
        self._centrings[k].measure(trainee.features[rows.to(trainee.features.device)], units, trainee.source)
        self._place_centres(k)

    def _place_centres(self, k: int) -> None:
        if not self._centrings[k].has_measured:
            return
        mean = self._centrings[k].mean().to(self._model.text_features)
        for name, centre in layer_centres(mean, self._model, self._privacy).items():
            self._centres[name][k] = centre

    def _result(self, k: int, vector: Vector) -> PrivatelyTrained:
        trainee = self._trainees[k]
        moved = {name: self._values[name][k].clone() for name in self._values if name in trainee.private}
        momentum = {name: tensor[k] for name, tensor in self._momentum.items()}
        shared = {name: self._values[name][k] for name in self._shared}
        return PrivatelyTrained(vector, shared, {**trainee.private, **moved}, momentum, self._centrings[k].state())


def _centring(trainee: PrivateTrainee, model: HospitalModel, privacy: PrivacySettings) -> Centring:
    centring = Centring(privacy, model.text_features.shape[-1])
    centring.load_state(trainee.centring)
    return centring


def _received(
    vector: Vector, shared: Sequence[tuple[str, torch.Size]], hospitals: int, like: Tensor
) -> dict[str, Tensor]:
    """Return the shared tensors of every hospital, from the vector: float[K, ...] by name, typed and placed as `like`.

    Raises:
        ValueError: The vector's length does not fit.
    """
    sizes = [shape.numel() for _, shape in shared]
    if vector.shape != (sum(sizes),):
        raise ValueError(f"the shared vector has shape {vector.shape}, these settings need ({sum(sizes)},)")
    parts = torch.split(torch.from_numpy(np.array(vector, dtype=np.float32)).to(like), sizes)
    return {
        name: part.view(shape).repeat(hospitals, *[1] * len(shape))
        for part, (name, shape) in zip(parts, shared, strict=True)
    }


def _flat(tensors: Mapping[str, Tensor], names: Sequence[str]) -> npt.NDArray[np.floating[Any]]:
    """Return float[K, d] on the CPU."""
    flat: npt.NDArray[np.floating[Any]] = torch.cat([tensors[name].flatten(1) for name in names], 1).cpu().numpy()
    return flat
