"""AdamW over memory that is kept, part by part: what `clients.method.optimizer.adamw` does, without its bookkeeping."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clients.method.settings import TrainingSettings


@dataclass(frozen=True)
class Moving:
    """Parameters, their gradients and their two moments, all of one shape.

    Attributes:
        of_fam: Whether they are the FAM's: they have its learning rate.
        tensors: One or several of each, in four lists of one length.
    """

    of_fam: bool
    tensors: tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]


class FusedAdamW:
    """The optimiser of a round; each part of the parameters is moved once a step.

    Args:
        settings: Learning rates, their decay, and the rest of AdamW.
        round_number: The round, from 1.
        device: Where the parameters are.
        on_device: Whether the learning rates lie on the device, as float32, so that recorded steps see those of later
            rounds.
    """

    def __init__(
        self, settings: TrainingSettings, round_number: int, device: torch.device, *, on_device: bool = False
    ) -> None:
        self._settings = settings
        self._on_device = [torch.zeros((), dtype=torch.float32, device=device) for _ in range(2 * on_device)]
        self._rest: dict[str, Any] = {
            "amsgrad": False,
            "beta1": settings.adam_beta1,
            "beta2": settings.adam_beta2,
            "weight_decay": settings.weight_decay,
            "eps": settings.adam_epsilon,
            "maximize": False,
            "grad_scale": None,
            "found_inf": None,
        }
        self._count = torch.zeros((), dtype=torch.float32, device=device)
        self._steps = 0
        self.begin_round(round_number)

    def begin_round(self, round_number: int) -> None:
        """Take the learning rates of a round, from 1; its moments have seen no step."""
        decay = self._settings.learning_rate_decay ** (round_number - 1)
        rates = [self._settings.fam_learning_rate * decay, self._settings.mlp_learning_rate * decay]
        for tensor, rate in zip(self._on_device, rates, strict=False):
            tensor.fill_(rate)
        fam, mlp = self._on_device or rates
        self._rates = {True: fam, False: mlp}
        self._count.zero_()
        self._steps = 0

    @property
    def count(self) -> Tensor:
        """float32[], the steps of the round that have begun."""
        return self._count

    @property
    def rates_on_device(self) -> tuple[Tensor, Tensor]:
        """The learning rates of FAM and MLP, float32[] each, where they lie on the device; set by `begin_round`."""
        fam, mlp = self._on_device
        return fam, mlp

    def begin_step(self) -> None:
        """Count a step; before any part is moved."""
        self._count.add_(1)
        self._steps += 1

    def move(self, part: Moving) -> None:
        """Move some parameters by their gradients: what torch's own fused AdamW calls, with the same arguments.

        `torch.optim.AdamW` itself, around that call, costs a tenth of a lean step.
        """
        counts = [self._count] * len(part.tensors[0])
        torch._fused_adamw_(*part.tensors, [], counts, lr=self._rates[part.of_fam], **self._rest)

    def numbers(self, of_fam: bool) -> tuple[float, ...]:
        """Return a step of AdamW as numbers (a, b, c, d, e, f, h); not where the learning rates lie on a device.

        For a parameter w with gradient g and moments m and v it is m += (g - m) * a, v = v * b + g * g * c,
        w = w * d - e * m / (sqrt(v) * f + h), with the bias corrections of the step in e and f.
        """
        settings, rate = self._settings, float(self._rates[of_fam])
        first, second = settings.adam_beta1, settings.adam_beta2
        return (
            1 - first,
            second,
            1 - second,
            1 - rate * settings.weight_decay,
            rate / (1 - first**self._steps),
            (1 - second**self._steps) ** -0.5,
            settings.adam_epsilon,
        )
