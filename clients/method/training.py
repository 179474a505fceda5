"""Local training: the passes of one round over a hospital's features."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.method.masked_linear import MaskedLinear
from clients.method.model import HospitalModel
from clients.method.optimizer import adamw
from clients.method.settings import TrainingSettings


def make_optimizer(model: HospitalModel, settings: TrainingSettings, round_number: int) -> torch.optim.AdamW:
    """Return a fresh AdamW (fused) with the learning rates of the round, counted from 1."""
    mlp = [] if model.mlp is None else list(model.mlp.parameters())
    return adamw(list(model.fam.parameters()), mlp, settings, round_number)


def class_weights(labels: npt.NDArray[np.int64], num_classes: int, exponent: float) -> npt.NDArray[np.float32] | None:
    """Return float32[C] proportional to n_c ** -exponent, with mean 1 over the images; None where all weigh alike."""
    if exponent == 0.0 or not len(labels):
        return None
    counts = np.bincount(labels, minlength=num_classes).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1.0) ** -exponent, 0.0)
    normalised: npt.NDArray[np.float32] = (weights * len(labels) / (weights * counts).sum()).astype(np.float32)
    return normalised


def train_epochs(
    model: HospitalModel,
    optimizer: torch.optim.Optimizer,
    image_features: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    settings: TrainingSettings,
    generator: torch.Generator,
) -> int:
    """Train for `local_epochs` passes over shuffled batches and return the number of steps.

    The last batch of a pass may be smaller; if it has a single image and the MLP uses batch norm, it is left out.
    After each pass a masked layer that keeps at most `reset_keep_ratio` of its rows gets its thresholds set back to
    0.

    Args:
        model: Trained in place.
        optimizer: Over the model's parameters.
        image_features: float32[N, D] on the model's device.
        labels: int64[N] there too.
        weights: float32[C] loss weights of the classes, or None.
        settings: Batch size, epochs, reset.
        generator: On the model's device; draws the order and the dropout.
    """
    layers = [module for module in model.modules() if isinstance(module, MaskedLinear) and module.learned]
    layers = [layer for layer in layers if layer.weight.requires_grad]  # the others do not move
    least = 2 if model.mlp is not None and settings.mlp_norm == "batch" else 1
    model.train()
    steps = 0
    for _ in range(settings.local_epochs):
        order = torch.randperm(len(labels), generator=generator, device=image_features.device)
        features, targets = image_features[order], labels[order]
        for start in range(0, len(labels), settings.batch_size):
            x, y = features[start : start + settings.batch_size], targets[start : start + settings.batch_size]
            if len(y) < least:
                continue
            model.loss(x, y, weights, generator).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
        for layer in layers:
            layer.reset_if_at_most(settings.reset_keep_ratio)
    return steps


@torch.no_grad()
def refresh_batch_norm(model: HospitalModel, image_features: Tensor) -> None:
    """Replace the batch norms' running statistics by those of features float32[N, D] under the current weights.

    For an MLP whose weights were averaged with other hospitals' and so no longer belong to the statistics it has.
    Nothing happens without batch norm or with fewer than two images. Dropout is off: the statistics are those of
    prediction, whatever mode the model was in. The model is left in eval mode.
    """
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    if not norms or len(image_features) < 2:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # one pass over everything: the plain mean
        norm.train()
    model(image_features)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
