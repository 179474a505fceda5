"""Local training of one hospital with the lean step: `clients.method.training.train_epochs` without autograd."""

import torch
from torch import Tensor

from clients.method.lean.masked import reset_thresholds
from clients.method.lean.norms import Rows
from clients.method.lean.step import ModelTensors, TrainingStep
from clients.method.masked_linear import MaskedLinear
from clients.method.model import HospitalModel
from clients.method.optimizer import adamw


class LeanTrainer:
    """Trains a model in memory that it keeps from round to round: parameters, gradients and moments lie flat.

    The model's parameters become views of that memory and stay usable as before.

    Args:
        model: The model to train.
    """

    def __init__(self, model: HospitalModel) -> None:
        self._model = model
        self._flat: list[Tensor] = []
        self._gradients: list[Tensor] = []
        values: dict[str, Tensor] = {}
        gradients: dict[str, Tensor] = {}
        for part, module in (("fam", model.fam), ("mlp", model.mlp)):
            if module is None:
                continue
            named = [(f"{part}.{name}", parameter) for name, parameter in module.named_parameters()]
            flat = torch.cat([parameter.detach().reshape(-1) for _, parameter in named])
            gradient = torch.zeros_like(flat)
            offset = 0
            for name, parameter in named:
                here = slice(offset, offset + parameter.numel())
                parameter.data = flat[here].view(parameter.shape)
                values[name], gradients[name] = parameter.data, gradient[here].view(parameter.shape)
                offset += parameter.numel()
            self._flat.append(flat)
            self._gradients.append(gradient)
        self._moments = [torch.zeros_like(flat) for flat in self._flat for _ in range(2)]
        values |= dict(model.named_buffers())
        self._tensors = ModelTensors(values, gradients)
        self._layers = [module for module in model.modules() if isinstance(module, MaskedLinear) and module.learned]
        self._steps: dict[int, TrainingStep] = {}

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
        optimizer = self._optimizer(round_number)

        def draw(target: Tensor, probability: float) -> Tensor:
            return target.bernoulli_(probability, generator=generator)

        least = 2 if self._model.mlp is not None and settings.mlp_norm == "batch" else 1
        steps = 0
        for _ in range(settings.local_epochs):
            order = torch.randperm(len(labels), generator=generator, device=image_features.device)
            features, targets = image_features[order], labels[order]
            weights = torch.ones_like(features[:, 0]) if class_weights is None else class_weights[targets]
            for start in range(0, len(labels), settings.batch_size):
                batch = slice(start, start + settings.batch_size)
                x, y = features[batch], targets[batch]
                if len(y) < least:
                    continue
                self._step(len(y)).run(x, y, weights[batch] / len(y), Rows(None, len(y)), draw)
                optimizer.step()
                steps += 1
            for layer in self._layers:
                reset_thresholds(layer.weight.data, layer.threshold.data, settings.reset_keep_ratio)
        return steps

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

    def _optimizer(self, round_number: int) -> torch.optim.AdamW:
        """A fresh AdamW over the flat parameters, its moments in memory that is kept."""
        parameters = [torch.nn.Parameter(flat) for flat in self._flat]
        for parameter, gradient in zip(parameters, self._gradients, strict=True):
            parameter.grad = gradient
        optimizer = adamw(parameters[:1], parameters[1:], self._model.settings, round_number)
        for number, parameter in enumerate(parameters):
            mean, square = self._moments[2 * number : 2 * number + 2]
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": mean.zero_(),
                "exp_avg_sq": square.zero_(),
            }
        return optimizer
