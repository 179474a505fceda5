"""The clipped sum of a private step with canaries in it: rows whose gradient is far too long, for the step to clip."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from clients.privacy.clipping import Group
from clients.privacy.ghost import Ghost, Units
from clients.privacy.step import GhostStep, LeanClipping

_LENGTH = 1e3
"""Of a canary's gradient in each clipping group, in clip norms, before the step clips it."""


class CanaryClipping(LeanClipping):
    """The clipped sum of the training, in which a row of the label -1 - k is canary k; arguments as of `LeanClipping`.

    A canary is a unit of its own. In place of what the model makes of its row, its gradient is `_LENGTH` clip norms on
    the k-th number of each clipping group that has so many, and nothing elsewhere. It is cut into chunks, measured,
    clipped and summed with all others; what tells the norm of a gradient in each layer it does not pass.
    """

    def _step(self, rows: int) -> GhostStep:
        model = self._model
        planted = [_Planted(*part) for part in zip(self._groups, self._in_order, strict=True)]
        names = [f"canaries.{place}" for place in range(len(planted))]
        self._group_of |= {name: place for place, name in enumerate(names)}
        step = _CanaryStep(self._tensors(), model.text_features, model.logit_scale, model.settings, rows, self._centres)
        step.add(dict(zip(names, planted, strict=True)))
        return step


class _Planted:
    """What canaries add to one clipping group; a ghost of no layer.

    Args:
        group: The group.
        gradients: Memory for the gradients of its parameters.
    """

    def __init__(self, group: Group, gradients: Sequence[Tensor]) -> None:
        self._length, self._gradients = _LENGTH * group.clip_norm, gradients
        self._size = sum(gradient.numel() for gradient in gradients)

    def plant(self, labels: Tensor) -> None:
        """Take in the labels int64[B] of a step's rows."""
        self._places = -1 - labels
        there = (self._places >= 0) & (self._places < self._size)
        self._lengths = torch.where(there, self._length, 0.0)

    def squared_norms(self, units: Units) -> Tensor:
        """Return float[B]."""
        return units.sum(self._lengths.square().unsqueeze(-1)).squeeze(-1)

    def leave_out(self, rows: Tensor) -> None:
        """Forget some rows."""
        self._lengths.masked_fill_(rows, 0.0)

    def write(self, factors: Tensor) -> None:
        """Clip; `add` writes, once all layers have written."""
        self._lengths.mul_(factors)

    def add(self) -> None:
        """Add the clipped gradients to those of the other rows."""
        start = 0
        for gradient in self._gradients:
            here = (self._places >= start) & (self._places < start + gradient.numel())
            gradient.view(-1).index_add_(0, self._places[here] - start, self._lengths[here].to(gradient.dtype))
            start += gradient.numel()


class _CanaryStep(GhostStep):
    """The step of the training, with ghosts of canaries beside those of its layers."""

    def add(self, planted: dict[str, _Planted]) -> None:
        """Take in the canaries, once."""
        self._layers: list[Ghost] = list(self.ghosts.values())
        self._planted = list(planted.values())
        self.ghosts |= planted

    def save(self, features: Tensor, labels: Tensor) -> None:
        super().save(features, labels.clamp(min=0))
        for layer in self._layers:
            layer.leave_out(labels < 0)
        for planted in self._planted:
            planted.plant(labels)

    def write(self, factors: Mapping[str, Tensor]) -> None:
        super().write(factors)
        for planted in self._planted:
            planted.add()
