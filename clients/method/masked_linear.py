"""A linear layer that learns which of its rows to keep."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def keep_mask(weight: Tensor, threshold: Tensor) -> Tensor:
    """Return float[out]: 1 for rows whose mean absolute weight reaches their threshold, 0 for the others.

    Shapes: weight float[out, in], threshold float[out].
    """
    return (weight.abs().mean(1) >= threshold).to(weight.dtype)


class _MaskedRows(torch.autograd.Function):
    """y = (x W^T) * m, or (x W^T + b) * m, with the straight-through gradient of m = [mean_j |W_ij| >= k_i].

    One function instead of a chain of them, so that the large gradient, that of W, is made in one place. Nothing is
    changed in place, so that `torch.func.vmap` and `torch.func.grad` work.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        threshold: Tensor,
        window: float,
    ) -> tuple[Tensor, ...]:
        distance = weight.abs().mean(1) - threshold
        keep = (distance >= 0).to(weight.dtype)
        linear = nn.functional.linear(x, weight, bias)
        soft = torch.sigmoid(distance / window)
        slope = soft * (1 - soft) / window
        return linear * keep, linear, keep, slope

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, _, _ = inputs
        _, linear, keep, slope = output
        ctx.mark_non_differentiable(linear, keep, slope)
        ctx.save_for_backward(x, weight, linear, keep, slope)
        ctx.has_bias = bias is not None
        ctx.needs_x = ctx.needs_input_grad[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, linear, keep, slope = ctx.saved_tensors
        kept = gradient * keep
        to_distance = (gradient * linear).sum(0) * slope
        share = (to_distance / weight.shape[1])[:, None]
        to_weight = (kept.T @ x).addcmul(weight.sign(), share)
        to_x = kept @ weight if ctx.needs_x else None
        return to_x, to_weight, kept.sum(0) if ctx.has_bias else None, -to_distance, None


class MaskedLinear(nn.Module):
    """y = (W * m) x + b * m with one learnable threshold k per output row, m_i = [mean_j |W_ij| >= k_i].

    Shapes: input float[B, in], output float[B, out]. Thresholds start at 0, so that all rows are kept. Whole rows are
    switched off, so masking the rows of W equals masking the entries of W x: that is what is computed. The derivative
    of the step with respect to the distance u - k, which is 0 almost everywhere, is replaced by the slope of the
    function sigmoid((u - k) / window), a straight-through estimator; it reaches k and, through u = mean_j |W_ij|,
    also W.

    Paper: section "Masked MLP". The reference code has a step at 0.01 whose gradient is 0 for |u - k| <= 1, so that its
    thresholds never move, and keeps the bias of a row that is switched off (`mask_bias=False` does the latter).

    Args:
        inputs: Width of the input.
        outputs: Width of the output.
        window: Width of the sigmoid behind the straight-through gradient.
        mask_bias: Whether the bias is masked too.
        generator: Source of the initial weights and biases, uniform in +-1/sqrt(inputs).
        learned: Whether the thresholds are learned; if not they are 0 and no parameters, and the layer is a linear
            one: no row is switched off.
    """

    threshold: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        window: float,
        mask_bias: bool,
        generator: torch.Generator | None,
        learned: bool = True,
    ) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound, generator=generator))
        if learned:
            self.threshold = nn.Parameter(torch.zeros(outputs))
        else:
            self.register_buffer("threshold", torch.zeros(outputs), persistent=False)
        self.learned = learned
        self.window = window
        self.mask_bias = mask_bias
        self.held_mask: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return y."""
        if not self.learned:
            return nn.functional.linear(x, self.weight, self.bias)
        inside = self.bias if self.mask_bias else None
        if not torch.is_grad_enabled():  # the slopes of a backward pass are not wanted, nor what the mask leaves alone
            kept = nn.functional.linear(x, self.weight, inside).mul_(self._kept_rows())
            return kept if self.mask_bias else kept.add_(self.bias)
        y: Tensor = _MaskedRows.apply(x, self.weight, inside, self.threshold, self.window)[0]
        return y if self.mask_bias else y + self.bias

    @torch.no_grad()
    def keep_ratio(self) -> float:
        """Return the share of rows that are kept, in [0, 1]."""
        return self._kept_rows().mean().item()

    @torch.no_grad()
    def reset_if_at_most(self, keep_ratio: float) -> bool:
        """Set the thresholds back to 0 if at most this share of the rows is kept; return whether that was so."""
        if self.keep_ratio() > keep_ratio:
            return False
        self.threshold.zero_()
        return True

    def _kept_rows(self) -> Tensor:
        return keep_mask(self.weight, self.threshold) if self.held_mask is None else self.held_mask


@contextmanager
def masks_held(model: nn.Module) -> Iterator[None]:
    """Take the masks of all layers of a model once, for a block in which nothing is trained."""
    layers = [module for module in model.modules() if isinstance(module, MaskedLinear)]
    with torch.no_grad():
        for layer in layers:
            layer.held_mask = keep_mask(layer.weight, layer.threshold)
    try:
        yield
    finally:
        for layer in layers:
            layer.held_mask = None
