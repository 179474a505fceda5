"""The private step of many hospitals at once: their parameters stacked, every product one batched product.

What it does for each hospital is what `LeanClipping` and `NoisyDescent` do for one, up to rounding. Samples differ in
size: a smaller one is filled up with rows that are left out of every sum, as are rows whose gradient is not finite.
Nothing here waits for the device, and neither what is computed nor how often depends on the images.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.method.model import HospitalModel
from clients.method.settings import TrainingSettings
from clients.privacy.descent import REST_OF_SGD, fill_with_noise
from clients.privacy.ghost import Units
from clients.privacy.randomness import Randomness
from clients.privacy.settings import PrivacySettings
from clients.privacy.step import ROWS_TOGETHER, GhostStep, chunks, clip_factors, ghost_tensors, refuse_coupling
from clients.privacy.trained import group_names


@dataclass(frozen=True)
class Sample:
    """What a hospital's step sees.

    Attributes:
        rows: int64[n], places in the features that the step was made with.
        units: int64[n], the unit of privacy of each; None where each row is one.
    """

    rows: npt.NDArray[np.int64]
    units: npt.NDArray[np.int64] | None


class StackedClipping:
    """Writes the clipped sums of the hospitals of a stack to the memory of their gradients.

    Privacy: of each hospital as of `ClippedSum`; no hospital's sum depends on another's images.

    Args:
        model: A model of the method: names, text features, settings.
        privacy: The private step.
        values: What is trained, by name: float[K, ...].
        gradients: Alike; receive the sums.
        log_prior: float[K, C].
        features: float[N, D], the images of all hospitals.
        labels: int64[N].
    """

    def __init__(
        self,
        model: HospitalModel,
        privacy: PrivacySettings,
        values: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        log_prior: Tensor,
        features: Tensor,
        labels: Tensor,
    ) -> None:
        refuse_coupling(model.settings, with_mlp=any(name.startswith("mlp.") for name in values))
        self._model, self._clip_norms = model, privacy.clip_norms
        self._group_of = {
            name.rpartition(".")[0]: place
            for place, names in enumerate(group_names(values, privacy.clip_norms))
            for name in names
        }
        self._gradients = gradients
        self._tensors = ghost_tensors(values, gradients, log_prior)
        self._features = torch.cat([features, features.new_zeros(1, features.shape[1])])
        self._labels = torch.cat([labels, labels.new_zeros(1)])
        self._steps: dict[int, GhostStep] = {}

    @torch.no_grad()
    def __call__(self, samples: Sequence[Sample], centres: Mapping[str, Tensor]) -> None:
        """Write the clipped sums.

        Args:
            samples: One of each hospital; they may be empty.
            centres: By the names of layers float[K, in] (`ghost.GhostLinear`); the same at every call.
        """
        written = list(self._gradients.values())
        parts = [list(chunks(len(s.rows), None if s.units is None else torch.from_numpy(s.units))) for s in samples]
        total: list[Tensor] | None = None
        for number, together in enumerate(zip_longest(*parts)):
            if number == 1:
                total = [gradient.clone() for gradient in written]
            self._sum(_Batch.of(samples, together, len(self._labels) - 1), centres)
            if total is not None:
                torch._foreach_add_(total, written)
        if not any(parts):
            torch._foreach_zero_(written)
        if total is not None:
            torch._foreach_copy_(written, total)

    def _sum(self, batch: "_Batch", centres: Mapping[str, Tensor]) -> None:
        device = self._features.device
        index = _to_device(batch.index, device)
        places = None if batch.places is None else _to_device(batch.places, device)
        hospitals, rows = index.shape
        step = self._step(rows, centres)
        units = Units(rows, places, batch.units)
        step.save(self._features[index], self._labels[index])
        squares = [self._features.new_zeros(hospitals, units.count) for _ in self._clip_norms]
        for name, ghost in step.ghosts.items():
            squares[self._group_of[name]] += ghost.squared_norms(units)
        good = torch.stack([torch.isfinite(square) for square in squares]).all(0)
        left_out = units.spread(good).logical_not_().logical_or_(index == len(self._labels) - 1)
        factors = [
            units.spread(clip_factors(square, norm)).masked_fill_(left_out, 0.0)
            for square, norm in zip(squares, self._clip_norms, strict=True)
        ]
        for ghost in step.ghosts.values():
            ghost.leave_out(left_out)
        step.write({name: factors[self._group_of[name]] for name in step.ghosts})

    def _step(self, rows: int, centres: Mapping[str, Tensor]) -> GhostStep:
        if rows not in self._steps:
            if len(self._steps) > 1:
                self._steps.clear()
            model = self._model
            self._steps[rows] = GhostStep(
                self._tensors, model.text_features, model.logit_scale, model.settings, rows, centres
            )
        return self._steps[rows]


@dataclass(frozen=True)
class _Batch:
    """One part of the samples of a few hospitals, all filled up to one number of rows and of units.

    Attributes:
        index: int64[K, B]; the place of no image where a row is none.
        places: int64[K, B], the unit of each row, the last one for rows that are no image; None where rows are units.
        units: Number of units of each hospital.
    """

    index: Tensor
    places: Tensor | None
    units: int

    @classmethod
    def of(
        cls, samples: Sequence[Sample], parts: Sequence[tuple[Tensor, Tensor | None, int] | None], none: int
    ) -> "_Batch":
        """Return the batch of one part of each sample, None where a sample has no such part."""
        largest = max(len(part[0]) for part in parts if part is not None)
        index = torch.full((len(samples), -(-largest // ROWS_TOGETHER) * ROWS_TOGETHER), none)
        units = 1 + max(part[2] for part in parts if part is not None)
        places = torch.full_like(index, units - 1)
        by_patient = False
        for k, (sample, part) in enumerate(zip(samples, parts, strict=True)):
            if part is not None:
                index[k, : len(part[0])] = torch.from_numpy(sample.rows)[part[0]]
                if part[1] is not None:
                    by_patient = True
                    places[k, : len(part[0])] = part[1]
        return cls(index, places if by_patient else None, units)


class StackedDescent:
    """`NoisyDescent` of the hospitals of a stack: each has the noise of its own source.

    Args:
        privacy: Noise multipliers, clip norms and normaliser.
        settings: Learning rates and their decay, momentum (`adam_beta1`), weight decay.
        values: What is trained, by name and in the order in which a hospital draws its noise: float[K, ...].
        gradients: The clipped sums alike; a step overwrites them.
        momentum: Alike; moved along.
    """

    def __init__(
        self,
        privacy: PrivacySettings,
        settings: TrainingSettings,
        values: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        momentum: Mapping[str, Tensor],
    ) -> None:
        self._settings = settings
        self._values, self._gradients, self._momentum = values, gradients, momentum
        self._groups = group_names(values, privacy.clip_norms)
        self._deviations = [z * c for z, c in zip(privacy.noise_multipliers, privacy.clip_norms, strict=True)]
        self._sizes = [value[0].numel() for value in values.values()]
        self._device = next(iter(values.values())).device
        self._normaliser = torch.full((), privacy.normaliser, dtype=torch.float32, device=self._device)

    @torch.no_grad()
    def step(
        self,
        sources: Sequence[Randomness],
        centres: Mapping[str, Tensor],
        round_number: int,
        threads: ThreadPoolExecutor | None = None,
    ) -> None:
        """Move the parameters of all hospitals once.

        Args:
            sources: Of the noise of each of them.
            centres: By the names of layers float[K, in]: the sums are then with respect to W and b + W c.
            round_number: Counted from 1; decides the learning rates.
            threads: Draw the noise of several hospitals at once; None for one after the other.
        """
        settings = self._settings
        noise = self._noise(sources, threads)
        for names, deviation in zip(self._groups, self._deviations, strict=True):
            sums = [self._gradients[name] for name in names]
            torch._foreach_add_(
                sums, [noise[name].to(s.dtype) for name, s in zip(names, sums, strict=True)], alpha=deviation
            )
        decay = settings.learning_rate_decay ** (round_number - 1)
        rates = {"fam": settings.fam_learning_rate * decay, "mlp": settings.mlp_learning_rate * decay}
        for part, rate in rates.items():
            of_part = [name for name in self._values if name.startswith(part)]
            if of_part:
                self._move(of_part, rate)
        for layer, centre in centres.items():  # from b + W c back to b
            moved = torch.bmm(self._momentum[f"{layer}.weight"], centre.unsqueeze(-1))
            self._values[f"{layer}.bias"].sub_(moved.squeeze(-1), alpha=-rates[layer[:3]])

    def _noise(self, sources: Sequence[Randomness], threads: ThreadPoolExecutor | None) -> dict[str, Tensor]:
        """Return float32[k, ...] by name, drawn as `NoisyDescent` draws it and copied to the device at once."""
        drawn = torch.empty(len(sources), sum(self._sizes), pin_memory=self._device.type == "cuda")

        def draw(row: Tensor, source: Randomness) -> None:
            for part in torch.split(row, self._sizes):
                fill_with_noise(part, source)

        list((threads.map if threads is not None else map)(draw, drawn, sources))
        there = torch.split(drawn.to(self._device, non_blocking=True), self._sizes, 1)
        return {
            name: part.view(len(sources), *value.shape[1:])
            for part, (name, value) in zip(there, self._values.items(), strict=True)
        }

    def _move(self, names: Sequence[str], rate: float) -> None:
        beta, kept = self._settings.adam_beta1, 1 - rate * self._settings.weight_decay
        values, noisy, means = (
            [tensors[name] for name in names] for tensors in (self._values, self._gradients, self._momentum)
        )
        if kept != 1:
            torch._foreach_mul_(values, kept)
        if beta:
            torch._fused_sgd_(values, noisy, means, lr=rate, momentum=beta, grad_scale=self._normaliser, **REST_OF_SGD)
        else:  # the fused step then leaves the momentum out
            for value, sums, mean in zip(values, noisy, means, strict=True):
                value.sub_(torch.div(sums, self._normaliser, out=mean), alpha=rate)


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the processor's on a device, without waiting for what the device does."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
