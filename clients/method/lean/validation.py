"""What the models of a stack say of their hospitals' validation images, all of them at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from clients.method.lean.replay import Replays
from clients.method.lean.step import ModelTensors, TrainingStep
from clients.method.model import HospitalModel
from clients.method.prediction import LogParts
from clients.method.settings import TrainingSettings

_ROWS = 8192
"""Images of all hospitals together at a time, about: bounds memory."""


@dataclass(frozen=True)
class Said:
    """What a model says of a hospital's validation images.

    Attributes:
        parts: Log probabilities of FAM and MLP.
        keep_ratios: {layer: share of rows that it keeps}.
    """

    parts: LogParts
    keep_ratios: dict[str, float]


def validates(settings: TrainingSettings) -> bool:
    """Return whether a stack can predict: a batch norm needs other statistics than in training."""
    return settings.mlp_norm != "batch"


class StackValidation:
    """The validation images of a stack's hospitals.

    Args:
        model: A model of the method.
        tensors: Of the stack.
        images: float[M, D] of each hospital, in the order of the stack.
        places: Where each hospital of the stack stood in the order of whoever asks.
        replays: Where work on the stack happens.
    """

    def __init__(
        self,
        model: HospitalModel,
        tensors: ModelTensors,
        images: Sequence[Tensor],
        places: Sequence[int],
        replays: Replays,
    ) -> None:
        self._tensors, self._places, self._replays = tensors, places, replays
        self._counts = [len(x) for x in images]
        most, hospitals = max(self._counts), len(images)
        self._rows = max(1, min(most, _ROWS // hospitals))
        chunks = -(-most // self._rows)
        first = torch.tensor([0, *self._counts[:-1]]).cumsum(0)[:, None]
        within = torch.arange(chunks * self._rows)[None, :].clamp(max=torch.tensor(self._counts)[:, None] - 1)
        device = model.text_features.device
        self._images = torch.cat(list(images))
        self._index = torch.split((first + within).clamp(min=0).to(device), self._rows, 1)
        self._step = TrainingStep(tensors, model.text_features, model.logit_scale, model.settings, self._rows)
        self._layers = list(tensors.blocks)
        on_gpu = device.type == "cuda"
        parts, classes = 1 + tensors.with_mlp, len(model.text_features)
        self._host = torch.empty(
            parts, hospitals, chunks * self._rows, classes, dtype=self._images.dtype, pin_memory=on_gpu
        )
        self._kept = torch.empty(len(self._layers), hospitals, pin_memory=on_gpu)

    def begin(self) -> None:
        """Ask the models as they are now."""
        if len(self._images):
            logits = [self._step.logits(self._images[index]).clone() for index in self._index]
            self._host.copy_(F.log_softmax(torch.cat(logits, -2), -1), non_blocking=True)
        self._kept.copy_(torch.stack([self._keep_ratio(layer) for layer in self._layers]), non_blocking=True)
        self._replays.mark()

    def finish(self) -> list[Said]:
        """Return what each model said."""
        self._replays.wait_for_mark()
        said: dict[int, Said] = {}
        for k, (place, count) in enumerate(zip(self._places, self._counts, strict=True)):
            fam, *mlp = (part[k, :count].double().numpy() for part in self._host)
            ratios = {layer: float(kept[k]) for layer, kept in zip(self._layers, self._kept, strict=True)}
            said[place] = Said((fam, mlp[0] if mlp else None), ratios)
        return [said[place] for place in range(len(said))]

    def _keep_ratio(self, layer: str) -> Tensor:
        weight, threshold = (self._tensors.values.get(f"{layer}.{name}") for name in ("weight", "threshold"))
        assert weight is not None  # noqa: S101 (every layer has weights)
        if threshold is None:
            return torch.ones_like(weight[:, 0, 0])
        return (weight.abs().mean(-1) >= threshold).to(weight.dtype).mean(-1)
