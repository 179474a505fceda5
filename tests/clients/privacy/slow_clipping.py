"""The losses of single images under autograd, and clipped sums made from them one backward pass a unit: an oracle."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clients.method import losses
from clients.method.model import HospitalModel
from clients.privacy.clipping import ClippedSum, Group
from clients.privacy.step import refuse_coupling

ExampleLosses = Callable[[Tensor, Tensor], Tensor]
"""(features float32[B, D], labels int64[B]) to float32[B]: each entry a function of its own example alone."""

EPSILON = 1e-6
"""Added to norms before dividing by them, so that float32 rounding does not lift a clipped norm above the clip."""


def example_losses(model: HospitalModel, *, fam_alone: bool = False) -> ExampleLosses:
    """Return the losses float32[B] of features float32[B, D] of unit length and their labels int64[B].

    The mean of them is `model.loss` without class weights.

    Args:
        model: Whose.
        fam_alone: Leave the MLP out: what remains depends on the FAM and nothing else that is trained.

    Raises:
        SettingsError: The settings couple the examples of a batch.
    """
    settings = model.settings
    without_mlp = fam_alone or model.mlp is None
    refuse_coupling(settings, with_mlp=not without_mlp)

    def of_fam(similarities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = model.fam_logits(similarities)
        return logits, losses.classification_loss(logits, labels, settings.label_smoothing)

    def alone(features: Tensor, labels: Tensor) -> Tensor:
        return of_fam(model.fam(features) @ model.text_features.T, labels)[1]

    def together(features: Tensor, labels: Tensor) -> Tensor:
        _, similarities, mlp_logits = model(features)
        fam_logits, per_example = of_fam(similarities, labels)
        per_example = per_example + losses.classification_loss(mlp_logits, labels, settings.label_smoothing)
        if settings.distillation == "off" or not settings.distillation_strength:
            return per_example
        return per_example + settings.distillation_strength * losses.per_example_distillation(
            mlp_logits,
            fam_logits,
            temperature=settings.distillation_temperature,
            adaptive=settings.distillation_weight == "adaptive",
        )

    return alone if without_mlp else together


def unit_by_unit_sum(
    groups: Sequence[Group], entries: ExampleLosses, features: Tensor, labels: Tensor, units: Tensor
) -> ClippedSum:
    """Return the sum over units of the clipped sum of the unit's gradients, one backward pass a unit.

    With one example a unit it is the slow loop that ghost clipping is tested against; with all images of a patient as
    a unit it is patient-level clipping.

    Args:
        groups: What is trained and its clip norms.
        entries: Per-example losses.
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
        gradients = torch.autograd.grad(entries(features[rows], labels[rows]).sum(), parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        if not all(bool(torch.isfinite(g).all()) for g in filled):
            zeroed += 1
            continue
        rest = iter(filled)
        for group, total in zip(groups, totals, strict=True):
            own = [next(rest) for _ in group.parameters]
            norm = torch.stack([g.double().norm() for g in own]).norm()
            factor = (group.clip_norm / (norm + EPSILON * group.clip_norm)).clamp(max=1.0).float()
            for sum_so_far, gradient in zip(total, own, strict=True):
                sum_so_far.add_(factor * gradient)
    return ClippedSum(tuple(tuple(total) for total in totals), len(found), zeroed)
