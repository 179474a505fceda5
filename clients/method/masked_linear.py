"""A linear layer that learns which of its rows to keep."""

from typing import Any

import torch
from torch import Tensor, nn


class _KeepStep(torch.autograd.Function):
    """1 where the distance to the threshold is not negative, else 0; backwards a sigmoid's slope (straight-through).

    `torch.func.vmap` and `torch.func.grad` work through it.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(distance: Tensor, window: float) -> Tensor:  # noqa: ARG004 (for the backward pass)
        return (distance >= 0).to(distance.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:  # noqa: ARG004 (torch names it)
        ctx.save_for_backward(inputs[0])
        ctx.window = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (distance,) = ctx.saved_tensors
        soft = torch.sigmoid(distance / ctx.window)
        return gradient * soft * (1 - soft) / ctx.window, None


def keep_mask(weight: Tensor, threshold: Tensor, window: float) -> Tensor:
    """Return float[out]: 1 for rows whose mean absolute weight reaches their threshold, 0 for the others.

    The derivative with respect to the distance u - k, which is 0 almost everywhere, is replaced by the slope of
    sigmoid((u - k) / window).

    Shapes: weight float[out, in], threshold float[out].
    """
    step: Tensor = _KeepStep.apply(weight.abs().mean(1) - threshold, window)
    return step


class MaskedLinear(nn.Module):
    """y = (W * m) x + b * m with one learnable threshold k per output row, m_i = [mean_j |W_ij| >= k_i].

    Shapes: input float[..., in], output float[..., out]. Thresholds start at 0, so that all rows are kept. Whole rows
        are switched off,
    so masking the rows of W equals masking the entries of W x: that is what is computed.

    Paper: section "Masked MLP". The reference code has m as a step at 0.01 without usable gradient, and keeps the
        bias of a row that is
    switched off (`mask_bias=False` does the latter).

    Args:
        inputs: Width of the input.
        outputs: Width of the output.
        window: Width of the sigmoid behind the straight-through gradient.
        mask_bias: Whether the bias is masked too.
        generator: Source of the initial weights and biases, uniform in +-1/sqrt(inputs).
    """

    def __init__(
        self, inputs: int, outputs: int, *, window: float, mask_bias: bool, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound, generator=generator))
        self.threshold = nn.Parameter(torch.zeros(outputs))
        self.window = window
        self.mask_bias = mask_bias

    def forward(self, x: Tensor) -> Tensor:
        """Return y."""
        keep = keep_mask(self.weight, self.threshold, self.window)
        if self.mask_bias:
            return nn.functional.linear(x, self.weight, self.bias) * keep
        return nn.functional.linear(x, self.weight) * keep + self.bias

    @torch.no_grad()
    def keep_ratio(self) -> float:
        """Return the share of rows that are kept, in [0, 1]."""
        return keep_mask(self.weight, self.threshold, self.window).mean().item()

    @torch.no_grad()
    def reset_if_at_most(self, keep_ratio: float) -> bool:
        """Set the thresholds back to 0 if at most this share of the rows is kept; return whether that was so."""
        if self.keep_ratio() > keep_ratio:
            return False
        self.threshold.zero_()
        return True
