"""The masked linear layer without autograd: forward and backward pass of one step in memory of its own."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


def product(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """Return a @ b written to `out`, for one hospital (matrices) or K of them (float[K, n, m])."""
    return torch.mm(a, b, out=out) if a.dim() == 2 else torch.bmm(a, b, out=out)


@dataclass(frozen=True)
class LinearTensors:
    """Parameters of a linear layer and where their gradients go.

    Shapes: `weight` float[..., out, in], `bias` float[..., out]; the gradients alike. `...` is nothing for one hospital
        and [K] for K hospitals side by side.
    """

    weight: Tensor
    bias: Tensor
    to_weight: Tensor
    to_bias: Tensor


@dataclass(frozen=True)
class MaskedTensors(LinearTensors):
    """Those of a masked layer: thresholds float[..., out] and their gradients too."""

    threshold: Tensor
    to_threshold: Tensor


class LayerStep(Protocol):
    """Forward and backward pass of a layer."""

    output: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return y float[..., B, out] of x float[..., B, in]; it is overwritten by the next call."""
        ...

    def backward(self, gradient: Tensor, x: Tensor, to_input: Tensor | None = None) -> None:
        """Write the gradients of the parameters and, where it is given, of the first entries of x.

        Args:
            gradient: float[..., B, out], of the loss with respect to y.
            x: What `forward` was given.
            to_input: float[..., B, n], receives the gradient of x[..., :n].
        """
        ...


class LinearStep:
    """y = x W^T + b: a layer whose thresholds are not learned keeps all its rows.

    Args:
        tensors: Parameters and gradients.
        rows: Images B of a step.
        output: float[..., B, out] to write y to; None for memory of its own.
    """

    def __init__(self, tensors: LinearTensors, rows: int, output: Tensor | None = None) -> None:
        *lead, outputs, _ = tensors.weight.shape
        self._tensors = tensors
        self.output = tensors.weight.new_empty(*lead, rows, outputs) if output is None else output

    def forward(self, x: Tensor) -> Tensor:
        """Return y."""
        return affine(self._tensors, x, self.output)

    def backward(self, gradient: Tensor, x: Tensor, to_input: Tensor | None = None) -> None:
        """Write the gradients."""
        t = self._tensors
        torch.sum(gradient, -2, out=t.to_bias)
        product(gradient.mT, x, t.to_weight)
        if to_input is not None:
            product(gradient, t.weight[..., : to_input.shape[-1]], to_input)


def affine(tensors: LinearTensors, x: Tensor, out: Tensor) -> Tensor:
    """Return x W^T + b written to `out`."""
    if x.dim() == 2:
        return torch.addmm(tensors.bias, x, tensors.weight.T, out=out)
    return torch.baddbmm(tensors.bias.unsqueeze(-2), x, tensors.weight.mT, out=out)


class MaskedStep:
    """y = (x W^T + b) * m, or (x W^T) * m + b, and its straight-through gradient (clients.method.masked_linear).

    The same arithmetic as `MaskedLinear` under autograd, which is its oracle in the tests.

    Args:
        tensors: Parameters and gradients.
        rows: Images B of a step.
        window: Width of the sigmoid behind the straight-through gradient.
        mask_bias: Whether a row that is switched off loses its bias.
        scratch: float[..., out * in] or longer, overwritten; one for all layers.
        output: float[..., B, out] to write y to; None for memory of its own.
    """

    def __init__(
        self,
        tensors: MaskedTensors,
        rows: int,
        window: float,
        mask_bias: bool,
        scratch: Tensor,
        output: Tensor | None = None,
    ) -> None:
        weight = tensors.weight
        *lead, outputs, inputs = weight.shape
        self._tensors, self._window, self._mask_bias, self._inputs = tensors, window, mask_bias, inputs
        self._scratch = scratch[..., : outputs * inputs].view(*lead, outputs, inputs)
        self._bias_row = tensors.bias.unsqueeze(-2)
        self._distance, self._slope, self.keep, self._share = weight.new_empty(4, *lead, outputs).unbind()
        self._linear, self._kept, self._product = weight.new_empty(3, *lead, rows, outputs).unbind()
        self.output = weight.new_empty(*lead, rows, outputs) if output is None else output
        self._keep_row = self.keep.unsqueeze(-2)

    def forward(self, x: Tensor) -> Tensor:
        """Return y."""
        t = self._tensors
        torch.mean(torch.abs(t.weight, out=self._scratch), -1, out=self._distance)
        self._distance.sub_(t.threshold)
        torch.ge(self._distance, 0, out=self.keep)
        soft = self._distance.div_(self._window).sigmoid_()
        torch.addcmul(soft, soft, soft, value=-1, out=self._slope).div_(self._window)
        if self._mask_bias:
            affine(t, x, self._linear)
            return torch.mul(self._linear, self._keep_row, out=self.output)
        product(x, t.weight.mT, self._linear)
        return torch.mul(self._linear, self._keep_row, out=self.output).add_(self._bias_row)

    def backward(self, gradient: Tensor, x: Tensor, to_input: Tensor | None = None) -> None:
        """Write the gradients."""
        t = self._tensors
        kept = torch.mul(gradient, self._keep_row, out=self._kept)
        torch.sum(kept if self._mask_bias else gradient, -2, out=t.to_bias)
        torch.mul(gradient, self._linear, out=self._product)
        to_distance = torch.sum(self._product, -2, out=self._share).mul_(self._slope)
        torch.neg(to_distance, out=t.to_threshold)
        product(kept.mT, x, t.to_weight)
        share = to_distance.div_(self._inputs).unsqueeze(-1)
        t.to_weight.addcmul_(torch.sign(t.weight, out=self._scratch), share)
        if to_input is not None:
            product(kept, t.weight[..., : to_input.shape[-1]], to_input)


def reset_thresholds(weight: Tensor, threshold: Tensor, keep_ratio: float) -> None:
    """Set the thresholds of a layer back to 0 if at most this share of its rows is kept.

    Shapes: weight float[out, in], threshold float[out]. Nothing waits for the device.
    """
    kept = (weight.abs().mean(-1) >= threshold).to(weight.dtype).mean()
    threshold.mul_((kept > keep_ratio).to(weight.dtype))
