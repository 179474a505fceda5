"""FAM and private MLP together: the logits of both parts and the loss of a step."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clients.method import losses
from clients.method.dropout import draw_ones
from clients.method.fam import FeatureAdaptationModule
from clients.method.mlp import PrivateMlp
from clients.method.settings import TrainingSettings


class HospitalModel(nn.Module):
    """The trainable parts of one hospital on top of the frozen encoder.

    Attributes:
        fam: The shared module.
        mlp: The private one; None for methods without.

    Args:
        text_features: float32[C, D] of unit length, one row a class prompt; never trained.
        logit_scale: The encoder's factor on cosines (100 for CLIP).
        settings: Losses and shapes.
        fam: The FAM.
        mlp: The private MLP or None.
        log_prior: float32[C], log class frequencies of the hospital.
    """

    text_features: Tensor
    log_prior: Tensor

    def __init__(
        self,
        text_features: Tensor,
        logit_scale: float,
        settings: TrainingSettings,
        fam: FeatureAdaptationModule,
        mlp: PrivateMlp | None,
        log_prior: Tensor,
    ) -> None:
        super().__init__()
        self.register_buffer("text_features", text_features, persistent=False)
        self.register_buffer("log_prior", log_prior)
        self.logit_scale = settings.fam_logit_scale or logit_scale
        self.settings = settings
        self.fam = fam
        self.mlp = mlp

    def forward(
        self, image_features: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return adapted features float[B, D], cosines float[B, C] and the MLP's logits float[B, C] or None."""
        image_features = self._dropped(image_features, generator)
        adapted = self.fam(image_features)
        similarities = adapted @ self.text_features.T
        if self.mlp is None:
            return adapted, similarities, None
        seen = adapted if self.settings.mlp_to_fam else adapted.detach()
        return adapted, similarities, self.mlp(seen, image_features, generator)

    def fam_logits(self, similarities: Tensor) -> Tensor:
        """Return the FAM's logits float[B, C] of cosines: at logit scale, plus the hospital's log class frequencies."""
        logits = self.logit_scale * similarities
        adjustment = self.settings.prior_adjustment
        return logits + adjustment * self.log_prior if adjustment else logits

    def loss(
        self,
        image_features: Tensor,
        labels: Tensor,
        class_weights: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the loss of a batch: L_contr (or class prompts) + L_MLP + lambda * L_sim.

        Args:
            image_features: float[B, D] of unit length.
            labels: int64[B].
            class_weights: float[C], factors on the first two terms of the examples of each class; None for 1.
            generator: Source of dropout.
        """
        settings = self.settings
        adapted, similarities, mlp_logits = self(image_features, generator)
        fam_logits = self.fam_logits(similarities)
        if settings.fam_loss == "contrastive":
            per_example = losses.contrastive_loss(adapted, self.text_features, labels, self.logit_scale)
        else:
            per_example = losses.classification_loss(fam_logits, labels, settings.label_smoothing)
        if mlp_logits is not None:
            per_example = per_example + losses.classification_loss(mlp_logits, labels, settings.label_smoothing)
        if class_weights is not None:
            per_example = per_example * class_weights[labels]
        total = per_example.mean()
        if mlp_logits is None or settings.distillation == "off" or not settings.distillation_strength:
            return total
        temperature, adaptive = settings.distillation_temperature, settings.distillation_weight == "adaptive"
        if settings.distillation == "class-wise":
            distillation = losses.class_wise_distillation(
                mlp_logits, similarities, fam_logits, temperature=temperature, adaptive=adaptive
            ).sum()
        else:
            distillation = losses.per_example_distillation(
                mlp_logits, fam_logits, temperature=temperature, adaptive=adaptive
            ).mean()
        return total + settings.distillation_strength * distillation

    def _dropped(self, image_features: Tensor, generator: torch.Generator | None) -> Tensor:
        if not (self.training and self.settings.feature_dropout):
            return image_features
        keep = draw_ones(torch.empty_like(image_features), 1 - self.settings.feature_dropout, generator)
        return F.normalize(image_features * keep, dim=-1)

    @torch.no_grad()
    def log_probabilities(self, image_features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return log softmax float[N, C] of the FAM and of the MLP or None, in eval mode."""
        self.eval()
        _, similarities, mlp_logits = self(image_features)
        fam = F.log_softmax(self.fam_logits(similarities), dim=-1)
        return fam, None if mlp_logits is None else F.log_softmax(mlp_logits, dim=-1)
