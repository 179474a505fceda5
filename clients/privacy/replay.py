"""A dynamic check: take a step again with one record left out, and see how far the clipped sum moves."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from clients.privacy.clipping import ClippedSum, Group

SLACK = 1e-3
"""Relative; rounding of float32 sums of records whose norms are many times the clip."""

SumOf = Callable[[Tensor, Tensor], ClippedSum]
"""(features float32[B, D], labels int64[B]) to the clipped sum of the step."""


class SensitivityError(Exception):
    """One record moved a clipped sum by more than the clip norm: nothing may be claimed of such a step.

    Attributes:
        ratio: The movement over the clip norm.
    """

    def __init__(self, ratio: float) -> None:
        super().__init__(
            f"one record moves the clipped sum by {ratio:.3g} clip norms, at most 1 is allowed: the loss or the model "
            "couples records, no privacy can be claimed; use the profile private"
        )
        self.ratio = ratio


def sensitivity(sum_of: SumOf, groups: Sequence[Group], features: Tensor, labels: Tensor) -> float:
    """Return the largest movement of a step's clipped sum by leaving out one record, over its bound.

    Args:
        sum_of: The step.
        groups: What it clips together; the bound is the root of the sum of their squared clip norms.
        features: float32[B, D], the records of the step.
        labels: int64[B].
    """
    bound = float(np.sqrt(sum(group.clip_norm**2 for group in groups)))
    whole = _flat(sum_of(features, labels))
    largest = 0.0
    for left_out in range(len(labels)):
        rest = torch.arange(len(labels), device=labels.device) != left_out
        moved = float((whole - _flat(sum_of(features[rest], labels[rest]))).norm())
        largest = max(largest, moved / bound if np.isfinite(moved) else float("inf"))
    return largest


def require_sensitivity(sum_of: SumOf, groups: Sequence[Group], features: Tensor, labels: Tensor) -> None:
    """Refuse a step that one record moves too far.

    Raises:
        SensitivityError: The movement is above the bound.
    """
    ratio = sensitivity(sum_of, groups, features, labels)
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


def _flat(summed: ClippedSum) -> Tensor:
    return torch.cat([gradient.reshape(-1) for group in summed.gradients for gradient in group])
