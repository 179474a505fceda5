"""The losses of a step without autograd: their gradients with respect to the logits of both parts."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from clients.method.lean.norms import Rows
from clients.method.settings import TrainingSettings


@dataclass(frozen=True)
class Targets:
    """What the model should say of images.

    Attributes:
        labels: int64[..., B].
        rows: float[..., B, C], the probabilities that the cross entropies aim at.
        weights: float[..., B, 1]: the weight of each image in the first two terms, 0 for rows that are no image.
    """

    labels: Tensor
    rows: Tensor
    weights: Tensor


class LossGradients:
    """Gradients of the loss of clients.method.model.HospitalModel.loss.

    The logits of both parts lie in one tensor, so that softmax and entropy are computed for both at once.

    Args:
        settings: Losses.
        text_features: float[C, D].
        log_prior: float[..., C], log class frequencies of each hospital.
        logit_scale: Factor on cosines.
        with_mlp: Whether there is an MLP.
        like: float[..., B, D]; gives the shape and type.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        text_features: Tensor,
        log_prior: Tensor,
        logit_scale: float,
        with_mlp: bool,
        like: Tensor,
    ) -> None:
        self._settings, self._text, self._scale, self._with_mlp = settings, text_features, logit_scale, with_mlp
        *shape, _ = like.shape
        classes = len(text_features)
        self.logits = like.new_empty(1 + with_mlp, *shape, classes)
        """FAM and, where there is one, MLP: float[1 or 2, ..., B, C]."""
        self._similarities = like.new_empty(*shape, classes)
        self._prior = log_prior.unsqueeze(-2)  # a view: the next hospital at this memory has another prior
        self._to_adapted = torch.empty_like(like)
        distil = settings.distillation if with_mlp and settings.distillation_strength else "off"
        self._distillation = distil
        smoothing = settings.label_smoothing
        target = torch.eye(classes, dtype=like.dtype, device=like.device)
        self._rows_of_classes = target * (1 - smoothing) + smoothing / classes
        strength = settings.distillation_strength / settings.distillation_temperature
        self._ways = like.new_full((2, *[1] * like.dim()), strength)  # filled there: copied, it would be waited for
        self._ways[1].neg_()

    def targets(self, labels: Tensor, weights: Tensor) -> Targets:
        """Return the targets of images with labels int64[..., B] and weights float[..., B]."""
        return Targets(labels, self._rows_of_classes[labels], weights.unsqueeze(-1))

    def forward(self, adapted: Tensor) -> None:
        """Write the FAM's logits float[..., B, C] to `logits[0]`."""
        torch.matmul(adapted, self._text.T, out=self._similarities)
        adjustment = self._settings.prior_adjustment
        if adjustment == 1.0:
            torch.add(self._prior, self._similarities, alpha=self._scale, out=self.logits[0])
            return
        torch.mul(self._similarities, self._scale, out=self.logits[0])
        if adjustment:
            self.logits[0].add_(self._prior, alpha=adjustment)

    def backward(self, adapted: Tensor, targets: Targets, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """Return the gradients of I~ float[..., B, D] and of the MLP's logits float[..., B, C].

        Args:
            adapted: float[..., B, D].
            targets: What the model should say.
            rows: Which rows are images.
        """
        log_p = F.log_softmax(self.logits, -1)
        p = log_p.exp()
        gradient = (p - targets.rows).mul_(targets.weights)
        contrastive = self._settings.fam_loss == "contrastive"
        if contrastive:
            gradient[0].zero_()
        to_similarities = None
        if self._distillation == "per-example":
            self._per_example(gradient, log_p, p, rows)
        elif self._distillation == "class-wise":
            to_similarities = self._class_wise(gradient, log_p, p, rows)
        of_cosines = gradient[0].mul_(self._scale)
        if to_similarities is not None:
            of_cosines = of_cosines.add_(to_similarities)
        to_adapted = torch.matmul(of_cosines, self._text, out=self._to_adapted)
        if contrastive:
            to_adapted.add_(self._contrastive(adapted, targets, rows))
        return to_adapted, gradient[1] if self._with_mlp else None

    def _shares(self, log_p: Tensor, p: Tensor) -> Tensor:
        """H(FAM) and H(MLP) over their sum as float[2, ..., B, 1]; 1/2 each where both are 0, or where it is fixed."""
        if self._settings.distillation_weight != "adaptive":
            return torch.full_like(p[..., :1], 0.5)
        negative = (p * log_p).sum(-1, keepdim=True).sub_(torch.finfo(p.dtype).tiny)
        return negative.div_(negative.sum(0))

    def _per_example(self, gradient: Tensor, log_p: Tensor, p: Tensor, rows: Rows) -> None:
        """Add to the gradients of the logits: the FAM learns by its share, the MLP by the rest."""
        soft = torch.softmax(self.logits / self._settings.distillation_temperature, -1)
        shares = self._shares(log_p, p).mul_(self._ways)
        shares.div_(rows.count if isinstance(rows.count, int) else rows.count.unsqueeze(-1))
        if rows.valid is not None:
            shares.mul_(rows.valid)
        gradient.addcmul_(soft[0] - soft[1], shares)

    def _class_wise(self, gradient: Tensor, log_p: Tensor, p: Tensor, rows: Rows) -> Tensor:
        """Add to the gradient of the MLP's logits and return that of the cosines."""
        settings = self._settings
        both = torch.stack([self._similarities, self.logits[1]]).div_(settings.distillation_temperature)
        if rows.valid is not None:
            both.masked_fill_(rows.valid == 0, float("-inf"))
        log_soft = F.log_softmax(both, -2)
        soft = log_soft.exp()
        if rows.valid is not None:
            log_soft.masked_fill_(rows.valid == 0, 0.0)
        difference = log_soft[0] - log_soft[1]
        fam, mlp = soft * self._shares(log_p, p)
        to_log = torch.stack([fam * (difference + 1) - mlp, mlp * (1 - difference) - fam])
        factor = settings.distillation_strength / (len(self._text) * settings.distillation_temperature)
        to_both = (to_log - soft * to_log.sum(-2, keepdim=True)).mul_(factor)
        if rows.valid is not None:
            to_both.mul_(rows.valid)
        gradient[1].add_(to_both[1])
        return to_both[0]

    def _contrastive(self, adapted: Tensor, targets: Targets, rows: Rows) -> Tensor:
        prompts, weights = self._text[targets.labels], targets.weights
        logits = torch.matmul(adapted, prompts.mT).mul_(self._scale)
        by_image, by_text = logits, logits
        if rows.valid is not None:
            by_image = logits.masked_fill(rows.valid.mT == 0, float("-inf"))
            by_text = logits.masked_fill(rows.valid == 0, float("-inf"))
        to_logits = torch.softmax(by_image, -1).mul_(weights)
        to_logits.add_(torch.softmax(by_text, -2).mul_(weights.mT))
        to_logits.diagonal(dim1=-2, dim2=-1).sub_(2 * weights.squeeze(-1))
        return torch.matmul(to_logits.mul_(self._scale / 2), prompts)
