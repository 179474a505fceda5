"""The part of a private step after the clipped sum: noise, momentum and the move, block by block."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.method.lean.compiled import Array, compiled, is_compiled
from clients.method.settings import TrainingSettings
from clients.privacy.clipping import Group
from clients.privacy.randomness import Randomness
from clients.privacy.settings import PrivacySettings

_BLOCK = 1 << 17
"""Numbers of a parameter that get their noise and move before the next ones do: a core's own cache holds them."""

REST_OF_SGD: dict[str, Any] = {
    "weight_decay": 0.0,
    "dampening": 0.0,
    "nesterov": False,
    "maximize": False,
    "is_first_step": False,
}
"""Arguments of `torch._fused_sgd_`, in place of four passes over memory; `grad_scale` is what it divides by."""


class NoisyDescent:
    """SGD with momentum on (clipped sum + noise) / normaliser.

        v = momentum * v + (sum + noise_multiplier * clip_norm * Gaussian) / normaliser
        w = (1 - rate * weight_decay) * w - rate * v

    Args:
        privacy: Noise multipliers and normaliser.
        settings: Learning rates and their decay, momentum (`adam_beta1`), weight decay.
        named: What is trained, by names that begin with `fam.` or `mlp.`; it may change its place from step to step.

    Attributes:
        momentum: By the same names.
    """

    def __init__(
        self, privacy: PrivacySettings, settings: TrainingSettings, named: Sequence[tuple[str, nn.Parameter]]
    ) -> None:
        self._privacy, self._settings = privacy, settings
        self._parameters = dict(named)
        self._names = {parameter: name for name, parameter in named}
        self.momentum = {name: torch.zeros_like(parameter) for name, parameter in named}
        self._drawn = torch.empty(_BLOCK)
        self._normaliser = torch.tensor(privacy.normaliser, dtype=torch.float32, device=named[0][1].device)
        self._noisy = named[0][1].detach().new_empty(_BLOCK)

    @torch.no_grad()
    def step(
        self,
        groups: Sequence[Group],
        gradients: Sequence[Sequence[Tensor]],
        centres: Mapping[str, Tensor],
        round_number: int,
        source: Randomness,
    ) -> None:
        """Move all parameters once.

        Args:
            groups: One for each noise multiplier.
            gradients: The clipped sums, for each group a tensor for each parameter; they are left as they are.
            centres: By the names of layers: the sums are then with respect to W and b + W c (`clients.privacy.step`).
            round_number: Counted from 1; decides the learning rates.
            source: Of the noise.
        """
        settings = self._settings
        decay = settings.learning_rate_decay ** (round_number - 1)
        rates = {"fam": settings.fam_learning_rate * decay, "mlp": settings.mlp_learning_rate * decay}
        for group, given, multiplier in zip(groups, gradients, self._privacy.noise_multipliers, strict=True):
            for parameter, gradient in zip(group.parameters, given, strict=True):
                name = self._names[parameter]
                self._move(
                    parameter, gradient, self.momentum[name], multiplier * group.clip_norm, rates[name[:3]], source
                )
        for layer, centre in centres.items():  # from b + W c back to b
            moved = rates[layer[:3]] * self.momentum[f"{layer}.weight"]
            self._parameters[f"{layer}.bias"].add_(moved @ centre)

    def _move(
        self, parameter: Tensor, gradient: Tensor, momentum: Tensor, deviation: float, rate: float, source: Randomness
    ) -> None:
        beta, kept = self._settings.adam_beta1, 1 - rate * self._settings.weight_decay
        of_all = (parameter.data.view(-1), gradient.reshape(-1), momentum.view(-1))
        if is_compiled(parameter.device):
            self._descend([tensor.numpy() for tensor in of_all], (deviation, beta, kept, rate), source)
            return
        for value, exact, mean in zip(*(torch.split(tensor, _BLOCK) for tensor in of_all), strict=True):
            noise = source.gaussian(len(exact), self._drawn[: len(exact)]).to(exact.device)
            noisy = torch.add(exact, noise, alpha=deviation, out=self._noisy[: len(exact)])
            if kept != 1:
                value.mul_(kept)
            if beta:
                torch._fused_sgd_(
                    [value], [noisy], [mean], lr=rate, momentum=beta, grad_scale=self._normaliser, **REST_OF_SGD
                )
            else:  # the fused step then leaves the momentum out
                value.sub_(torch.div(noisy, self._normaliser, out=mean), alpha=rate)

    def _descend(self, of_all: list[Array], numbers: tuple[float, ...], source: Randomness) -> None:
        """Move a parameter on the CPU, given with its clipped sum and its momentum."""
        descend = compiled(_descend)
        of_step = np.array((*numbers, self._privacy.normaliser), of_all[0].dtype)
        for start in range(0, len(of_all[0]), _BLOCK):
            value, exact, mean = (array[start : start + _BLOCK] for array in of_all)
            noise = source.gaussian(len(exact), self._drawn[: len(exact)])
            descend(value, exact, mean, noise.numpy(), of_step)


def _descend(value: Array, exact: Array, mean: Array, noise: Array, of_step: Array) -> None:
    """A block's noise, momentum and move in one pass."""
    deviation, beta, kept, rate, normaliser = of_step
    for i in range(len(value)):
        momentum = mean[i] * beta + (exact[i] + noise[i] * deviation) / normaliser
        mean[i] = momentum
        value[i] = value[i] * kept - rate * momentum


def fill_with_noise(memory: Tensor, source: Randomness) -> None:
    """Write to float32[n] on the CPU the Gaussian numbers that `NoisyDescent` draws for a parameter of n numbers."""
    for part in torch.split(memory, _BLOCK):
        source.gaussian(len(part), part)
