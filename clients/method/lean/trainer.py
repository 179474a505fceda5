"""Local training of one hospital with the lean step: `clients.method.training.train_epochs` without autograd."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from clients.method.dropout import draw_ones
from clients.method.lean.compiled import CompiledMove, is_compiled
from clients.method.lean.gradients import Targets
from clients.method.lean.masked import Block, reset_thresholds, sum_of_rows
from clients.method.lean.norms import Rows
from clients.method.lean.optimizer import FusedAdamW, Moving
from clients.method.lean.step import ModelTensors, TrainingStep
from clients.method.masked_linear import MaskedLinear
from clients.method.model import HospitalModel

_BLOCK_BYTES = 1 << 20
"""Of weights whose gradient is used before the next one is made: a core's own cache holds it."""


class LeanTrainer:
    """Trains a model in memory that it keeps from round to round: parameters and moments lie flat.

    The model's parameters become views of that memory and stay usable as before. Gradients of weights are used block
    by block as a step goes backwards, all in the same memory.

    Args:
        model: The model to train.
    """

    def __init__(self, model: HospitalModel) -> None:
        self._model = model
        self._optimizer = FusedAdamW(model.settings, 1, model.text_features.device)
        named = dict(model.named_parameters())
        flat = torch.cat([named[name].detach().reshape(-1) for name in _order(named)])
        self._moments = torch.zeros(2, len(flat), dtype=flat.dtype, device=flat.device)
        values: dict[str, Tensor] = {}
        places: dict[str, slice] = {}
        end = 0
        for name in _order(named):
            here = places[name] = slice(end, end + named[name].numel())
            values[name] = named[name].data = flat[here].view(named[name].shape)
            end = here.stop
        self._flat = flat
        self._measured: list[tuple[Block, Tensor]] = []
        self._tensors = self._lay_out(values | dict(model.named_buffers()), places)
        self._layers = [module for module in model.modules() if isinstance(module, MaskedLinear) and module.learned]
        self._steps: dict[int, TrainingStep] = {}
        self._uniform: dict[torch.Size, Tensor] = {}

    def train(
        self,
        image_features: Tensor,
        labels: Tensor,
        class_weights: Tensor | None,
        round_number: int,
        generator: torch.Generator,
    ) -> int:
        """Train one round and return the number of steps; arguments as in `train_epochs` and `make_optimizer`."""
        settings = self._model.settings
        self._optimizer = FusedAdamW(settings, round_number, self._flat.device)
        self._moments.zero_()

        def draw(target: Tensor, probability: float) -> Tensor:
            return draw_ones(target, probability, generator, self._memory(target))

        for block, total in self._measured:
            sum_of_rows(block.weight, block.gradient, total)
        steps = 0
        for _ in range(settings.local_epochs):
            order = torch.randperm(len(labels), generator=generator, device=image_features.device)
            for x, targets in self._batches(image_features, labels, order, class_weights):
                self._optimizer.begin_step()
                self._step(len(x)).run(x, targets, Rows(None, len(x)), draw)
                for part in self._vectors:
                    self._optimizer.move(part)
                steps += 1
            for layer in self._layers:
                reset_thresholds(layer.weight.data, layer.threshold.data, settings.reset_keep_ratio)
        return steps

    def _batches(
        self, features: Tensor, labels: Tensor, order: Tensor, class_weights: Tensor | None
    ) -> Iterator[tuple[Tensor, Targets]]:
        """Yield the batches of a pass; a last one that a batch norm cannot take is left out."""
        if not len(labels):
            return
        labels = labels[order]
        settings = self._model.settings
        least = 2 if self._model.mlp is not None and settings.mlp_norm == "batch" else 1
        weights = features.new_ones(len(labels)) if class_weights is None else class_weights[labels]
        whole = len(labels) - len(labels) % settings.batch_size
        weights[:whole] /= settings.batch_size
        weights[whole:] /= max(1, len(labels) - whole)
        targets = self._step(min(len(labels), settings.batch_size)).targets(labels, weights)
        batches = (torch.split(t, settings.batch_size) for t in (order, targets.labels, targets.rows, targets.weights))
        for chosen, *of_batch in zip(*batches, strict=True):
            if len(chosen) >= least:  # fetched batch by batch: a core's own cache holds it
                yield features.index_select(0, chosen), Targets(*of_batch)

    def _step(self, rows: int) -> TrainingStep:
        if rows not in self._steps:
            if len(self._steps) > 1:  # whole batches and the last one of a pass
                self._steps = {
                    size: step for size, step in self._steps.items() if size == self._model.settings.batch_size
                }
            model = self._model
            self._steps[rows] = TrainingStep(
                self._tensors, model.text_features, model.logit_scale, model.settings, rows
            )
        return self._steps[rows]

    def _memory(self, target: Tensor) -> Tensor | None:
        """Memory for the uniform numbers of a draw."""
        if target.device.type != "cpu":
            return None
        if target.shape not in self._uniform:
            if len(self._uniform) > 3:  # two widths, whole batches and last ones
                self._uniform.clear()
            self._uniform[target.shape] = torch.empty_like(target, dtype=torch.float64)
        return self._uniform[target.shape]

    def _lay_out(self, values: dict[str, Tensor], places: dict[str, slice]) -> ModelTensors:
        """Split the flat memory: weights into blocks, all other parameters into one vector for each learning rate."""
        layers = [name.removesuffix(".weight") for name in places if values[name].dim() == 2]
        start = max(places[f"{layer}.weight"].stop for layer in layers)
        to_vectors = torch.zeros_like(self._flat[start:])
        vectors = [name for name in places if places[name].start >= start]
        middle = min((places[name].start for name in vectors if name.startswith("mlp.")), default=len(self._flat))
        self._vectors = [
            self._moving(slice(a, b), to_vectors[a - start : b - start], of_fam=a == start)
            for a, b in pairwise((start, middle, len(self._flat)))
            if b > a
        ]
        gradients = {
            name: to_vectors[places[name].start - start : places[name].stop - start].view(values[name].shape)
            for name in vectors
        }
        size = max(_rows_of_block(values[f"{layer}.weight"]) * values[f"{layer}.weight"].shape[1] for layer in layers)
        memory = self._flat.new_empty(size)
        learns = any(name.endswith(".threshold") for name in places)
        totals = self._flat.new_empty(sum(len(values[f"{layer}.weight"]) for layer in layers)) if learns else None
        blocks: dict[str, list[Block]] = {}
        end = 0
        for layer in layers:
            weight, place = values[f"{layer}.weight"], places[f"{layer}.weight"]
            of_layer = None if totals is None else totals[end : end + len(weight)]
            blocks[layer] = self._blocks(weight, place.start, memory, layer, of_layer)
            end += len(weight)
        learned = [places[name] for name in places if name.endswith(".threshold")]
        thresholds = []
        if learned:
            of_all = slice(learned[0].start, learned[-1].stop)
            thresholds.append((self._flat[of_all], to_vectors[of_all.start - start : of_all.stop - start]))
        return ModelTensors(values, gradients, blocks, thresholds, totals)

    def _blocks(self, weight: Tensor, start: int, memory: Tensor, layer: str, totals: Tensor | None) -> list[Block]:
        outputs, inputs = weight.shape
        size = _rows_of_block(weight)
        blocks = []
        for first in range(0, outputs, size):
            rows = slice(first, min(outputs, first + size))
            gradient = memory[: (rows.stop - first) * inputs]
            place = slice(start + first * inputs, start + rows.stop * inputs)
            moving = self._moving(place, gradient, of_fam=layer.startswith("fam."))
            block = Block(rows, weight[rows], gradient.view(-1, inputs), partial(self._move, moving))
            if totals is not None:
                total = totals[rows]
                block = replace(block, use=partial(self._move_and_measure, moving, block, total))
                if is_compiled(weight.device):
                    mean, square = (tensors[0].view_as(block.weight) for tensors in moving.tensors[2:])
                    move = CompiledMove(block.weight, block.gradient, mean, square, total)
                    block = replace(block, absorb=partial(self._move_compiled, move, moving.of_fam))
                self._measured.append((block, total))
            blocks.append(block)
        return blocks

    def _moving(self, place: slice, gradient: Tensor, *, of_fam: bool) -> Moving:
        mean, square = self._moments[:, place]
        return Moving(of_fam, ([self._flat[place]], [gradient], [mean], [square]))

    def _move(self, part: Moving) -> None:
        self._optimizer.move(part)

    def _move_compiled(self, move: CompiledMove, of_fam: bool, factor: Tensor) -> None:
        move(factor, self._optimizer.numbers(of_fam))

    def _move_and_measure(self, part: Moving, block: Block, total: Tensor) -> None:
        """Move a block, and sum up |w| for the masks of the next step while a core's cache holds some of it."""
        self._optimizer.move(part)
        sum_of_rows(block.weight, block.gradient, total)


def _rows_of_block(weight: Tensor) -> int:
    outputs, inputs = weight.shape
    return max(1, min(outputs, _BLOCK_BYTES // (inputs * weight.element_size())))


def _order(named: dict[str, torch.nn.Parameter]) -> list[str]:
    """All weights, then what else the FAM has, then the MLP's; the thresholds of both meet in the middle."""

    def place(name: str) -> tuple[int, bool]:
        learned = name.endswith(".threshold")
        if named[name].dim() == 2:
            return 0, False
        return (1, learned) if name.startswith("fam.") else (2, not learned)

    return sorted(named, key=place)
