"""One group of hospitals whose models lie side by side in memory that is kept from round to round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor

from clients.method.dropout import draw_ones
from clients.method.layout import Vector
from clients.method.lean.fused.fits import reason_for_general_step
from clients.method.lean.head import Draw
from clients.method.lean.masked import Block, reset_thresholds
from clients.method.lean.norms import Rows
from clients.method.lean.optimizer import FusedAdamW, Moving
from clients.method.lean.places import SamePlaces
from clients.method.lean.replay import Replays
from clients.method.lean.step import ModelTensors, TrainingStep
from clients.method.lean.validation import StackValidation, validates
from clients.method.model import HospitalModel
from clients.method.settings import TrainingSettings

if TYPE_CHECKING:
    from clients.method.lean.fused.step import FusedStep


@dataclass(frozen=True)
class Trainee:
    """What a fleet needs of one hospital.

    Attributes:
        features: float[N, D] on the device of the model.
        labels: int64[N] there too.
        class_weights: float[C] or None.
        private: Its own tensors, by the names of `parts.private_part`.
        generator: Makes the generator of the round; called again where a smaller fleet has to begin anew.
        validation: Features float[M, D] of its validation images on that device; None where nobody asks for them.
    """

    features: Tensor
    labels: Tensor
    class_weights: Tensor | None
    private: Mapping[str, Tensor]
    generator: Callable[[], torch.Generator]
    validation: Tensor | None = None


@dataclass(frozen=True)
class Trained:
    """What a hospital has after the round.

    Attributes:
        update: float32[d], of the shared vector.
        private: Its own tensors.
        arrays: The same in the processor's memory, where they are on a GPU.
    """

    update: Vector
    private: Mapping[str, Tensor]
    arrays: Mapping[str, npt.NDArray[Any]] | None = None


@dataclass(frozen=True)
class _Kind:
    """Steps that are alike but for their images.

    Attributes:
        step: Of as many hospitals as are left; None where the stack's fused step takes it.
        counts: How many images each of them has in the step.
        rows: Which rows are images.
        weights: float[k, B], the weight of each row where classes have none.
        moving: What moves after it.
    """

    step: TrainingStep | None
    counts: tuple[int, ...]
    rows: Rows
    weights: Tensor
    moving: Sequence[Moving]


class Stack:
    """The same hospitals in round after round; those with most steps first.

    Args:
        model: A model of the method: names and shapes of the tensors, text features.
        shared: Names of the tensors in the shared vector, in its order.
        private: Names of the tensors that a hospital keeps.
        trainees: The hospitals, with their data; what each has learned is taken at the beginning of a round.
    """

    def __init__(
        self, model: HospitalModel, shared: Sequence[str], private: Sequence[str], trainees: Sequence[Trainee]
    ) -> None:
        self._model, self._settings, self._shared, self._private = model, model.settings, shared, private
        self._of = list(trainees)
        self._device = model.text_features.device
        self._replays = Replays.on(self._device, model.text_features.dtype)
        self._general_because = reason_for_general_step(model)
        sizes = [_passes(trainee, model) for trainee in trainees]
        self._places = sorted(range(len(trainees)), key=lambda k: -len(sizes[k]))
        self._passes = [sizes[k] for k in self._places]
        with self._replays.stream():
            self._make_memory([trainees[k] for k in self._places])
        self._steps: dict[int, tuple[TrainingStep, list[Moving]]] = {}
        self._activations = SamePlaces()
        self._kinds: dict[tuple[int, ...], _Kind] = {}

    def is_of(self, trainees: Sequence[Trainee]) -> bool:
        """Return whether these are the hospitals of the stack, with the data that lie in it."""
        return len(trainees) == len(self._of) and all(
            a.features is b.features and a.labels is b.labels and a.class_weights is b.class_weights
            for a, b in zip(trainees, self._of, strict=True)
        )

    @property
    def general_because(self) -> str | None:
        """Why the stack takes the general step, kernel by kernel; None where it takes the fused one."""
        return self._general_because

    def begin(self, vector: Vector, trainees: Sequence[Trainee], round_number: int) -> None:
        """Begin a round of all hospitals from the shared vector float32[d]; a GPU is left to work on it.

        Args:
            vector: Where every hospital begins.
            trainees: The hospitals of the stack, with what each has learned by now.
            round_number: Counted from 1; decides the learning rates.

        Raises:
            ValueError: The vector's length does not fit.
        """
        length = sum(self._model.get_parameter(name).numel() for name in self._shared)
        if vector.shape != (length,):
            raise ValueError(f"the shared vector has shape {vector.shape}, these settings need ({length},)")
        of = [trainees[k] for k in self._places]
        with self._replays.stream():
            self._receive(vector, of)
            for mine, given in zip(self._generators, (trainee.generator() for trainee in of), strict=True):
                mine.manual_seed(given.initial_seed())
            self._optimizer.begin_round(round_number)
            self._number.zero_()
            if self._validation is not None:
                self._validation.begin()
            self._train()
            self._send()

    @property
    def validation(self) -> StackValidation | None:
        """What the models that a round began with say of validation images; None where they cannot be asked here."""
        return self._validation

    def finish(self) -> list[Trained]:
        """Wait for the round and return what each hospital has, in the order in which they were given."""
        self._replays.wait()
        copies = {name: self._tensors.values[name].clone().unbind() for name in self._private}
        trained: dict[int, Trained] = {}
        for k, place in enumerate(self._places):
            arrays = {name: tensor[k].numpy().copy() for name, tensor in self._sent.items()}
            tensors = {name: copies[name][k] for name in self._private}
            trained[place] = Trained(self._host[k].numpy().copy(), tensors, arrays or None)
        return [trained[place] for place in range(len(trained))]

    def _make_memory(self, trainees: Sequence[Trainee]) -> None:
        model, settings = self._model, self._settings
        self._features = torch.cat([t.features for t in trainees])
        self._labels = torch.cat([t.labels for t in trainees])
        self._starts = torch.tensor([0, *(len(t.labels) for t in trainees)]).cumsum(0).tolist()
        weights = [t.class_weights for t in trainees]
        self._image_weights = (
            None
            if all(w is None for w in weights)
            else torch.cat(
                [
                    self._features.new_ones(len(t.labels)) if w is None else w[t.labels]
                    for t, w in zip(trainees, weights, strict=True)
                ]
            )
        )
        named = dict(model.named_parameters())
        likes = named | {name: trainees[0].private[name] for name in self._private}
        likes = {name: likes[name] for name in (*self._private, *self._shared)}
        values = {name: like.new_empty(len(trainees), *like.shape) for name, like in likes.items()}
        gradients = {name: torch.zeros_like(values[name]) for name in named}
        self._gradients = gradients
        self._tensors = _laid_out(values, gradients)
        self._moments = {name: (torch.zeros_like(g), torch.zeros_like(g)) for name, g in gradients.items()}
        on_device = self._replays.records or self._general_because is None
        self._optimizer = FusedAdamW(settings, 1, self._device, on_device=on_device)
        self._generators = [torch.Generator(self._device) for _ in trainees]
        steps = len(self._passes[0]) * settings.local_epochs
        self._order = torch.zeros(len(trainees), steps, settings.batch_size, dtype=torch.int64, device=self._device)
        self._number = torch.zeros(1, dtype=torch.int64, device=self._device)
        length = sum(likes[name].numel() for name in self._shared)
        self._received = torch.empty(length, dtype=torch.float32, device=self._device)
        on_gpu = self._device.type == "cuda"
        self._host = torch.empty(len(trainees), length, pin_memory=on_gpu)
        self._sent = {
            name: torch.empty(values[name].shape, dtype=values[name].dtype, pin_memory=True)
            for name in self._private
            if on_gpu
        }
        self._validation = None
        images = [t.validation for t in trainees]
        if validates(settings) and all(x is not None for x in images):
            self._validation = StackValidation(
                model, self._tensors, [x for x in images if x is not None], self._places, self._replays
            )
        self._fused = self._make_fused() if self._general_because is None else None

    def _receive(self, vector: Vector, trainees: Sequence[Trainee]) -> None:
        """Put what all share and what each has learned in place; moments begin at 0."""
        values = self._tensors.values
        self._received.copy_(torch.from_numpy(vector.astype(vector.dtype, copy=True)))
        offset = 0
        for name in self._shared:
            like = values[name][0]
            values[name].copy_(self._received[offset : offset + like.numel()].view(like.shape))
            offset += like.numel()
        for name in self._private:
            torch.stack([trainee.private[name].detach() for trainee in trainees], out=values[name])
        for moments in zip(*self._moments.values(), strict=True):
            torch._foreach_zero_(list(moments))
        if self._fused is not None:
            self._fused.refresh()

    def _train(self) -> None:
        """All steps of the round; between two of them whoever ends a pass has its thresholds looked at."""
        epochs = self._settings.local_epochs
        number = 0
        total = len(self._passes[0]) * epochs
        plan = [self._counts(number) for number in range(total)]
        for counts, alike in groupby(plan):
            left = sum(1 for _ in alike)
            while left:
                self._begin_passes(number, len(counts))
                together = min(left, *(len(sizes) - number % len(sizes) for sizes in self._passes[: len(counts)]))
                kind = self._kind(counts)
                self._replays.run(counts, together, partial(self._step, kind), self._generators)
                number, left = number + together, left - together
                self._end_passes(number, len(counts))
        self._reset(range(len(self._passes)))

    def _counts(self, number: int) -> tuple[int, ...]:
        """The images of each hospital that is left in a step."""
        epochs = self._settings.local_epochs
        return tuple(sizes[number % len(sizes)] for sizes in self._passes if number < len(sizes) * epochs)

    def _kind(self, counts: tuple[int, ...]) -> _Kind:
        if counts in self._kinds:
            return self._kinds[counts]
        size, active = self._settings.batch_size, len(counts)
        step, moving = (None, []) if self._fused is not None else self._general_step(active)
        like = self._features
        rows, weights = Rows(None, size), like.new_full((active, size), 1 / size)
        if min(counts) < size:
            count = torch.tensor(counts, dtype=like.dtype).to(self._device)[:, None]
            valid = (torch.arange(size, device=self._device) < count).to(like.dtype)
            rows, weights = Rows(valid[..., None], count), valid / count
        self._kinds[counts] = kind = _Kind(step, counts, rows, weights, moving)
        return kind

    def _general_step(self, active: int) -> tuple[TrainingStep, list[Moving]]:
        if active not in self._steps:
            model = self._model
            tensors, size = self._tensors.first(active), model.settings.batch_size
            with self._activations.again():
                step = TrainingStep(tensors, model.text_features, model.logit_scale, model.settings, size)
            self._steps[active] = step, self._moving(active)
        return self._steps[active]

    def _make_fused(self) -> "FusedStep":
        from clients.method.lean.fused.step import FusedStep, Images, Parameters  # needs Triton

        weights = self._image_weights
        if weights is None:
            weights = self._features.new_ones(len(self._features))
        images = Images(self._features, self._labels, weights, self._order, self._number)
        return FusedStep(self._model, Parameters(self._tensors.values, self._moments, self._optimizer), images)

    def _step(self, kind: _Kind) -> None:
        """One step of the hospitals that are left, on the rows that the order has for it."""
        counts = kind.counts
        ragged = min(counts) < self._settings.batch_size

        def draw(target: Tensor, probability: float) -> Tensor:
            with self._replays.beside():
                if ragged:
                    target.fill_(1.0)
                for k, number in enumerate(counts):
                    draw_ones(target[k, :number], probability, self._generators[k])
            return target

        self._optimizer.begin_step()
        if kind.step is None:
            assert self._fused is not None  # noqa: S101 (see `_kind`)
            self._fused.run(kind.weights, draw)
        else:
            self._run_general(kind, kind.step, draw)
        self._number.add_(1)

    def _run_general(self, kind: _Kind, step: TrainingStep, draw: Draw) -> None:
        index = self._order[: len(kind.counts)].index_select(1, self._number).squeeze(1)
        labels, weights = self._labels[index], kind.weights
        if self._image_weights is not None:
            weights = weights * self._image_weights[index]
        step.run(self._features[index], step.targets(labels, weights), kind.rows, draw)
        for part in kind.moving:
            self._optimizer.move(part)

    def _begin_passes(self, number: int, active: int) -> None:
        """Draw the order of the hospitals that begin a pass with a step; a batch that is not full repeats an image."""
        size = self._settings.batch_size
        for k, sizes in enumerate(self._passes[:active]):
            if number % len(sizes):
                continue
            images = self._starts[k + 1] - self._starts[k]
            drawn = torch.randperm(images, generator=self._generators[k], device=self._device)[: sum(sizes)]
            drawn += self._starts[k]
            order = self._order[k].view(-1)[number * size : (number + len(sizes)) * size]
            order[: len(drawn)] = drawn
            order[len(drawn) :] = drawn[-sizes[-1]]

    def _end_passes(self, number: int, active: int) -> None:
        """Look at the thresholds of those who have ended a pass that is not their last: the last ones come together."""
        epochs = self._settings.local_epochs
        if epochs > 1:
            for k, sizes in enumerate(self._passes[:active]):
                if not number % len(sizes) and number < len(sizes) * epochs:
                    self._reset(range(k, k + 1))
                    if self._fused is not None:
                        self._fused.refresh()

    def _reset(self, hospitals: range) -> None:
        values, some = self._tensors.values, slice(hospitals.start, hospitals.stop)
        for name in values:
            if name.endswith(".threshold"):
                weight = values[f"{name.removesuffix('.threshold')}.weight"]
                reset_thresholds(weight[some], values[name][some], self._settings.reset_keep_ratio)

    def _send(self) -> None:
        """Have what comes of the round copied to memory of the processor."""
        if self._shared:
            local = torch.cat([self._tensors.values[name].flatten(1) for name in self._shared], 1)
            self._host.copy_(local.to(torch.float32) - self._received, non_blocking=True)
        for name, memory in self._sent.items():
            memory.copy_(self._tensors.values[name], non_blocking=True)

    def _moving(self, active: int) -> list[Moving]:
        """The parameters of the hospitals that are left: the FAM's, and the MLP's where there is one."""
        parts = []
        for of_fam in (True, False):
            names = [name for name in self._gradients if name.startswith("fam.") is of_fam]
            means, squares = ([self._moments[name][k][:active] for name in names] for k in (0, 1))
            parameters = [self._tensors.values[name][:active] for name in names]
            gradients = [self._gradients[name][:active] for name in names]
            if names:
                parts.append(Moving(of_fam, (parameters, gradients, means, squares)))
        return parts


def _laid_out(values: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> ModelTensors:
    layers = [name.removesuffix(".weight") for name, value in gradients.items() if value.dim() == 3]
    blocks = {layer: [Block(slice(None), values[f"{layer}.weight"], gradients[f"{layer}.weight"])] for layer in layers}
    learned = [f"{layer}.threshold" for layer in layers if f"{layer}.threshold" in gradients]
    return ModelTensors(values, gradients, blocks, [(values[name], gradients[name]) for name in learned])


def _passes(trainee: Trainee, model: HospitalModel) -> list[int]:
    """The sizes of the batches of one pass over a hospital's images."""
    return batch_sizes(len(trainee.labels), model.settings, with_mlp=model.mlp is not None)


def batch_sizes(images: int, settings: TrainingSettings, *, with_mlp: bool) -> list[int]:
    """Return the sizes of the batches of a pass: whole ones and what is left.

    A single image is left out where the MLP uses batch norm.
    """
    least = 2 if with_mlp and settings.mlp_norm == "batch" else 1
    full, rest = divmod(images, settings.batch_size)
    sizes = [settings.batch_size] * full + [rest] * (rest > 0)
    return [size for size in sizes if size >= least]
