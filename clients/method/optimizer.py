"""The optimiser of local training."""

from collections.abc import Sequence

import torch

from clients.method.settings import TrainingSettings


def adamw(
    fam: Sequence[torch.nn.Parameter],
    mlp: Sequence[torch.nn.Parameter],
    settings: TrainingSettings,
    round_number: int,
) -> torch.optim.AdamW:
    """Return a fresh AdamW (fused) over FAM and MLP with the learning rates of the round, counted from 1.

    Args:
        fam: Parameters of the FAM.
        mlp: Parameters of the MLP; empty without one.
        settings: Learning rates, their decay, and the rest of AdamW.
        round_number: The round.
    """
    decay = settings.learning_rate_decay ** (round_number - 1)
    groups = [{"params": list(fam), "lr": settings.fam_learning_rate * decay}]
    if mlp:
        groups.append({"params": list(mlp), "lr": settings.mlp_learning_rate * decay})
    return torch.optim.AdamW(
        groups,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )
