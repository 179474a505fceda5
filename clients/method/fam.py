"""The feature adaptation module (FAM): the only thing that hospitals share."""

import torch
from torch import Tensor, nn

from clients.method.masked_linear import MaskedLinear
from clients.method.settings import TrainingSettings


class FeatureAdaptationModule(nn.Module):
    """Attention over the entries of an image feature: att = softmax(ML2(relu6(norm(ML1(I))))), I~ = normalise(att * I).

    `norm` is a layer norm over the hidden entries without weights (the reference code writes InstanceNorm1d on float[B,
    D], which is the same): no example sees another one and there is no state. The `residual` form returns normalise(I
    + D * att * I); with the uniform attention of a fresh module that is I itself, whereas in the published form, too,
    only the deviation from uniform acts.

    Shapes: float[B, D] to float[B, D], both of unit length.

    Paper: section "Feature adaptation module". Departure: the `residual` form.

    Args:
        embed_dim: Width D of the features.
        settings: Form of the module and of its masked layers.
        generator: Source of the initial weights.
    """

    def __init__(self, embed_dim: int, settings: TrainingSettings, generator: torch.Generator | None = None) -> None:
        super().__init__()
        width = settings.fam_width or embed_dim
        form = {
            "window": settings.threshold_window,
            "mask_bias": settings.mask_bias,
            "learned": settings.learn_thresholds,
            "generator": generator,
        }
        self.first = MaskedLinear(embed_dim, width, **form)  # type: ignore[arg-type]
        self.second = MaskedLinear(width, embed_dim, **form)  # type: ignore[arg-type]
        self.gain = settings.fam_input_rms * embed_dim**0.5 if settings.fam_input_rms else 1.0
        self.residual = settings.fam_form == "residual"

    def attention(self, image_features: Tensor) -> Tensor:
        """Return att float[B, D]: entries in [0, 1] that sum to 1 in each row."""
        hidden = nn.functional.layer_norm(self.first(self._scaled(image_features)), (self.first.weight.shape[0],))
        return torch.softmax(self.second(nn.functional.relu6(hidden)), dim=-1)

    def _scaled(self, image_features: Tensor) -> Tensor:
        return image_features if self.gain == 1.0 else image_features * self.gain

    def forward(self, image_features: Tensor) -> Tensor:
        """Return I~."""
        attention = self.attention(image_features)
        if self.residual:
            attention = 1.0 + image_features.shape[-1] * attention
        return nn.functional.normalize(attention * image_features, dim=-1)
