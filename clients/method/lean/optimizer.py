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
    """The optimiser of one round; each part of the parameters is moved once a step.

    Args:
        settings: Learning rates, their decay, and the rest of AdamW.
        round_number: The round, from 1.
        device: Where the parameters are.
        steps: Steps that the moments have seen.
    """

    def __init__(self, settings: TrainingSettings, round_number: int, device: torch.device, steps: int = 0) -> None:
        decay = settings.learning_rate_decay ** (round_number - 1)
        self._rates = {True: settings.fam_learning_rate * decay, False: settings.mlp_learning_rate * decay}
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
        self._count = torch.full((), float(steps), dtype=torch.float32, device=device)

    def begin_step(self) -> None:
        """Count a step; before any part is moved."""
        self._count.add_(1)

    def move(self, part: Moving) -> None:
        """Move some parameters by their gradients: what torch's own fused AdamW calls, with the same arguments.

        `torch.optim.AdamW` itself, around that call, costs a tenth of a lean step.
        """
        counts = [self._count] * len(part.tensors[0])
        torch._fused_adamw_(*part.tensors, [], counts, lr=self._rates[part.of_fam], **self._rest)
