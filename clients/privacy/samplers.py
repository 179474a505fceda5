"""Per-example gradients of the masked linear layer for Opacus: their norms without making them, and themselves.

With a the layer's input, b the gradient that reaches its output, m its mask, u = mean_j |W_ij| and s the slope that
stands in for the step's derivative, one example has in row i

    dW_i = b_i m_i a + (g_i / I) sign(W_i),   dk_i = -g_i,   db_i = b_i m_i,   g_i = b_i (W_i a + b) s_i

and so ||dW_i||^2 = (b_i m_i)^2 ||a||^2 + 2 b_i m_i (g_i / I) (a . sign(W_i)) + (g_i / I)^2 ||sign(W_i)||^2.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from clients.method.masked_linear import MaskedLinear
from clients.privacy.opacus_parts import register_grad_sampler, register_norm_sampler

_ROUNDING = 4e-6
"""Added to a squared norm as a share of its terms' absolute values: above what float32 can lose, so that a norm is not
understated where the terms cancel."""


@register_norm_sampler(MaskedLinear)  # type: ignore[untyped-decorator]
def masked_linear_norms(layer: MaskedLinear, activations: list[Tensor], backprops: Tensor) -> dict[Tensor, Tensor]:
    """Return {parameter: float32[B]}, the norms of the per-example gradients.

    Args:
        layer: The layer.
        activations: Its input float32[B, in], as the only entry.
        backprops: float32[B, out], the gradients of the examples' losses at its output.
    """
    a = activations[0]
    to_distance, keep = _through_the_step(layer, a, backprops)
    norms: dict[Tensor, Tensor] = {}
    if layer.weight.requires_grad:
        sign = layer.weight.sign()
        kept = (backprops * keep).double()
        share = to_distance.double() / layer.weight.shape[1]
        first = kept.square().sum(1) * a.double().square().sum(1)
        mixed = 2 * kept * share * (a @ sign.T)
        last = share.square() @ sign.abs().sum(1).double()
        slack = _ROUNDING * (first + mixed.abs().sum(1) + last)
        norms[layer.weight] = (first + mixed.sum(1) + last + slack).clamp_min(0).sqrt().float()
    if layer.bias.requires_grad:
        norms[layer.bias] = (backprops * keep if layer.mask_bias else backprops).norm(dim=1)
    if layer.learned and layer.threshold.requires_grad:
        norms[layer.threshold] = to_distance.norm(dim=1)
    return norms


@register_grad_sampler(MaskedLinear)  # type: ignore[untyped-decorator]
def masked_linear_gradients(layer: MaskedLinear, activations: list[Tensor], backprops: Tensor) -> dict[Tensor, Tensor]:
    """Return {parameter: float32[B, ...]}, the per-example gradients; arguments as above."""
    a = activations[0]
    to_distance, keep = _through_the_step(layer, a, backprops)
    gradients: dict[Tensor, Tensor] = {}
    if layer.weight.requires_grad:
        share = to_distance / layer.weight.shape[1]
        gradients[layer.weight] = torch.einsum("bo,bi->boi", backprops * keep, a) + torch.einsum(
            "bo,oi->boi", share, layer.weight.sign()
        )
    if layer.bias.requires_grad:
        gradients[layer.bias] = backprops * keep if layer.mask_bias else backprops
    if layer.learned and layer.threshold.requires_grad:
        gradients[layer.threshold] = -to_distance
    return gradients


@torch.no_grad()
def _through_the_step(layer: MaskedLinear, a: Tensor, backprops: Tensor) -> tuple[Tensor, Tensor]:
    """Return what reaches the step's argument u - k, float32[B, out], and the mask float32[out]."""
    if not layer.learned:
        return torch.zeros_like(backprops), backprops.new_ones(backprops.shape[1])
    distance = layer.weight.abs().mean(1) - layer.threshold
    keep = (distance >= 0).to(a.dtype)
    soft = torch.sigmoid(distance / layer.window)
    linear = F.linear(a, layer.weight, layer.bias if layer.mask_bias else None)
    return backprops * linear * (soft * (1 - soft) / layer.window), keep
