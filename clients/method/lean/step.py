"""One step of local training: dropout of features, forward pass, losses, backward pass."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from clients.method.lean.adaptation import AdaptationStep
from clients.method.lean.gradients import LossGradients
from clients.method.lean.head import Draw, MlpStep
from clients.method.lean.masked import LayerStep, LinearStep, LinearTensors, MaskedStep, MaskedTensors
from clients.method.lean.norms import BatchNorm, NoNorm, NormStep, NormTensors, PerImageNorm, Rows
from clients.method.mlp import group_count
from clients.method.settings import TrainingSettings

_LEAST_NORM = 1e-12


@dataclass(frozen=True)
class ModelTensors:
    """The tensors of one hospital's model, or of K models stacked along a leading axis.

    Attributes:
        values: By the names of `HospitalModel.state_dict()`.
        gradients: Memory for the gradient of each parameter, by the same names.
    """

    values: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]

    @property
    def with_mlp(self) -> bool:
        """Whether there is an MLP."""
        return "mlp.head.weight" in self.values

    def first(self, hospitals: int) -> "ModelTensors":
        """Return views of the first hospitals of a stack."""
        return ModelTensors(
            {name: tensor[:hospitals] for name, tensor in self.values.items()},
            {name: tensor[:hospitals] for name, tensor in self.gradients.items()},
        )


class TrainingStep:
    """Computes the gradients of one step for a fixed number of rows.

    Args:
        tensors: Parameters, and where their gradients go.
        text_features: float[C, D].
        logit_scale: Factor on cosines.
        settings: Losses and shapes.
        rows: Images B of a step.
    """

    def __init__(
        self, tensors: ModelTensors, text_features: Tensor, logit_scale: float, settings: TrainingSettings, rows: int
    ) -> None:
        self._tensors, self._settings, self._rows = tensors, settings, rows
        weight = tensors.values["fam.second.weight"]
        *lead, width, _ = weight.shape
        like = weight.new_empty(*lead, rows, width)
        largest = max(tensor.shape[-1] * tensor.shape[-2] for tensor in self._matrices())
        self._scratch = weight.new_empty(*lead, largest)
        self._drop, self._image = torch.empty_like(like), torch.empty_like(like)
        self._length = like.new_empty(*lead, rows, 1)
        first, second = self._layer("fam.first"), self._layer("fam.second")
        gain = settings.fam_input_rms * width**0.5 if settings.fam_input_rms else 1.0
        self._fam = AdaptationStep(first, second, settings.fam_form == "residual", gain)
        prior = tensors.values["log_prior"]
        self._losses = LossGradients(settings, text_features, prior, logit_scale, tensors.with_mlp, like)
        self._mlp = self._make_mlp(like) if tensors.with_mlp else None

    def run(self, x: Tensor, labels: Tensor, weights: Tensor, rows: Rows, draw: Draw) -> None:
        """Write the gradients of all parameters.

        Args:
            x: float[..., B, D] of unit length.
            labels: int64[..., B].
            weights: float[..., B], weight of each image in the first two terms of the loss.
            rows: Which rows are images.
            draw: Source of dropout.
        """
        if self._settings.feature_dropout:
            keep = draw(self._drop, 1 - self._settings.feature_dropout)
            torch.mul(x, keep, out=self._image)
            torch.linalg.vector_norm(self._image, dim=-1, keepdim=True, out=self._length)
            x = self._image.div_(self._length.clamp_(min=_LEAST_NORM))
        adapted = self._fam.forward(x)
        self._losses.forward(adapted)
        if self._mlp is not None:
            self._mlp.forward(adapted, x, rows, draw)
        to_adapted, to_logits = self._losses.backward(adapted, labels, weights, rows)
        if self._mlp is not None and to_logits is not None:
            from_mlp = self._mlp.backward(to_logits, rows)
            if from_mlp is not None:
                to_adapted.add_(from_mlp)
        self._fam.backward(to_adapted)

    def _make_mlp(self, like: Tensor) -> MlpStep:
        settings = self._settings
        hidden = [
            (self._layer(f"mlp.hidden.{number}"), self._norm(f"mlp.norms.{number}"))
            for number in range(settings.mlp_layers)
        ]
        head = self._layer("mlp.head", self._losses.logits[1])
        return MlpStep(
            hidden,
            head,
            seen=settings.mlp_input,
            gain=settings.mlp_input_rms * like.shape[-1] ** 0.5 if settings.mlp_input_rms else 1.0,
            dropout=settings.mlp_dropout,
            to_fam=settings.mlp_to_fam,
            like=like,
        )

    def _layer(self, name: str, output: Tensor | None = None) -> LayerStep:
        values, gradients, settings = self._tensors.values, self._tensors.gradients, self._settings
        weight, bias, threshold = f"{name}.weight", f"{name}.bias", f"{name}.threshold"
        tensors = values[weight], values[bias], gradients[weight], gradients[bias]
        if not settings.learn_thresholds:
            return LinearStep(LinearTensors(*tensors), self._rows, output)
        masked = MaskedTensors(*tensors, values[threshold], gradients[threshold])
        window = settings.threshold_window
        return MaskedStep(masked, self._rows, window, settings.mask_bias, self._scratch, output)

    def _norm(self, name: str) -> NormStep:
        values, gradients, kind = self._tensors.values, self._tensors.gradients, self._settings.mlp_norm
        if kind == "none":
            return NoNorm()
        tensors = NormTensors(
            values[f"{name}.weight"],
            values[f"{name}.bias"],
            gradients[f"{name}.weight"],
            gradients[f"{name}.bias"],
            values.get(f"{name}.running_mean"),
            values.get(f"{name}.running_var"),
            values.get(f"{name}.num_batches_tracked"),
        )
        if kind == "batch":
            return BatchNorm(tensors)
        return PerImageNorm(tensors, group_count(tensors.weight.shape[-1]) if kind == "group" else 1)

    def _matrices(self) -> list[Tensor]:
        names = [name for name in self._tensors.values if name.endswith(".weight") and ".norms." not in name]
        return [self._tensors.values[name] for name in names]
