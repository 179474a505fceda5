"""Ghost clipping by Opacus: the oracle of `clients.privacy.step.LeanClipping`, and a row of benchmarks/private_step.py.

Opacus does not know the masked linear layer. With a the layer's input, b the gradient that reaches its output, m its
mask, u = mean_j |W_ij| and s the slope that stands in for the step's derivative, one example has in row i

    dW_i = b_i m_i a + (g_i / I) sign(W_i),   dk_i = -g_i,   db_i = b_i m_i,   g_i = b_i (W_i a + b) s_i

and so ||dW_i||^2 = (b_i m_i)^2 ||a||^2 + 2 b_i m_i (g_i / I) (a . sign(W_i)) + (g_i / I)^2 ||sign(W_i)||^2.
"""

from collections.abc import Sequence

import torch
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
from opacus.grad_sample.utils import register_grad_sampler, register_norm_sampler
from torch import Tensor, nn
from torch.nn import functional as F

from clients.method.masked_linear import MaskedLinear
from clients.privacy.clipping import ClippedSum, Group
from tests.clients.privacy.slow_clipping import EPSILON, ExampleLosses

_ROUNDING = 4e-6
"""Added to a squared norm as a share of its terms' absolute values: above what float32 can lose, so that a norm is not
understated where the terms cancel."""


@register_norm_sampler(MaskedLinear)
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


@register_grad_sampler(MaskedLinear)
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


class GhostClipping:
    """Sums clipped per-example gradients without making them: two backward passes, the first for the norms alone.

    Paper: Goodfellow 2015 (arXiv 1510.01799); Li, Tramer, Liang, Hashimoto 2022 (arXiv 2110.05679), through Opacus'
    GradSampleModuleFastGradientClipping with samplers for the masked layer.

    Args:
        model: Hooks stay on it until `close`.
        groups: Disjoint; together they are what is trained. Other parameters must not require gradients.
    """

    def __init__(self, model: nn.Module, groups: Sequence[Group]) -> None:
        self._groups = tuple(groups)
        self._hooked = GradSampleModuleFastGradientClipping(
            model, loss_reduction="sum", strict=False, use_ghost_clipping=True
        )

    def close(self) -> None:
        """Take the hooks off the model."""
        self._hooked.remove_hooks()

    def __call__(self, losses: ExampleLosses, features: Tensor, labels: Tensor) -> ClippedSum:
        """Return the clipped sum over the examples of a batch, which may be empty.

        Args:
            losses: Per-example losses through the hooked model.
            features: float32[B, D].
            labels: int64[B].
        """
        finite = torch.isfinite(features).all(dim=1)
        kept = features[finite], labels[finite]
        while len(kept[0]):
            self._hooked.enable_hooks()
            # Backward hooks want an input that requires a gradient, also at the first layer.
            seen = kept[0].detach().requires_grad_()
            values = losses(seen, kept[1])
            torch.autograd.grad(values.sum(), seen, retain_graph=True)  # the hooks see the gradients pass
            self._hooked.disable_hooks()
            norms = [self._norms(group) for group in self._groups]
            good = torch.isfinite(values.detach()) & torch.stack([torch.isfinite(norm) for norm in norms]).all(dim=0)
            if good.all():
                gradients = tuple(self._sum(values, *part) for part in zip(self._groups, norms, strict=True))
                self._forget()
                return ClippedSum(gradients, len(features), len(features) - len(kept[0]))
            self._forget()
            kept = kept[0][good], kept[1][good]
        nothing = tuple(tuple(torch.zeros_like(p) for p in group.parameters) for group in self._groups)
        return ClippedSum(nothing, len(features), len(features))

    def _norms(self, group: Group) -> Tensor:
        norms: list[Tensor] = [vars(parameter)["_norm_sample"] for parameter in group.parameters]
        together: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        return together

    def _sum(self, values: Tensor, group: Group, norms: Tensor) -> tuple[Tensor, ...]:
        factors = (group.clip_norm / (norms + EPSILON * group.clip_norm)).clamp(max=1.0)
        weighted = (values * factors).sum()
        found = torch.autograd.grad(weighted, group.parameters, retain_graph=True, allow_unused=True)
        return tuple(torch.zeros_like(p) if g is None else g for p, g in zip(group.parameters, found, strict=True))

    def _forget(self) -> None:
        for group in self._groups:
            for parameter in group.parameters:
                parameter.grad = None
                vars(parameter).update(_norm_sample=None, grad_sample=None)


def clipped_sum(
    model: nn.Module, groups: Sequence[Group], losses: ExampleLosses, features: Tensor, labels: Tensor
) -> ClippedSum:
    """Return the clipped sum over examples float32[B, D], int64[B] by one use of `GhostClipping`."""
    clipping = GhostClipping(model, groups)
    try:
        return clipping(losses, features, labels)
    finally:
        clipping.close()
