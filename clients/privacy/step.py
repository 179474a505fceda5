"""The private step without autograd: one backward pass for norms and clipped sum together.

The tests hold it to the same sums under autograd: Opacus' ghost clipping, and one backward pass a unit.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from clients.method.lean.masked import Block, LayerStep, LinearTensors
from clients.method.lean.norms import NoNorm, NormStep, NormTensors, Rows
from clients.method.lean.step import ModelTensors, TrainingStep
from clients.method.mlp import group_count
from clients.method.model import HospitalModel
from clients.method.settings import SettingsError, TrainingSettings
from clients.privacy.clipping import ClippedSum, Group
from clients.privacy.ghost import Ghost, GhostLinear, GhostMasked, GhostNorm, Units

ROWS_AT_A_TIME = 1024
"""Rows that are stepped together (a patient with more is not split): bounds memory, also that of B x B products."""

ROWS_TOGETHER = 32
"""Rows of a step are filled up to a multiple of it, with rows that are left out of every sum. How BLAS rounds a row
depends on the number of rows, where that is small or no multiple of its tiles: one image more would change the
gradients of all others by a rounding, and those of images on a kink of an activation by much more than that."""

_MARGIN = 1e-6
"""Added to norms, in clip norms, before dividing by them: float32 rounding does not lift a clipped norm above it."""

Centres = Mapping[str, Tensor]
"""By the names of layers: float[..., in], the centre of their input (`ghost.GhostLinear`)."""


class GhostStep(TrainingStep):
    """The lean step with layers that save what passes instead of making gradients, of one hospital or of several."""

    def __init__(
        self,
        tensors: ModelTensors,
        text_features: Tensor,
        logit_scale: float,
        settings: TrainingSettings,
        rows: int,
        centres: Centres,
    ) -> None:
        self.ghosts: dict[str, Ghost] = {}
        self._centres = centres
        super().__init__(tensors, text_features, logit_scale, settings, rows)

    def save(self, features: Tensor, labels: Tensor) -> None:
        """Go forward and backward on float[..., B, D] and int64[..., B]; the loss is the sum of the rows' losses."""
        targets = self.targets(labels, torch.ones_like(features[..., 0]))
        self.run(features, targets, Rows(None, 1), _no_dropout)

    def write(self, factors: Mapping[str, Tensor]) -> None:
        """Write all gradients with each row's part multiplied by float[..., B], by the names of the layers."""
        for name, ghost in self.ghosts.items():
            ghost.write(factors[name])
        if self._masks is not None:
            self._masks.write_threshold_gradients()

    def _layer(self, name: str, output: Tensor | None = None) -> LayerStep:
        values, blocks = self._tensors.values, self._tensors.blocks
        weight, bias = f"{name}.weight", f"{name}.bias"
        tensors = LinearTensors(values[weight], values[bias], self._tensors.gradients[bias], blocks[name])
        layer: GhostLinear | GhostMasked
        if self._masks is None:
            layer = GhostLinear(tensors, self._rows, output, self._centres.get(name))
        else:
            mask = self._masks.layers[list(blocks).index(name)]
            layer = GhostMasked(tensors, mask, self._rows, self._settings.mask_bias, output)
        self.ghosts[name] = layer
        return layer

    def _norm(self, name: str) -> NormStep:
        values, gradients, kind = self._tensors.values, self._tensors.gradients, self._settings.mlp_norm
        if kind == "none":
            return NoNorm()
        weight, bias = f"{name}.weight", f"{name}.bias"
        tensors = NormTensors(values[weight], values[bias], gradients[weight], gradients[bias])
        norm = GhostNorm(tensors, group_count(tensors.weight.shape[-1]) if kind == "group" else 1)
        self.ghosts[name] = norm
        return norm


class LeanClipping:
    """Sums clipped gradients of units of privacy; memory is kept from one call to the next.

    Privacy: as of `ClippedSum`.

    Args:
        model: What is trained; its parameters stay where they are.
        groups: Disjoint; together they are what is trained: FAM and MLP, or the FAM alone.
        centres: Centres of the inputs of layers: the gradients are then with respect to W and b + W c.

    Raises:
        SettingsError: The settings couple the examples of a batch.
    """

    def __init__(self, model: HospitalModel, groups: Sequence[Group], centres: Centres | None = None) -> None:
        self._model, self._groups, self._centres = model, tuple(groups), dict(centres or {})
        names = {parameter: name for name, parameter in model.named_parameters()}
        trained = {names[p]: (p, place) for place, group in enumerate(groups) for p in group.parameters}
        with_mlp = any(name.startswith("mlp.") for name in trained)
        refuse_coupling(model.settings, with_mlp=with_mlp)
        self._group_of = {name.rpartition(".")[0]: place for name, (_, place) in trained.items()}
        self._parameters: dict[str, nn.Parameter] = {name: p for name, (p, _) in trained.items()}
        self._gradients = {name: torch.zeros_like(p) for name, p in self._parameters.items()}
        self._in_order = tuple(tuple(self._gradients[names[p]] for p in group.parameters) for group in groups)
        self._places: tuple[int, ...] = ()
        self._steps: dict[int, GhostStep] = {}

    @torch.no_grad()
    def __call__(self, features: Tensor, labels: Tensor, units: Tensor | None = None) -> ClippedSum:
        """Return the clipped sum, in memory that the next call overwrites.

        Args:
            features: float32[B, D]; B may be 0.
            labels: int64[B].
            units: int64[B], the unit that each row belongs to; None where each row is one.
        """
        self._look_where_parameters_are()
        total: list[Tensor] | None = None
        many, zeroed = 0, 0
        for chosen, places, count in chunks(len(labels), units):
            many += count
            zeroed += self._sum(features[chosen], labels[chosen], places, count)
            written = list(self._gradients.values())
            if len(labels) == len(chosen):
                break
            if total is None:
                total = [gradient.clone() for gradient in written]
            else:
                torch._foreach_add_(total, written)
        if not len(labels):
            for gradient in self._gradients.values():
                gradient.zero_()
        if total is not None:
            torch._foreach_copy_(list(self._gradients.values()), total)
        return ClippedSum(self._in_order, many, zeroed)

    def _sum(self, features: Tensor, labels: Tensor, places: Tensor | None, count: int) -> int:
        """Write the clipped sum of some rows; return how many units count as zero because they are not finite."""
        rows, fill = len(labels), -len(labels) % ROWS_TOGETHER
        step = self._step(rows + fill)
        step.save(nn.functional.pad(features, (0, 0, 0, fill)), nn.functional.pad(labels, (0, fill)))
        units = Units(rows + fill)
        if places is not None:
            units = Units(rows + fill, nn.functional.pad(places, (0, fill), value=count), count + 1)
        squares = [features.new_zeros(units.count) for _ in self._groups]
        for name, ghost in step.ghosts.items():
            squares[self._group_of[name]] += ghost.squared_norms(units)
        good = torch.stack([torch.isfinite(square) for square in squares]).all(0)
        left_out = units.spread(good).logical_not()
        left_out[rows:] = True
        factors = [
            units.spread(clip_factors(square, group.clip_norm)).masked_fill_(left_out, 0.0)
            for square, group in zip(squares, self._groups, strict=True)
        ]
        for ghost in step.ghosts.values():
            ghost.leave_out(left_out)
        step.write({name: factors[self._group_of[name]] for name in step.ghosts})
        return count - int(good[:count].sum())

    def _step(self, rows: int) -> GhostStep:
        if rows not in self._steps:
            if len(self._steps) > 1:
                self._steps.clear()
            model = self._model
            self._steps[rows] = GhostStep(
                self._tensors(), model.text_features, model.logit_scale, model.settings, rows, self._centres
            )
        return self._steps[rows]

    def _tensors(self) -> ModelTensors:
        values = {name: parameter.data for name, parameter in self._parameters.items()}
        return ghost_tensors(values, self._gradients, self._model.log_prior)

    def _look_where_parameters_are(self) -> None:
        """Forget steps whose views are of memory that the parameters have left."""
        places = tuple(parameter.data_ptr() for parameter in self._parameters.values())
        if places != self._places:
            self._steps.clear()
            self._places = places


def refuse_coupling(settings: TrainingSettings, *, with_mlp: bool) -> None:
    """Refuse what makes the loss of one image depend on the others of its batch.

    Raises:
        SettingsError: The settings do.
    """
    if settings.fam_loss == "contrastive":
        raise SettingsError("fam_loss", "contrastive: the loss of an image depends on the batch")
    if settings.feature_dropout:
        raise SettingsError("feature_dropout", "is drawn for the batch as a whole: private steps need 0")
    if not with_mlp:
        return
    if settings.distillation == "class-wise":
        raise SettingsError("distillation", "class-wise: the softmax over the batch couples its images")
    if settings.mlp_norm == "batch":
        raise SettingsError("mlp_norm", "batch: the norm couples the images of a batch")
    if settings.mlp_dropout and settings.mlp_layers:
        raise SettingsError("mlp_dropout", "is drawn for the batch as a whole: private steps need 0")


def clip_factors(squares: Tensor, clip_norm: float) -> Tensor:
    """Return the factor in [0, 1] that brings each gradient of a squared norm to at most the clip norm."""
    return (1.0 / (squares.sqrt() / clip_norm + _MARGIN)).clamp(max=1.0)


def ghost_tensors(values: Mapping[str, Tensor], gradients: Mapping[str, Tensor], log_prior: Tensor) -> ModelTensors:
    """Return what a `GhostStep` steps: parameters, memory for their gradients, and log class frequencies [..., C]."""
    weights = [name for name in values if name.endswith(".weight")]
    layers = [
        name.removesuffix(".weight")
        for name in weights
        if values[name].dim() > values[f"{name.removesuffix('.weight')}.bias"].dim()
    ]
    blocks = {layer: [Block(slice(None), values[f"{layer}.weight"], gradients[f"{layer}.weight"])] for layer in layers}
    names = [f"{layer}.threshold" for layer in layers]
    learned = [(values[name], gradients[name]) for name in names if name in values]
    return ModelTensors({**values, "log_prior": log_prior}, gradients, blocks, learned)


def chunks(rows: int, units: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None, int]]:
    """Yield the rows of each chunk, the unit of each of them counted from 0, and the number of units."""
    if units is None:
        for start in range(0, rows, ROWS_AT_A_TIME):
            chosen = torch.arange(start, min(rows, start + ROWS_AT_A_TIME))
            yield chosen, None, len(chosen)
        return
    _, places, sizes = torch.unique(units, return_inverse=True, return_counts=True)
    order = torch.argsort(places, stable=True)
    first, start, size = 0, 0, 0
    for unit, number in enumerate([*sizes.tolist(), ROWS_AT_A_TIME + 1]):
        if size and size + number > ROWS_AT_A_TIME:
            chosen = order[start : start + size]
            yield chosen, places[chosen] - first, unit - first
            first, start, size = unit, start + size, 0
        size += number


def _no_dropout(target: Tensor, probability: float) -> Tensor:
    raise AssertionError(f"a private step draws no dropout ({probability}, {tuple(target.shape)})")
