"""The norms behind the private MLP's layers without autograd."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_EPSILON = 1e-5
"""As in torch.nn.LayerNorm, GroupNorm and BatchNorm1d."""

_MOMENTUM = 0.1
"""As in torch.nn.BatchNorm1d."""

_aten = torch.ops.aten


@dataclass(frozen=True)
class NormTensors:
    """Weights of a norm float[..., W] and where their gradients go; the statistics of a batch norm too."""

    weight: Tensor
    bias: Tensor
    to_weight: Tensor
    to_bias: Tensor
    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    batches: Tensor | None = None


@dataclass(frozen=True)
class Rows:
    """Which rows of a step are images; the others fill up the batch of a hospital that has fewer.

    Attributes:
        valid: float[..., B, 1], 1 or 0; None where every row is an image.
        count: float[..., 1] images of each hospital, or their number.
    """

    valid: Tensor | None
    count: Tensor | int


class NormStep(Protocol):
    """Forward and backward pass of a norm."""

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """Return the normed float[..., B, W]."""
        ...

    def backward(self, gradient: Tensor, rows: Rows) -> Tensor:
        """Write the gradients of the weights and return that of x."""
        ...


class NoNorm:
    """Changes nothing."""

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """Return x."""
        del rows
        return x

    def backward(self, gradient: Tensor, rows: Rows) -> Tensor:
        """Return the gradient."""
        del rows
        return gradient


class Standardise:
    """Mean 0 and variance 1 over the last axis, without weights."""

    def __init__(self) -> None:
        self._saved: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised x."""
        y, mean, scale = torch.native_layer_norm(x, x.shape[-1:], None, None, _EPSILON)
        self._saved = x, mean, scale
        return y

    def backward(self, gradient: Tensor) -> Tensor:
        """Return the gradient of x."""
        assert self._saved is not None  # noqa: S101 (forward came first)
        x, mean, scale = self._saved
        to_x: Tensor = _aten.native_layer_norm_backward(
            gradient, x, x.shape[-1:], mean, scale, None, None, [True, False, False]
        )[0]
        return to_x


class PerImageNorm:
    """Layer norm (one group) or group norm, with weights.

    Args:
        tensors: Weights and gradients.
        groups: Number of groups.
    """

    def __init__(self, tensors: NormTensors, groups: int) -> None:
        self._tensors, self._groups = tensors, groups
        self._standardise = Standardise()
        self._normed: Tensor | None = None

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """Return the normed float[..., B, W]."""
        del rows
        normed = self._standardise.forward(_grouped(x, self._groups)).flatten(-2)
        self._normed = normed
        return torch.addcmul(self._tensors.bias.unsqueeze(-2), normed, self._tensors.weight.unsqueeze(-2))

    def backward(self, gradient: Tensor, rows: Rows) -> Tensor:
        """Write the gradients of the weights and return that of x."""
        del rows
        assert self._normed is not None  # noqa: S101 (forward came first)
        t = self._tensors
        torch.sum(gradient, -2, out=t.to_bias)
        torch.sum(self._normed.mul_(gradient), -2, out=t.to_weight)
        self._normed = None  # not kept beside those of another step
        inner = _grouped(gradient * t.weight.unsqueeze(-2), self._groups)
        return self._standardise.backward(inner).flatten(-2)


class LayerNorm:
    """Layer norm with weights, of one hospital.

    Args:
        tensors: Weights float[W] and gradients.
    """

    def __init__(self, tensors: NormTensors) -> None:
        self._tensors = tensors
        self._saved: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """Return the normed float[B, W]."""
        del rows
        t = self._tensors
        y, mean, scale = torch.native_layer_norm(x, x.shape[-1:], t.weight, t.bias, _EPSILON)
        self._saved = x, mean, scale
        return y

    def backward(self, gradient: Tensor, rows: Rows) -> Tensor:
        """Write the gradients of the weights and return that of x."""
        del rows
        assert self._saved is not None  # noqa: S101 (forward came first)
        (x, mean, scale), t = self._saved, self._tensors
        to_x: Tensor
        to_x, to_weight, to_bias = _aten.native_layer_norm_backward(
            gradient, x, x.shape[-1:], mean, scale, t.weight, t.bias, [True, True, True]
        )
        t.to_weight.copy_(to_weight)
        t.to_bias.copy_(to_bias)
        return to_x


class OneBatchNorm:
    """Batch norm in training, of one hospital whose rows are all images: torch's own, in two calls.

    Args:
        tensors: Weights float[W], gradients and running statistics.
    """

    def __init__(self, tensors: NormTensors) -> None:
        self._tensors = tensors
        self._saved: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """Return the normed float[B, W]."""
        del rows
        t = self._tensors
        assert t.batches is not None  # noqa: S101 (a batch norm has them)
        y, mean, scale = torch.native_batch_norm(
            x, t.weight, t.bias, t.running_mean, t.running_var, True, _MOMENTUM, _EPSILON
        )
        t.batches.add_(1)
        self._saved = x, mean, scale
        return y

    def backward(self, gradient: Tensor, rows: Rows) -> Tensor:
        """Write the gradients of the weights and return that of x."""
        del rows
        assert self._saved is not None  # noqa: S101 (forward came first)
        (x, mean, scale), t = self._saved, self._tensors
        to_x: Tensor
        to_x, to_weight, to_bias = _aten.native_batch_norm_backward(
            gradient, x, t.weight, t.running_mean, t.running_var, mean, scale, True, _EPSILON, [True, True, True]
        )
        t.to_weight.copy_(to_weight)
        t.to_bias.copy_(to_bias)
        return to_x


class BatchNorm:
    """Batch norm in training: statistics over the images of a step, running statistics moved along.

    For hospitals side by side, of which some have rows that are no images.

    Args:
        tensors: Weights, gradients and running statistics.
    """

    def __init__(self, tensors: NormTensors) -> None:
        self._tensors = tensors
        self._saved: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """Return the normed float[..., B, W]."""
        t = self._tensors
        assert t.running_mean is not None  # noqa: S101 (a batch norm has them)
        assert t.running_var is not None  # noqa: S101
        assert t.batches is not None  # noqa: S101
        mean = _valid(x, rows).sum(-2) / rows.count
        centred = x - mean.unsqueeze(-2)
        variance = _valid(centred * centred, rows).sum(-2) / rows.count
        scale = (variance + _EPSILON).rsqrt().unsqueeze(-2)
        t.running_mean.lerp_(mean, _MOMENTUM)
        t.running_var.lerp_(variance * (rows.count / (rows.count - 1)), _MOMENTUM)
        t.batches.add_(1)
        normed = centred.mul_(scale)
        self._saved = normed, scale
        return torch.addcmul(t.bias.unsqueeze(-2), normed, t.weight.unsqueeze(-2))

    def backward(self, gradient: Tensor, rows: Rows) -> Tensor:
        """Write the gradients of the weights and return that of x."""
        assert self._saved is not None  # noqa: S101 (forward came first)
        (normed, scale), t = self._saved, self._tensors
        torch.sum(gradient, -2, out=t.to_bias)
        torch.sum(gradient * normed, -2, out=t.to_weight)
        mean = (t.to_bias / rows.count * t.weight).unsqueeze(-2)
        slope = (t.to_weight / rows.count * t.weight).unsqueeze(-2)
        to_x = (gradient * t.weight.unsqueeze(-2) - mean).addcmul_(normed, slope, value=-1).mul_(scale)
        self._saved = None  # not kept beside those of another step
        return _valid(to_x, rows)


def _grouped(x: Tensor, groups: int) -> Tensor:
    return x.view(*x.shape[:-1], groups, -1)


def _valid(x: Tensor, rows: Rows) -> Tensor:
    return x if rows.valid is None else x * rows.valid
