"""The masked linear layers without autograd: forward and backward pass of one step in memory of their own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from clients.method.lean.compiled import CompiledMask, is_compiled

sign_times = torch.ops.aten.leaky_relu_backward.grad_input
"""(share, weight, -1, False) gives share where the weight is positive and -share elsewhere, in one pass."""


def product(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """Return a @ b written to `out`, for one hospital (matrices) or K of them (float[K, n, m])."""
    return torch.mm(a, b, out=out) if a.dim() == 2 else torch.bmm(a, b, out=out)


def add_product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Add a @ b to `out`; shapes as of `product`."""
    if a.dim() == 2:
        torch.addmm(out, a, b, out=out)
    else:
        torch.baddbmm(out, a, b, out=out)


@dataclass(frozen=True)
class Block:
    """Some rows of a layer's weights.

    Attributes:
        rows: Which.
        weight: float[..., r, in], a view of them.
        gradient: float[..., r, in], where their gradient goes.
        use: Called when it is there, as the layer's backward pass ends; blocks may then share the memory. None keeps
            it.
        absorb: Called in place of `use` with the straight-through factor float[..., r] of each row, when `gradient`
            holds the product alone; None where that factor times the sign of the weight is to be in `gradient` before
            `use` is called.
    """

    rows: slice
    weight: Tensor
    gradient: Tensor
    use: Callable[[], None] | None = None
    absorb: Callable[[Tensor], None] | None = None


@dataclass(frozen=True)
class LinearTensors:
    """Parameters of a linear layer and where their gradients go.

    Shapes: `weight` float[..., out, in], `bias` float[..., out]; `to_bias` alike. `...` is nothing for one hospital
        and [K] for K hospitals side by side. `blocks` are all rows of the weight, in order.
    """

    weight: Tensor
    bias: Tensor
    to_bias: Tensor
    blocks: Sequence[Block]


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
        if to_input is not None:
            product(gradient, t.weight[..., : to_input.shape[-1]], to_input)
        for block in t.blocks:
            product(gradient[..., block.rows].mT, x, block.gradient)
            if block.use is not None:
                block.use()


def affine(tensors: LinearTensors, x: Tensor, out: Tensor) -> Tensor:
    """Return x W^T + b written to `out`."""
    if x.dim() == 2:
        return torch.addmm(tensors.bias, x, tensors.weight.T, out=out)
    return torch.baddbmm(tensors.bias.unsqueeze(-2), x, tensors.weight.mT, out=out)


@dataclass(frozen=True)
class LayerMask:
    """One layer's part of `Masks`, as views: `keep` float[..., 1, out], `slope` and `share` float[..., out]."""

    keep: Tensor
    slope: Tensor
    share: Tensor


class Masks:
    """The keep masks of all layers of a model and the slopes of their straight-through gradient, computed at once.

    Args:
        layers: The blocks of each layer's weights; their gradient memory is overwritten.
        thresholds: Those of all layers, one layer after the other, and where their gradients go: float[..., r] each.
        window: Width of the sigmoid behind the straight-through gradient.
        totals: float[r] of all layers, the sums of |w| over each row, where whoever moves the weights keeps them up to
            date; None to have them computed here.
    """

    def __init__(
        self,
        layers: Sequence[Sequence[Block]],
        thresholds: Sequence[tuple[Tensor, Tensor]],
        window: float,
        totals: Tensor | None = None,
    ) -> None:
        self._window, self._totals = window, totals
        first = layers[0][0].weight
        self._inputs = torch.cat(
            [first.new_full((block.weight.shape[-2],), block.weight.shape[-1]) for b in layers for block in b]
        )
        shape = (5, *first.shape[:-2], len(self._inputs))
        self._distance, self._keep, self._slope, self._per_weight, self._share = first.new_empty(shape).unbind()
        self.layers: list[LayerMask] = []
        self._sums: list[tuple[Tensor, Tensor, Tensor]] = []
        end = 0
        for blocks in layers:
            start = end
            for block in blocks:
                here = slice(end, end + block.weight.shape[-2])
                self._sums.append((block.weight, block.gradient, self._distance[..., here]))
                end = here.stop
            mine = (..., slice(start, end))
            keep = self._keep[mine].unsqueeze(-2)
            self.layers.append(LayerMask(keep, self._per_weight[mine], self._share[mine]))
        self._thresholds: list[tuple[Tensor, Tensor]] = []
        self._gradients: list[tuple[Tensor, Tensor, Tensor]] = []
        end = 0
        for threshold, gradient in thresholds:
            place = (..., slice(end, end + threshold.shape[-1]))
            self._thresholds.append((self._distance[place], threshold))
            self._gradients.append((self._share[place], self._slope[place], gradient))
            end += threshold.shape[-1]

    def update(self) -> None:
        """Compute masks and slopes of the weights and thresholds as they are now."""
        if self._totals is None:
            for weight, memory, total in self._sums:
                sum_of_rows(weight, memory, total)
        torch.div(self._distance if self._totals is None else self._totals, self._inputs, out=self._distance)
        for distance, threshold in self._thresholds:
            distance.sub_(threshold)
        torch.ge(self._distance, 0, out=self._keep)
        soft = self._distance.div_(self._window).sigmoid_()
        torch.addcmul(soft, soft, soft, value=-1, out=self._slope).div_(self._window)
        torch.div(self._slope, self._inputs, out=self._per_weight)

    def write_threshold_gradients(self) -> None:
        """Write the gradients of all thresholds, once every layer has written its share."""
        for share, slope, gradient in self._gradients:
            torch.mul(share, slope, out=gradient).neg_()


def sum_of_rows(weight: Tensor, memory: Tensor, out: Tensor) -> None:
    """Write the sums of |w| over each row of float[..., r, in] to `out` float[..., r]; `memory` is overwritten."""
    torch.sum(torch.abs(weight, out=memory), -1, out=out)


class MaskedStep:
    """y = (x W^T + b) * m, or (x W^T) * m + b, and its straight-through gradient (clients.method.masked_linear).

    The same function as `MaskedLinear` under autograd, which is its oracle in the tests, but for a weight that is 0
    to the last bit: of the derivatives of |w| there, -1 is taken and not 0.

    Args:
        tensors: Parameters and gradients.
        mask: The layer's mask; updated before `forward`.
        rows: Images B of a step.
        mask_bias: Whether a row that is switched off loses its bias.
        output: float[..., B, out] to write y to; None for memory of its own.
    """

    def __init__(
        self, tensors: LinearTensors, mask: LayerMask, rows: int, mask_bias: bool, output: Tensor | None = None
    ) -> None:
        weight = tensors.weight
        *lead, outputs, _ = weight.shape
        self._tensors, self._mask, self._mask_bias = tensors, mask, mask_bias
        self._bias_row = tensors.bias.unsqueeze(-2)
        self._linear, self._kept = weight.new_empty(2, *lead, rows, outputs).unbind()
        self._factor = weight.new_empty(*lead, outputs)
        self.output = weight.new_empty(*lead, rows, outputs) if output is None else output
        self._compiled = None
        if mask_bias and not lead and is_compiled(weight.device):
            self._product = weight.new_empty(outputs, rows)
            self._compiled = CompiledMask(self._product, tensors.bias, mask.keep, self._linear, self.output)
        self._blocks = [
            (
                block,
                self._factor[..., block.rows],
                self._factor[..., block.rows].unsqueeze(-1).expand_as(block.weight),
                self._kept[..., block.rows].mT,
            )
            for block in tensors.blocks
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Return y."""
        if self._compiled is not None:
            torch.mm(self._tensors.weight, x.T, out=self._product)
            self._compiled()
            return self.output
        if self._mask_bias:
            affine(self._tensors, x, self._linear)
            return torch.mul(self._linear, self._mask.keep, out=self.output)
        product(x, self._tensors.weight.mT, self._linear)
        return torch.mul(self._linear, self._mask.keep, out=self.output).add_(self._bias_row)

    def backward(self, gradient: Tensor, x: Tensor, to_input: Tensor | None = None) -> None:
        """Write the gradients."""
        t, mask = self._tensors, self._mask
        kept = torch.mul(gradient, mask.keep, out=self._kept)
        torch.sum(kept if self._mask_bias else gradient, -2, out=t.to_bias)
        torch.sum(self._linear.mul_(gradient), -2, out=mask.share)
        torch.mul(mask.share, mask.slope, out=self._factor)
        if to_input is not None:
            product(kept, t.weight[..., : to_input.shape[-1]], to_input)
        for block, factor, factors, columns in self._blocks:
            if block.absorb is not None:
                product(columns, x, block.gradient)
                block.absorb(factor)
                continue
            sign_times(factors, block.weight, -1.0, False, grad_input=block.gradient)
            add_product(columns, x, block.gradient)
            if block.use is not None:
                block.use()


def reset_thresholds(weight: Tensor, threshold: Tensor, keep_ratio: float) -> None:
    """Set the thresholds of a layer back to 0 if at most this share of its rows is kept.

    Shapes: weight float[..., out, in], threshold float[..., out]. Nothing waits for the device.
    """
    kept = (weight.abs().mean(-1) >= threshold).to(weight.dtype).mean(-1, keepdim=True)
    threshold.mul_((kept > keep_ratio).to(weight.dtype))
