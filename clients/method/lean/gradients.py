"""The losses of a step without autograd: their gradients with respect to the logits of both parts."""

import torch
from torch import Tensor
from torch.nn import functional as F

from clients.method.lean.norms import Rows
from clients.method.settings import TrainingSettings


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
        self._targets = torch.eye(classes, dtype=like.dtype, device=like.device) * (1 - smoothing) + smoothing / classes

    def forward(self, adapted: Tensor) -> None:
        """Write the FAM's logits float[..., B, C] to `logits[0]`."""
        torch.matmul(adapted, self._text.T, out=self._similarities)
        torch.mul(self._similarities, self._scale, out=self.logits[0])
        if self._settings.prior_adjustment:
            self.logits[0].add_(self._prior, alpha=self._settings.prior_adjustment)

    def backward(self, adapted: Tensor, labels: Tensor, weights: Tensor, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """Return the gradients of I~ float[..., B, D] and of the MLP's logits float[..., B, C].

        Args:
            adapted: float[..., B, D].
            labels: int64[..., B].
            weights: float[..., B]: the weight of each image in the first two terms, 0 for rows that are no image.
            rows: Which rows are images.
        """
        log_p = F.log_softmax(self.logits, -1)
        p = log_p.exp()
        gradient = (p - self._targets[labels]).mul_(weights.unsqueeze(-1))
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
            to_adapted.add_(self._contrastive(adapted, labels, weights, rows))
        return to_adapted, gradient[1] if self._with_mlp else None

    def _share(self, log_p: Tensor, p: Tensor) -> Tensor | float:
        """H(FAM) / (H(FAM) + H(MLP)) as float[..., B, 1], or 1/2."""
        if self._settings.distillation_weight != "adaptive":
            return 0.5
        h = (p * log_p).sum(-1, keepdim=True).neg_()
        total = h[0] + h[1]
        return torch.where(total > 0, h[0] / total.clamp_min(torch.finfo(total.dtype).tiny), 0.5)

    def _per_example(self, gradient: Tensor, log_p: Tensor, p: Tensor, rows: Rows) -> None:
        settings = self._settings
        soft = torch.softmax(self.logits / settings.distillation_temperature, -1)
        difference = (soft[0] - soft[1]).mul_(settings.distillation_strength / settings.distillation_temperature)
        difference.div_(rows.count if isinstance(rows.count, int) else rows.count.unsqueeze(-1))
        if rows.valid is not None:
            difference.mul_(rows.valid)
        share = self._share(log_p, p)
        gradient[0].add_(difference * share)
        gradient[1].sub_(difference * (1 - share))

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
        share = self._share(log_p, p)
        fam, mlp = soft[0] * share, soft[1] * (1 - share)
        to_log = torch.stack([fam * (difference + 1) - mlp, mlp * (1 - difference) - fam])
        factor = settings.distillation_strength / (len(self._text) * settings.distillation_temperature)
        to_both = (to_log - soft * to_log.sum(-2, keepdim=True)).mul_(factor)
        if rows.valid is not None:
            to_both.mul_(rows.valid)
        gradient[1].add_(to_both[1])
        return to_both[0]

    def _contrastive(self, adapted: Tensor, labels: Tensor, weights: Tensor, rows: Rows) -> Tensor:
        prompts = self._text[labels]
        logits = torch.matmul(adapted, prompts.mT).mul_(self._scale)
        by_image, by_text = logits, logits
        if rows.valid is not None:
            by_image = logits.masked_fill(rows.valid.mT == 0, float("-inf"))
            by_text = logits.masked_fill(rows.valid == 0, float("-inf"))
        to_logits = torch.softmax(by_image, -1).mul_(weights.unsqueeze(-1))
        to_logits.add_(torch.softmax(by_text, -2).mul_(weights.unsqueeze(-2)))
        to_logits.diagonal(dim1=-2, dim2=-1).sub_(2 * weights)
        return torch.matmul(to_logits.mul_(self._scale / 2), prompts)
