"""Local training of many hospitals at once: their models stacked, every product one batched product.

For a GPU, where one hospital's products leave most of it idle. Each hospital has its own data, order, dropout and
number of steps; a hospital whose last batch is smaller fills it with rows that weigh nothing, one that has finished is
left out of the stack. The result is that of `LeanTrainer` for each, up to rounding, whoever else is in the fleet.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clients.method.dropout import draw_ones
from clients.method.layout import Vector, flatten
from clients.method.lean.masked import Block, reset_thresholds
from clients.method.lean.norms import Rows
from clients.method.lean.optimizer import FusedAdamW, Moving
from clients.method.lean.step import ModelTensors, TrainingStep
from clients.method.model import HospitalModel
from clients.method.parts import private_part, shared_part
from clients.method.settings import TrainingSettings

_COPIES = 4
"""Parameter, gradient and two moments."""

_ACTIVATIONS = 40
"""Upper bound on the matrices float[B, 2 D] that a step holds."""

_MEMORY_SHARE = 0.5
"""Of the memory that is free on a GPU."""


@dataclass(frozen=True)
class Trainee:
    """What a fleet needs of one hospital.

    Attributes:
        features: float[N, D] on the device of the model.
        labels: int64[N] there too.
        class_weights: float[C] or None.
        private: Its own tensors, by the names of `parts.private_part`.
        generator: Makes the generator of the round; called again where a smaller fleet has to begin anew.
    """

    features: Tensor
    labels: Tensor
    class_weights: Tensor | None
    private: Mapping[str, Tensor]
    generator: Callable[[], torch.Generator]


@dataclass(frozen=True)
class Trained:
    """What a hospital has after the round: the update of the shared vector float32[d], and its own tensors."""

    update: Vector
    private: Mapping[str, Tensor]


class Fleet:
    """Trains hospitals of one method side by side.

    Args:
        model: A model of the method: names and shapes of the tensors, text features.
        method: One of `METHODS`.
        memory: Bytes that a fleet may use; None for half of what is free on a GPU, no limit on a CPU.
    """

    def __init__(self, model: HospitalModel, method: str, memory: int | None = None) -> None:
        self._model, self._memory = model, memory
        self._shared = [name for name, _ in shared_part(model, method)]
        self._private = list(private_part(model, method))
        self._parameters = [name for name, _ in model.named_parameters()]

    def train(self, vector: Vector, trainees: Sequence[Trainee], round_number: int) -> list[Trained]:
        """Train one round from the shared vector float32[d] at every hospital.

        As many at a time as memory allows; where a GPU runs out of it all the same, half as many.

        Raises:
            ValueError: The vector's length does not fit.
        """
        results: list[Trained] = []
        size = self._largest()
        while len(results) < len(trainees):
            group = trainees[len(results) : len(results) + size]
            try:
                results += _Stack(self._model, self._shared, self._private, self._parameters, vector, group).train(
                    round_number
                )
            except torch.OutOfMemoryError:
                if len(group) == 1:
                    raise
                torch.cuda.empty_cache()
                size = len(group) // 2
        return results

    def _largest(self) -> int:
        """How many hospitals fit."""
        device = self._model.text_features.device
        memory = self._memory
        if memory is None:
            if device.type != "cuda":
                return 1 << 30
            memory = int(_MEMORY_SHARE * torch.cuda.mem_get_info(device)[0])
        settings, width = self._model.settings, self._model.text_features.shape[-1]
        parameters = sum(p.numel() for p in self._model.parameters())
        largest = max(p.numel() for p in self._model.parameters())
        widest = 2 * max(width, settings.mlp_width)
        values = _COPIES * parameters + largest + _ACTIVATIONS * settings.batch_size * widest
        return max(1, memory // (values * self._model.text_features.element_size()))


class _Stack:
    """One group of hospitals, those with most steps first."""

    def __init__(
        self,
        model: HospitalModel,
        shared: Sequence[str],
        private: Sequence[str],
        parameters: Sequence[str],
        vector: Vector,
        trainees: Sequence[Trainee],
    ) -> None:
        self._model, self._settings, self._shared, self._private = model, model.settings, shared, private
        self._vector = vector
        steps = [len(_passes(trainee, model)) * model.settings.local_epochs for trainee in trainees]
        self._places = sorted(range(len(trainees)), key=lambda k: -steps[k])
        self._trainees = [trainees[k] for k in self._places]
        self._steps = [steps[k] for k in self._places]
        values = {name: torch.stack([t.private[name].detach() for t in self._trainees]) for name in private}
        values |= self._received(vector)
        self._gradients = {name: torch.zeros_like(values[name]) for name in parameters}
        self._tensors = _laid_out(values, self._gradients)
        self._moments = {name: (torch.zeros_like(g), torch.zeros_like(g)) for name, g in self._gradients.items()}
        self._features = torch.cat([t.features for t in self._trainees])
        self._labels = torch.cat([t.labels for t in self._trainees])
        self._starts = torch.tensor([0, *(len(t.labels) for t in self._trainees)]).cumsum(0).tolist()
        weights = [t.class_weights for t in self._trainees]
        classes = len(model.text_features)
        self._class_weights = (
            None
            if all(w is None for w in weights)
            else torch.stack([self._features.new_ones(classes) if w is None else w for w in weights])
        )

    def train(self, round_number: int) -> list[Trained]:
        generators = [trainee.generator() for trainee in self._trainees]
        batches = [self._batches(k, generator) for k, generator in enumerate(generators)]
        active, step, optimizer = 0, None, None
        moving: list[Moving] = []
        for number in range(max(self._steps, default=0)):
            left = sum(steps > number for steps in self._steps)
            if step is None or optimizer is None or left != active:
                active = left
                tensors = self._tensors.first(active)
                step = self._make_step(tensors)
                optimizer = FusedAdamW(self._settings, round_number, self._features.device, number)
                moving = self._moving(active)
            drawn = [next(batches[k]) for k in range(active)]
            optimizer.begin_step()
            self._run(step, [rows for rows, _ in drawn], generators)
            for part in moving:
                optimizer.move(part)
            self._reset([k for k, (_, last) in enumerate(drawn) if last])
        self._reset([k for k, steps in enumerate(self._steps) if not steps])
        trained = {place: self._result(k) for k, place in enumerate(self._places)}
        return [trained[place] for place in range(len(trained))]

    def _make_step(self, tensors: ModelTensors) -> TrainingStep:
        model = self._model
        return TrainingStep(tensors, model.text_features, model.logit_scale, model.settings, self._settings.batch_size)

    def _run(self, step: TrainingStep, drawn: Sequence[Tensor], generators: Sequence[torch.Generator]) -> None:
        """One step of the hospitals that are left; `drawn` are the rows of each, in the concatenated features."""
        size, device = self._settings.batch_size, self._features.device
        counts = [len(rows) for rows in drawn]
        index = torch.stack([torch.cat([rows, rows[:1].expand(size - len(rows))]) for rows in drawn])
        labels = self._labels[index]
        weights = torch.ones_like(index, dtype=self._features.dtype)
        if self._class_weights is not None:
            weights = self._class_weights[: len(drawn)].gather(1, labels)
        rows = Rows(None, size)
        if min(counts) < size:
            count = torch.tensor(counts, dtype=weights.dtype, device=device)[:, None]
            valid = (torch.arange(size, device=device) < count).to(weights.dtype)
            rows = Rows(valid[..., None], count)
            weights = weights * valid

        def draw(target: Tensor, probability: float) -> Tensor:
            if min(counts) < size:
                target.fill_(1.0)
            for k, number in enumerate(counts):
                draw_ones(target[k, :number], probability, generators[k])
            return target

        step.run(self._features[index], step.targets(labels, weights / rows.count), rows, draw)

    def _batches(self, hospital: int, generator: torch.Generator) -> Iterator[tuple[Tensor, bool]]:
        """Yield the rows of each step of a hospital and whether a pass ends with it; a pass is drawn as it begins."""
        trainee = self._trainees[hospital]
        sizes = _passes(trainee, self._model)
        for _ in range(self._settings.local_epochs):
            order = torch.randperm(len(trainee.labels), generator=generator, device=trainee.labels.device)
            order += self._starts[hospital]
            start = 0
            for number, size in enumerate(sizes):
                yield order[start : start + size], number == len(sizes) - 1
                start += size

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

    def _reset(self, hospitals: Sequence[int]) -> None:
        values = self._tensors.values
        names = [name.removesuffix(".threshold") for name in values if name.endswith(".threshold")]
        for k in hospitals:
            for name in names:
                reset_thresholds(
                    values[f"{name}.weight"][k], values[f"{name}.threshold"][k], self._settings.reset_keep_ratio
                )

    def _received(self, vector: Vector) -> dict[str, Tensor]:
        """The shared tensors of every hospital, from the vector."""
        likes = {name: self._model.get_parameter(name) for name in self._shared}
        length = sum(like.numel() for like in likes.values())
        if vector.shape != (length,):
            raise ValueError(f"the shared vector has shape {vector.shape}, these settings need ({length},)")
        source = torch.from_numpy(vector.astype(vector.dtype, copy=True))
        values, offset = {}, 0
        for name, like in likes.items():
            part = source[offset : offset + like.numel()].view(like.shape).to(like)
            values[name] = part.expand(len(self._trainees), *like.shape).contiguous()
            offset += like.numel()
        return values

    def _result(self, k: int) -> Trained:
        local = flatten((name, self._tensors.values[name][k]) for name in self._shared)
        return Trained(local - self._vector, {name: self._tensors.values[name][k].clone() for name in self._private})


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
