"""One step of local training: dropout of features, forward pass, losses, backward pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clients.method.lean.adaptation import AdaptationStep
from clients.method.lean.gradients import LossGradients, Targets
from clients.method.lean.head import Draw, MlpStep
from clients.method.lean.masked import Block, LayerStep, LinearStep, LinearTensors, MaskedStep, Masks
from clients.method.lean.norms import (
    BatchNorm,
    LayerNorm,
    NoNorm,
    NormStep,
    NormTensors,
    OneBatchNorm,
    PerImageNorm,
    Rows,
)
from clients.method.mlp import group_count
from clients.method.settings import TrainingSettings

_LEAST_NORM = 1e-12


@dataclass(frozen=True)
class ModelTensors:
    """The tensors of one hospital's model, or of K models stacked along a leading axis.

    Attributes:
        values: By the names of `HospitalModel.state_dict()`.
        gradients: Memory for the gradients of biases and norms, by the same names.
        blocks: The weights and their gradients, by the names of the layers.
        thresholds: Those of all layers in the order of `blocks`, and memory for their gradients: float[..., r] each,
            of one layer or of several in a row. Empty where they are not learned.
        totals: float[r] of all blocks, the sums of |w| over each row as the weights are now; None where nobody keeps
            them.
    """

    values: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    blocks: Mapping[str, Sequence[Block]]
    thresholds: Sequence[tuple[Tensor, Tensor]]
    totals: Tensor | None = None

    @property
    def with_mlp(self) -> bool:
        """Whether there is an MLP."""
        return "mlp.head.weight" in self.values

    def first(self, hospitals: int) -> "ModelTensors":
        """Return views of the first hospitals of a stack."""

        def some(tensor: Tensor) -> Tensor:
            return tensor[:hospitals]

        return ModelTensors(
            {name: some(tensor) for name, tensor in self.values.items()},
            {name: some(tensor) for name, tensor in self.gradients.items()},
            {
                name: [Block(block.rows, some(block.weight), some(block.gradient)) for block in blocks]
                for name, blocks in self.blocks.items()
            },
            [(some(threshold), some(gradient)) for threshold, gradient in self.thresholds],
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
        self._masks = self._make_masks()
        self._drop, self._image = torch.empty_like(like), torch.empty_like(like)
        self._length = like.new_empty(*lead, rows, 1)
        first, second = self._layer("fam.first"), self._layer("fam.second")
        gain = settings.fam_input_rms * width**0.5 if settings.fam_input_rms else 1.0
        self._fam = AdaptationStep(first, second, settings.fam_form == "residual", gain)
        prior = tensors.values["log_prior"]
        self._losses = LossGradients(settings, text_features, prior, logit_scale, tensors.with_mlp, like)
        self._mlp = self._make_mlp(like) if tensors.with_mlp else None

    def run(self, x: Tensor, targets: Targets, rows: Rows, draw: Draw) -> None:
        """Write the gradients of all parameters; whoever uses those of a block of weights does so on the way.

        Args:
            x: float[..., B, D] of unit length.
            targets: What the model should say, and how much each image weighs.
            rows: Which rows are images.
            draw: Source of dropout.
        """
        if self._masks is not None:
            self._masks.update()
        if self._settings.feature_dropout:
            keep = draw(self._drop, 1 - self._settings.feature_dropout)
            torch.mul(x, keep, out=self._image)
            torch.linalg.vector_norm(self._image, dim=-1, keepdim=True, out=self._length)
            x = self._image.div_(self._length.clamp_(min=_LEAST_NORM))
        adapted = self._fam.forward(x)
        self._losses.forward(adapted)
        if self._mlp is not None:
            self._mlp.forward(adapted, x, rows, draw)
        to_adapted, to_logits = self._losses.backward(adapted, targets, rows)
        if self._mlp is not None and to_logits is not None:
            from_mlp = self._mlp.backward(to_logits, rows)
            if from_mlp is not None:
                to_adapted.add_(from_mlp)
        self._fam.backward(to_adapted)
        if self._masks is not None:
            self._masks.write_threshold_gradients()

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits float[1 or 2, ..., B, C] of FAM and, where there is one, MLP in prediction.

        Not for a batch norm, which predicts with other statistics. They are overwritten by the next call.

        Args:
            x: float[..., B, D] of unit length.
        """
        if self._masks is not None:
            self._masks.update()
        adapted = self._fam.forward(x)
        self._losses.forward(adapted)
        if self._mlp is not None:
            self._mlp.forward(adapted, x, Rows(None, self._rows), _drop_nothing)
        return self._losses.logits

    def targets(self, labels: Tensor, weights: Tensor) -> Targets:
        """Return the targets of images with labels int64[..., B] and weights float[..., B]."""
        return self._losses.targets(labels, weights)

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

    def _make_masks(self) -> Masks | None:
        tensors = self._tensors
        if not tensors.thresholds:
            return None
        window = self._settings.threshold_window
        return Masks(list(tensors.blocks.values()), tensors.thresholds, window, tensors.totals)

    def _layer(self, name: str, output: Tensor | None = None) -> LayerStep:
        values, blocks = self._tensors.values, self._tensors.blocks
        weight, bias = f"{name}.weight", f"{name}.bias"
        tensors = LinearTensors(values[weight], values[bias], self._tensors.gradients[bias], blocks[name])
        if self._masks is None:
            return LinearStep(tensors, self._rows, output)
        mask = self._masks.layers[list(blocks).index(name)]
        return MaskedStep(tensors, mask, self._rows, self._settings.mask_bias, output)

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
            return OneBatchNorm(tensors) if tensors.weight.dim() == 1 else BatchNorm(tensors)
        if kind == "layer" and tensors.weight.dim() == 1:
            return LayerNorm(tensors)
        return PerImageNorm(tensors, group_count(tensors.weight.shape[-1]) if kind == "group" else 1)


def _drop_nothing(target: Tensor, probability: float) -> Tensor:
    """Every entry is kept, and will be divided by the probability that it is."""
    return target.fill_(probability)
