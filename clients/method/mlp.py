"""The private MLP: what a hospital learns for itself and never sends."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from clients.method.dropout import draw_ones
from clients.method.masked_linear import MaskedLinear
from clients.method.settings import TrainingSettings

_GROUPS = 32
"""Largest number of groups of a group norm; a width that it does not divide gets the greatest divisor below."""


class PrivateMlp(nn.Module):
    """Hidden layers of masked linear, norm, ReLU and dropout, then a masked linear layer to the class logits.

    Shapes: adapted float[B, D] and image float[B, D], both of unit length, to float[B, C].

    Paper: section "Private MLP" (three hidden layers of 512, batch norm). Departures: depth, norm, dropout and input
        are settings.

    Args:
        embed_dim: Width D of the features.
        num_classes: Number C of classes.
        settings: Shape of the MLP.
        generator: Source of the initial weights.
    """

    def __init__(
        self, embed_dim: int, num_classes: int, settings: TrainingSettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.input = settings.mlp_input
        self.dropout = settings.mlp_dropout
        inputs = 2 * embed_dim if self.input == "both" else embed_dim
        self.gain = settings.mlp_input_rms * embed_dim**0.5 if settings.mlp_input_rms else 1.0
        width = settings.mlp_width or embed_dim
        widths = [inputs] + [width] * settings.mlp_layers
        form = {
            "window": settings.threshold_window,
            "mask_bias": settings.mask_bias,
            "learned": settings.learn_thresholds,
            "generator": generator,
        }
        self.hidden = nn.ModuleList(
            MaskedLinear(a, b, **form)  # type: ignore[arg-type]
            for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(_norm(settings.mlp_norm, width) for _ in self.hidden)
        self.head = MaskedLinear(widths[-1], num_classes, **form)  # type: ignore[arg-type]

    def forward(self, adapted: Tensor, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the logits; in train mode dropout draws from `generator`."""
        if self.input == "both":
            x = torch.cat([adapted, image], dim=-1)
        else:
            x = adapted if self.input == "adapted" else image
        if self.gain != 1.0:
            x = x * self.gain
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            x = torch.relu(norm(layer(x)))
            if self.training and self.dropout:
                keep = 1.0 - self.dropout
                x = x * draw_ones(torch.empty_like(x), keep, generator).div_(keep)
        logits: Tensor = self.head(x)
        return logits


def group_count(width: int) -> int:
    """Return the number of groups of a group norm over a width."""
    return max(g for g in range(1, min(_GROUPS, width) + 1) if width % g == 0)


def _norm(name: str, width: int) -> nn.Module:
    if name == "none":
        return nn.Identity()
    if name == "layer":
        return nn.LayerNorm(width)
    if name == "group":
        return _GroupNorm(group_count(width), width)
    return nn.BatchNorm1d(width)


class _GroupNorm(nn.GroupNorm):
    """Takes a single image with groups of one entry too, which torch's own refuses: the entry becomes 0, then the bias.

    That is what it does to several such images.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
