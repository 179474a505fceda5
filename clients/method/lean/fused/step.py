"""One step of a stack of hospitals, gradients and optimiser together."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from clients.method.lean.fused.adaptation import (
    adapted_backward,
    adapted_forward,
    hidden_backward,
    hidden_forward,
    take_images,
)
from clients.method.lean.fused.fits import power_of_two
from clients.method.lean.fused.mlp import mlp_both_ways
from clients.method.lean.fused.moves import FIELDS, move, write_masks
from clients.method.lean.fused.products import product
from clients.method.lean.head import Draw
from clients.method.lean.optimizer import FusedAdamW
from clients.method.model import HospitalModel

_BLOCK, _COLUMNS = 16, 64
"""Rows and columns of the weights that a program moves at a time."""

_PRODUCT_PRECISION, _MOVE_PRECISION = "tf32x3", "ieee"
"""`tf32x3` cuts each factor into two of tensor-core precision and sums three of the four products; what is left out is
below the rounding of a sum in single precision. It takes more registers, of which a move has none to spare."""

_PRODUCT_BLOCK, _PRODUCT_DEPTH = 16, 64
"""Columns of a product that a program writes, and terms that it adds at a time."""

_LAYERS = ("mlp.head", "mlp.hidden.0", "fam.second", "fam.first")
"""As their gradients come."""

_OF_MLP = 2

_NORM = "mlp.norms.0"


@dataclass(frozen=True)
class Parameters:
    """What K hospitals train, side by side, by the names of `HospitalModel.state_dict()`.

    Attributes:
        values: float[K, ...], the parameters and `log_prior`.
        moments: The two moments of each parameter.
        optimizer: Has the learning rates on the device; its steps are counted by whoever runs them.
    """

    values: Mapping[str, Tensor]
    moments: Mapping[str, tuple[Tensor, Tensor]]
    optimizer: FusedAdamW

    def addresses(self, name: str) -> list[int]:
        """Return where a parameter and its two moments are."""
        return [tensor.data_ptr() for tensor in (self.values[name], *self.moments[name])]


@dataclass(frozen=True)
class Images:
    """The images of all hospitals, one after the other, and which of them a step takes.

    Attributes:
        features: float32[N, D] of unit length.
        labels: int64[N].
        weights: float32[N], factors on the cross entropies.
        order: int64[K, steps, B], rows of `features`.
        number: int64[1], the step.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor
    order: Tensor
    number: Tensor


class FusedStep:
    """What `TrainingStep.run` and the moves of its optimiser do, for models of which `reason_for_general_step` is None.

    Args:
        model: Settings, text features and shapes.
        parameters: Of all hospitals of a stack.
        images: Of the same.
    """

    def __init__(self, model: HospitalModel, parameters: Parameters, images: Images) -> None:
        self._settings, self._parameters, self._images = model.settings, parameters, images
        self._text, self._scale = model.text_features.contiguous(), float(model.logit_scale)
        settings, values = model.settings, parameters.values
        classes, width = self._text.shape
        hospitals, inner, _ = values["fam.first.weight"].shape
        wide = values["mlp.hidden.0.weight"].shape[1]
        like = self._text
        self._gains = (
            settings.fam_input_rms * width**0.5 if settings.fam_input_rms else 1.0,
            settings.mlp_input_rms * width**0.5 if settings.mlp_input_rms else 1.0,
        )

        def by_rows(columns: int) -> Tensor:
            return like.new_empty(hospitals, settings.batch_size, columns)

        self._drop, self._image, self._from_mlp = by_rows(width), by_rows(width), by_rows(width)
        self._seen = self._image if self._gains[0] == 1.0 else by_rows(width)
        self._labels = images.labels.new_empty(hospitals, settings.batch_size)
        self._weights = like.new_empty(hospitals, settings.batch_size)
        self._hidden, self._to_hidden = by_rows(inner), by_rows(inner)
        self._mlp_input = by_rows(2 * width)
        self._mlp_drop, self._mlp_hidden, self._normed, self._to_norm = (by_rows(wide) for _ in range(4))
        self._logits, self._to_cosines = by_rows(classes), by_rows(classes)
        outputs = {name: values[f"{name}.weight"].shape[1] for name in _LAYERS}
        self._linear, self._gradient = ({name: by_rows(outputs[name]) for name in _LAYERS} for _ in range(2))
        self._kept = {name: by_rows(outputs[name]) for name in ("mlp.hidden.0", "fam.second")}
        self._keep, self._slope = (
            {name: like.new_empty(hospitals, outputs[name]) for name in _LAYERS} for _ in range(2)
        )
        seen = (self._mlp_hidden, self._mlp_input, self._hidden, self._seen)
        self._table = torch.tensor(
            [self._fields(name, x) for name, x in zip(_LAYERS, seen, strict=True)], dtype=torch.int64
        ).to(like.device)
        blocks = [[k, first] for k, name in enumerate(_LAYERS) for first in range(0, outputs[name], _BLOCK)]
        self._of_mlp = sum(layer < _OF_MLP for layer, _ in blocks)
        self._blocks = torch.tensor(blocks, dtype=torch.int32).to(like.device)

    def refresh(self) -> None:
        """Take note that somebody else has changed weights or thresholds."""
        grid = (len(self._blocks), len(self._image))
        write_masks[grid](self._table, self._blocks, self._settings.threshold_window, BLOCK=_BLOCK, COLUMNS=_COLUMNS)

    def run(self, base: Tensor, draw: Draw, beside: Callable[[], AbstractContextManager[None]] | None = None) -> None:
        """Take the step of the first hospitals and move their parameters.

        Args:
            base: float32[k, B] of the first k hospitals: one over the number of a hospital's images in the step for
                each of them, 0 for rows that are no image.
            draw: Source of dropout.
            beside: Where the MLP's parameters move, beside the rest of the step; None for one move of all parameters.
        """
        active = len(base)
        self._forward(active, base, draw)
        self._run_mlp(active, base, draw)
        of_mlp = 0
        if beside is not None:
            of_mlp = self._of_mlp
            with beside():
                self._move(active, range(of_mlp))
        self._backward(active)
        self._move(active, range(of_mlp, len(self._blocks)))

    def _forward(self, active: int, base: Tensor, draw: Draw) -> None:
        images, settings, values = self._images, self._settings, self._parameters.values
        grid, (classes, width) = (base.numel(),), self._text.shape
        drops = settings.feature_dropout > 0
        if drops:
            draw(self._drop[:active], 1 - settings.feature_dropout)
        take_images[grid](
            *(images.features, images.labels, images.weights, images.order, images.number, base),
            *(self._drop, self._image, self._seen, self._mlp_input, self._labels, self._weights),
            *(images.order.shape[1], settings.batch_size, width, *self._gains),
            DROPS=drops,
            WIDTH=power_of_two(width),
        )
        self._product("fam.first", self._seen, active)
        inner = self._hidden.shape[-1]
        hidden_forward[grid](
            *(self._linear["fam.first"], values["fam.first.bias"], self._keep["fam.first"], self._hidden),
            *(settings.batch_size, inner),
            WIDTH=power_of_two(inner),
        )
        self._product("fam.second", self._hidden, active)
        adapted_forward[grid](
            *(self._linear["fam.second"], values["fam.second.bias"], self._keep["fam.second"], self._image),
            *(self._text, values["log_prior"], self._mlp_input, self._logits),
            *(settings.batch_size, width, classes),
            *(self._scale, settings.prior_adjustment, self._gains[1]),
            WIDTH=power_of_two(width),
            CLASSES=power_of_two(classes),
        )
        self._product("mlp.hidden.0", self._mlp_input, active)

    def _run_mlp(self, active: int, base: Tensor, draw: Draw) -> None:
        """Both passes of the MLP, up to the gradient of what it saw of the FAM."""
        settings, values = self._settings, self._parameters.values
        classes, undropped = len(self._text), 1 - settings.mlp_dropout
        if settings.mlp_dropout:
            draw(self._mlp_drop[:active], undropped)
        distils = settings.distillation != "off"
        strength = settings.distillation_strength / settings.distillation_temperature if distils else 0.0
        hidden, head, wide = "mlp.hidden.0", "mlp.head", self._mlp_hidden.shape[-1]
        mlp_both_ways[(base.numel(),)](
            *(self._linear[hidden], values[f"{hidden}.bias"], self._keep[hidden]),
            *(values[f"{_NORM}.weight"], values[f"{_NORM}.bias"], self._mlp_drop),
            *(values[f"{head}.weight"], values[f"{head}.bias"], self._keep[head]),
            *(self._logits, self._labels, self._weights, base),
            *(self._mlp_hidden, self._normed, self._to_norm, self._gradient[hidden], self._kept[hidden]),
            *(self._linear[head], self._gradient[head], self._to_cosines),
            *(settings.batch_size, wide, classes, undropped, settings.label_smoothing),
            *(strength, settings.distillation_temperature, self._scale, torch.finfo(torch.float32).tiny),
            DROPS=settings.mlp_dropout > 0,
            ADAPTIVE=settings.distillation_weight == "adaptive",
            WIDTH=power_of_two(wide),
            CLASSES=power_of_two(classes),
        )
        if settings.mlp_to_fam:
            self._product_to_input(hidden, self._from_mlp, active)

    def _backward(self, active: int) -> None:
        settings, values = self._settings, self._parameters.values
        classes, width = self._text.shape
        grid, inner = (active * settings.batch_size,), self._hidden.shape[-1]
        adapted_backward[grid](
            *(self._linear["fam.second"], values["fam.second.bias"], self._keep["fam.second"], self._image),
            *(self._text, self._to_cosines, self._from_mlp, self._gradient["fam.second"], self._kept["fam.second"]),
            *(settings.batch_size, width, classes, self._gains[1]),
            TO_FAM=settings.mlp_to_fam,
            WIDTH=power_of_two(width),
            CLASSES=power_of_two(classes),
        )
        self._product_to_input("fam.second", self._to_hidden, active)
        hidden_backward[grid](
            *(self._linear["fam.first"], values["fam.first.bias"], self._keep["fam.first"]),
            *(self._to_hidden, self._gradient["fam.first"], settings.batch_size, inner),
            WIDTH=power_of_two(inner),
        )

    def _move(self, active: int, blocks: range) -> None:
        settings, optimizer = self._settings, self._parameters.optimizer
        move[(len(blocks), active)](
            *(self._table, self._blocks, optimizer.count, *optimizer.rates_on_device),
            *(blocks.start, settings.batch_size, settings.threshold_window),
            *(settings.adam_beta1, settings.adam_beta2, _log(settings.adam_beta1), _log(settings.adam_beta2)),
            *(settings.weight_decay, settings.adam_epsilon),
            PRECISION=_MOVE_PRECISION,
            ROWS=max(16, power_of_two(settings.batch_size)),
            BLOCK=_BLOCK,
            COLUMNS=_COLUMNS,
        )

    def _product(self, layer: str, x: Tensor, active: int) -> None:
        """Write x W^T."""
        self._launch_product(layer, x, self._linear[layer], active, of_input=False)

    def _product_to_input(self, layer: str, out: Tensor, active: int) -> None:
        """Write the gradient of the first entries of a layer's input, as many as fit."""
        self._launch_product(layer, self._kept[layer], out, active, of_input=True)

    def _launch_product(self, layer: str, x: Tensor, out: Tensor, active: int, *, of_input: bool) -> None:
        weight, columns = self._parameters.values[f"{layer}.weight"], out.shape[-1]
        product[(-(-columns // _PRODUCT_BLOCK), active)](
            *(x, weight, out, self._settings.batch_size, *weight.shape[1:], columns),
            PRECISION=_PRODUCT_PRECISION,
            OF_INPUT=of_input,
            ROWS=max(16, power_of_two(self._settings.batch_size)),
            BLOCK=_PRODUCT_BLOCK,
            DEPTH=_PRODUCT_DEPTH,
            num_stages=4,
        )

    def _fields(self, layer: str, seen: Tensor) -> list[int]:
        """A layer's row of the table of `moves`."""
        parameters, of = self._parameters, dict.fromkeys(FIELDS, 0)

        def put(field: str, name: str) -> None:
            for role, address in zip(("", "mean_", "square_"), parameters.addresses(name), strict=True):
                of[f"{role}{field}"] = address

        for field in ("weight", "bias", "threshold"):
            put(field, f"{layer}.{field}")
        tensors = {
            "seen": seen,
            "gradient": self._gradient[layer],
            "linear": self._linear[layer],
            "keep": self._keep[layer],
            "slope": self._slope[layer],
        }
        if layer == "mlp.hidden.0":
            put("norm_weight", f"{_NORM}.weight")
            put("norm_bias", f"{_NORM}.bias")
            tensors |= {"normed": self._normed, "to_norm": self._to_norm}
        of |= {field: tensor.data_ptr() for field, tensor in tensors.items()}
        _, of["outputs"], inputs = parameters.values[f"{layer}.weight"].shape
        of["inputs"] = inputs // 16
        of["of_fam"], of["has_norm"] = int(layer.startswith("fam.")), int("normed" in tensors)
        return [of[field] for field in FIELDS]


def _log(beta: float) -> float:
    return log(beta) if beta else float("-inf")
