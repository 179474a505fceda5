"""A dynamic check: take a step again with one unit of privacy left out, and see how far the clipped sum moves."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from clients.privacy.clipping import ClippedSum, Group

SLACK = 1e-3
"""Relative; rounding of float32 sums of records whose norms are many times the clip."""

SumOf = Callable[[Tensor, Tensor, Tensor | None], ClippedSum]
"""(features float32[B, D], labels int64[B], units int64[B] or None where each row is one) to a step's clipped sum."""


class SensitivityError(Exception):
    """One record moved a clipped sum by more than the clip norm: nothing may be claimed of such a step.

    Attributes:
        ratio: The movement over the clip norm.
    """

    def __init__(self, ratio: float) -> None:
        super().__init__(
            f"one record moves a clipped sum by {ratio:.3g} clip norms, at most 1 is allowed: the loss or the model "
            "couples records, no privacy can be claimed; use the profile private"
        )
        self.ratio = ratio


def sensitivity(
    sum_of: SumOf, groups: Sequence[Group], features: Tensor, labels: Tensor, units: Tensor | None = None
) -> float:
    """Return the largest movement of a step's clipped sum by leaving out one unit, over the clip norm of its group.

    Each group is held to its own norm: groups may have noise of different multipliers, and what one does not use of its
    norm buys the other nothing. Where no group moves by more than its norm C_g, the sum over the groups of
    (movement / (z_g C_g))^2 is at most that of z_g^-2, which is what is accounted.

    Args:
        sum_of: The step.
        groups: What it clips together.
        features: float32[B, D], the records of the step.
        labels: int64[B].
        units: int64[B], the unit of each record; None where each is one.
    """
    each = torch.arange(len(labels), device=labels.device) if units is None else units
    norms = torch.tensor([group.clip_norm for group in groups])
    whole = _by_group(sum_of(features, labels, units))
    largest = 0.0
    for left_out in torch.unique(each):
        rest = each != left_out
        without = _by_group(sum_of(features[rest], labels[rest], None if units is None else units[rest]))
        moved = torch.stack([(a - b).norm().cpu() for a, b in zip(whole, without, strict=True)])
        ratio = float((moved / norms).max())
        largest = max(largest, ratio if np.isfinite(ratio) else float("inf"))
    return largest


def require_sensitivity(
    sum_of: SumOf, groups: Sequence[Group], features: Tensor, labels: Tensor, units: Tensor | None = None
) -> None:
    """Refuse a step that one unit moves too far; arguments as of `sensitivity`.

    Raises:
        SensitivityError: The movement is above the bound.
    """
    ratio = sensitivity(sum_of, groups, features, labels, units)
    if not ratio <= 1 + SLACK:
        raise SensitivityError(ratio)


def made_up_records(embed_dim: int, num_classes: int, count: int = 12) -> tuple[Tensor, Tensor]:
    """Return features float32[count, D] of unit length and labels: nobody's; near ones of one class, and one apart."""
    generator = torch.Generator().manual_seed(20)
    common = torch.randn(1, embed_dim, generator=generator)
    features = common + 0.1 * torch.randn(count, embed_dim, generator=generator)
    features[-1] = -common[0]
    labels = torch.zeros(count, dtype=torch.int64)
    labels[-1] = num_classes - 1
    return torch.nn.functional.normalize(features, dim=1), labels


def _by_group(summed: ClippedSum) -> list[Tensor]:
    return [torch.cat([gradient.reshape(-1) for gradient in group]) for group in summed.gradients]
