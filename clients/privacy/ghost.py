"""Layers of the lean step that tell the norm of each unit's gradient before any gradient of a weight is made.

Each saves what one backward pass brings past it: the input a of the layer and the gradient b at its output. From these
follow the norms, and then the clipped sum as one product of a and reweighted b; there is no second backward pass.

    one image      ||b a^T||^2 = ||b||^2 ||a||^2
    one patient    ||sum_k b_k a_k^T||^2 = sum_kl (b_k . b_l) (a_k . a_l)

Paper: Goodfellow 2015 (arXiv 1510.01799); Li, Tramer, Liang, Hashimoto 2022 (arXiv 2110.05679), section 4.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from clients.method.lean.masked import (
    LayerMask,
    LinearStep,
    LinearTensors,
    MaskedStep,
    add_product,
    product,
    sign_times,
)
from clients.method.lean.norms import PerImageNorm, Rows

_ROUNDING = 4e-6
"""Added to a squared norm as a share of its terms' absolute values: above what float32 can lose where they cancel, so
that a norm is not understated."""


class Units:
    """Which rows of a step belong to the same unit of privacy.

    Args:
        rows: Number B of rows.
        places: int64[..., B], the unit of each row, all numbers from 0 to `count` - 1; None where each row is a unit.
        count: Number U of units.
    """

    def __init__(self, rows: int, places: Tensor | None = None, count: int = 0) -> None:
        self.count = rows if places is None else count
        self._places, self._flat = places, places
        self._apart = None if places is None else places.unsqueeze(-1) != places.unsqueeze(-2)
        if places is not None and places.dim() == 2:  # hospitals side by side
            first = count * torch.arange(len(places), device=places.device)
            self._flat = (places + first[:, None]).view(-1)

    def sum(self, values: Tensor) -> Tensor:
        """Return float[..., U, n], the sums of float[..., B, n] over the rows of each unit."""
        if self._flat is None:
            return values
        *lead, _, width = values.shape
        total = values.new_zeros(math.prod(lead) * self.count, width)
        return total.index_add_(0, self._flat, values.reshape(-1, width)).view(*lead, self.count, width)

    def spread(self, values: Tensor) -> Tensor:
        """Return [..., B], for each row the value [..., U] of its unit."""
        return values if self._places is None else values.gather(-1, self._places)

    def squared_norms(self, a: Tensor, b: Tensor) -> Tensor:
        """Return float[..., U], the squared norms of the units' sums of b_k a_k^T.

        Args:
            a: float[..., B, n].
            b: float[..., B, m].
        """
        rows = a.square().sum(-1) * b.square().sum(-1)
        if self._apart is None:
            return rows
        # Filled, not multiplied by 0: what is not finite in one unit must not reach another.
        products = ((a @ a.mT) * (b @ b.mT)).masked_fill_(self._apart, 0.0).sum(-1)
        parts = (products, rows.sqrt(), rows, torch.ones_like(rows))
        found, roots, alone, counts = (self.sum(part.unsqueeze(-1)).squeeze(-1) for part in parts)
        # Of one row as without units: whether another unit has several must not change what is clipped of this one.
        return torch.where(counts == 1, alone, (found + _ROUNDING * roots.square()).clamp_min_(0))


class Ghost(Protocol):
    """A layer whose part of the clipped sum is made after the norms are known."""

    def squared_norms(self, units: Units) -> Tensor:
        """Return float[..., U], the squared norms of the units' gradients of all parameters of the layer."""
        ...

    def leave_out(self, rows: Tensor) -> None:
        """Forget what passed of some rows, bool[..., B], finite or not; after `backward`."""
        ...

    def write(self, factors: Tensor) -> None:
        """Write the gradients with each row's part multiplied by float[..., B]; once after `squared_norms`."""
        ...


class GhostLinear(LinearStep):
    """A linear layer, y = x W^T + b.

    With a centre c the gradients are those with respect to W and b' in y = (x - c) W^T + b', with b' = b + W c: what
    all inputs have in common then takes nothing of the clip norm.

    Args:
        tensors, rows, output: As of `LinearStep`.
        centre: float[..., in] or None.
    """

    def __init__(
        self, tensors: LinearTensors, rows: int, output: Tensor | None = None, centre: Tensor | None = None
    ) -> None:
        super().__init__(tensors, rows, output)
        self._centre = None if centre is None else centre.unsqueeze(-2)

    def backward(self, gradient: Tensor, x: Tensor, to_input: Tensor | None = None) -> None:
        """Save what is needed and send the gradient on."""
        if to_input is not None:
            product(gradient, self._tensors.weight[..., : to_input.shape[-1]], to_input)
        self._saved = gradient, x if self._centre is None else x - self._centre

    def squared_norms(self, units: Units) -> Tensor:
        """Return float[..., U]."""
        b, a = self._saved
        return units.squared_norms(a, b) + units.sum(b).square().sum(-1)

    def leave_out(self, rows: Tensor) -> None:
        """Forget what passed of some rows."""
        _forget(rows, *self._saved)

    def write(self, factors: Tensor) -> None:
        """Write the gradients."""
        b, a = self._saved
        super().backward(b * factors.unsqueeze(-1), a)


class GhostMasked(MaskedStep):
    """A masked layer, whose thresholds and weights also get a straight-through gradient.

    One row has, in output i, with m the mask, g_i = b_i times the layer's output before it is masked, and s_i the slope
    that stands in for the derivative of m_i, over the number of inputs:

        dW_i = b_i m_i a + g_i s_i sign(W_i),   dk_i = -g_i s_i inputs,   the bias's b_i m_i.

    A weight that is 0 to the last bit counts as negative, as in `MaskedStep`, in the norm as in the sum.

    Args:
        tensors, mask, rows, mask_bias, output: As of `MaskedStep`; each block of weights has its gradient's memory for
            itself.
    """

    def __init__(
        self, tensors: LinearTensors, mask: LayerMask, rows: int, mask_bias: bool, output: Tensor | None = None
    ) -> None:
        super().__init__(tensors, mask, rows, mask_bias, output)
        self._one = self._kept.new_ones(())
        self._weighted, self._signed = torch.empty_like(self._kept), torch.empty_like(self._kept)

    def backward(self, gradient: Tensor, x: Tensor, to_input: Tensor | None = None) -> None:
        """Save what is needed and send the gradient on."""
        kept = torch.mul(gradient, self._mask.keep, out=self._kept)
        if to_input is not None:
            product(kept, self._tensors.weight[..., : to_input.shape[-1]], to_input)
        self._saved = gradient, x, self._linear.mul_(gradient)

    def squared_norms(self, units: Units) -> Tensor:
        """Return float[..., U]; the memory of the weights' gradients then holds their signs."""
        (b, a, through), kept, signed = self._saved, self._kept, self._signed
        for block in self._tensors.blocks:
            sign_times(self._one.expand_as(block.weight), block.weight, -1.0, False, grad_input=block.gradient)
            product(a, block.gradient.mT, signed[..., block.rows])
        inputs = a.shape[-1]
        shares = units.sum(through * self._mask.slope.unsqueeze(-2))
        mixed = shares * units.sum(signed.mul_(kept))
        first = units.squared_norms(a, kept).double()
        last = shares.square().sum(-1, dtype=torch.float64)
        slack = _ROUNDING * (first + 2 * mixed.abs().sum(-1) + inputs * last)
        weights = (first + 2 * mixed.sum(-1, dtype=torch.float64) + inputs * last + slack).clamp_min_(0)
        to_bias = units.sum(kept if self._mask_bias else b).square().sum(-1)
        return (weights + to_bias + inputs**2 * last).to(b.dtype)

    def leave_out(self, rows: Tensor) -> None:
        """Forget what passed of some rows."""
        _forget(rows, self._kept, *self._saved)

    def write(self, factors: Tensor) -> None:
        """Write the gradients but for those of the thresholds, which `Masks` writes for all layers."""
        (b, a, through), t, mask = self._saved, self._tensors, self._mask
        kept = torch.mul(self._kept, factors.unsqueeze(-1), out=self._weighted)
        if self._mask_bias:
            torch.sum(kept, -2, out=t.to_bias)
        else:
            _weighted_sum(b, factors, t.to_bias)
        _weighted_sum(through, factors, mask.share)
        torch.mul(mask.share, mask.slope, out=self._factor)
        for block in t.blocks:
            block.gradient.mul_(self._factor[..., block.rows].unsqueeze(-1))
            add_product(kept[..., block.rows].mT, a, block.gradient)


class GhostNorm(PerImageNorm):
    """Layer norm or group norm with weights."""

    def backward(self, gradient: Tensor, rows: Rows) -> Tensor:
        """Save what is needed and return the gradient of x."""
        assert self._normed is not None  # noqa: S101 (forward came first)
        self._saved = gradient * self._normed, gradient.clone()
        return super().backward(gradient, rows)

    def squared_norms(self, units: Units) -> Tensor:
        """Return float[..., U]."""
        return sum((units.sum(part).square().sum(-1) for part in self._saved), start=torch.zeros(()))

    def leave_out(self, rows: Tensor) -> None:
        """Forget what passed of some rows."""
        _forget(rows, *self._saved)

    def write(self, factors: Tensor) -> None:
        """Write the gradients."""
        to_weight, to_bias = self._saved
        torch.sum(to_weight * factors.unsqueeze(-1), -2, out=self._tensors.to_weight)
        torch.sum(to_bias * factors.unsqueeze(-1), -2, out=self._tensors.to_bias)


def _forget(rows: Tensor, *saved: Tensor) -> None:
    """Fill rows with 0: a factor of 0 would leave what is not finite as it is."""
    for tensor in saved:
        tensor.masked_fill_(rows.unsqueeze(-1), 0.0)


def _weighted_sum(rows: Tensor, factors: Tensor, out: Tensor) -> None:
    """Write the sum of float[..., B, n] over B, each row multiplied by float[..., B], to float[..., n]."""
    if rows.dim() == 2:
        torch.mv(rows.T, factors, out=out)
    else:
        out.copy_(torch.bmm(factors.unsqueeze(-2), rows).squeeze(-2))
