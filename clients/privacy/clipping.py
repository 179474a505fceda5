"""The clipped sum of a step: what one unit of privacy adds to it has a norm of at most the clip norm, always."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import clients.privacy.samplers  # noqa: F401 (Opacus learns about the masked layer)
from clients.method.masked_linear import MaskedLinear
from clients.privacy.opacus_parts import GradSampleModuleFastGradientClipping

ExampleLosses = Callable[[Tensor, Tensor], Tensor]
"""(features float32[B, D], labels int64[B]) to float32[B]: each entry a function of its own example alone."""

_EPSILON = 1e-6
"""Added to norms before dividing by them, so that float32 rounding does not lift a clipped norm above the clip."""


@dataclass(frozen=True)
class Group:
    """Parameters that are clipped together.

    Attributes:
        parameters: The parameters.
        clip_norm: L2 norm of what one unit may contribute to them.
    """

    parameters: tuple[nn.Parameter, ...]
    clip_norm: float


@dataclass(frozen=True)
class ClippedSum:
    """Sum over the units of a step of their clipped gradients.

    Privacy: its sensitivity to adding or removing one unit is `clip_norm` in each group, and the root of the sum of
    their squares over all. The counts are diagnostics about private data: they stay in the process.

    Attributes:
        gradients: For each group a tensor for each parameter.
        units: Units in the sum.
        zeroed: Units whose gradient was not finite and counted as zero.
    """

    gradients: tuple[tuple[Tensor, ...], ...]
    units: int
    zeroed: int


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
        self._layers = [module for module in model.modules() if isinstance(module, MaskedLinear)]
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
            self._for_the_norms(values, seen)
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

    def _for_the_norms(self, values: Tensor, seen: Tensor) -> None:
        """Send the gradients down to the features once: the hooks see them pass, no parameter's gradient is made."""
        for layer in self._layers:
            layer.wanted.weight_gradient = False
        try:
            torch.autograd.grad(values.sum(), seen, retain_graph=True)
        finally:
            for layer in self._layers:
                layer.wanted.weight_gradient = True

    def _norms(self, group: Group) -> Tensor:
        norms: list[Tensor] = [vars(parameter)["_norm_sample"] for parameter in group.parameters]
        together: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        return together

    def _sum(self, values: Tensor, group: Group, norms: Tensor) -> tuple[Tensor, ...]:
        factors = (group.clip_norm / (norms + _EPSILON * group.clip_norm)).clamp(max=1.0)
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


def unit_by_unit_sum(
    groups: Sequence[Group], losses: ExampleLosses, features: Tensor, labels: Tensor, units: Tensor
) -> ClippedSum:
    """Return the sum over units of the clipped sum of the unit's gradients, one backward pass a unit.

    With one example a unit it is the slow loop that ghost clipping is tested against; with all images of a patient as
    a unit it is patient-level clipping.

    Args:
        groups: What is trained and its clip norms.
        losses: Per-example losses.
        features: float32[B, D].
        labels: int64[B].
        units: int64[B], the unit that each example belongs to.
    """
    totals = [[torch.zeros_like(p) for p in group.parameters] for group in groups]
    zeroed = 0
    found = torch.unique(units)
    for unit in found:
        rows = units == unit
        parameters = [p for group in groups for p in group.parameters]
        gradients = torch.autograd.grad(losses(features[rows], labels[rows]).sum(), parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        if not all(bool(torch.isfinite(g).all()) for g in filled):
            zeroed += 1
            continue
        rest = iter(filled)
        for group, total in zip(groups, totals, strict=True):
            own = [next(rest) for _ in group.parameters]
            norm = torch.stack([g.double().norm() for g in own]).norm()
            factor = (group.clip_norm / (norm + _EPSILON * group.clip_norm)).clamp(max=1.0).float()
            for sum_so_far, gradient in zip(total, own, strict=True):
                sum_so_far.add_(factor * gradient)
    return ClippedSum(tuple(tuple(total) for total in totals), len(found), zeroed)
