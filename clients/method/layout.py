"""The shared vector: which parameters it holds, in which order, and how it starts."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.method.fam import FeatureAdaptationModule
from clients.method.mlp import PrivateMlp
from clients.method.settings import AGGREGATED_METHODS, METHODS, SettingsError, TrainingSettings

Vector = npt.NDArray[np.float32]


def seeded_generator(purpose: str, seed: int, *parts: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a generator that depends on nothing but its arguments (SHA-256 of them, first 63 bits)."""
    text = "\x1f".join(["clients.method", purpose, str(seed), *map(str, parts)])
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def vector_layout(
    embed_dim: int, settings: TrainingSettings, method: str = "fedmedclip", num_classes: int = 0
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return names and shapes of the shared parameters in the order in which the vector holds them.

    The FAM, for `fedavg-mlp` followed by the MLP (its batch-norm statistics are no part of it: each hospital computes
    its own); nothing for methods that share nothing.

    Args:
        embed_dim: Width D of the features.
        settings: Form of FAM and MLP.
        method: One of `METHODS`.
        num_classes: Number C of classes; needed for `fedavg-mlp` only.

    Raises:
        SettingsError: The method is unknown, or `fedavg-mlp` comes without classes.
    """
    parameters = shared_parameters(*_fresh_parts(embed_dim, settings, method, num_classes, generator=None))
    return tuple((name, tuple(parameter.shape)) for name, parameter in parameters)


def initial_vector(
    embed_dim: int, settings: TrainingSettings, seed: int, method: str = "fedmedclip", num_classes: int = 0
) -> Vector:
    """Return float32[d], the shared parameters before the first round; arguments and errors as in `vector_layout`."""
    generator = seeded_generator("initial vector", seed)
    return flatten(shared_parameters(*_fresh_parts(embed_dim, settings, method, num_classes, generator)))


def shared_parameters(
    fam: FeatureAdaptationModule | None, mlp: PrivateMlp | None
) -> list[tuple[str, torch.nn.Parameter]]:
    """Return the named parameters of the parts that are shared, FAM first."""
    parts = (("fam", fam), ("mlp", mlp))
    return [
        (f"{part}.{name}", p) for part, module in parts if module is not None for name, p in module.named_parameters()
    ]


def flatten(parameters: Iterable[tuple[str, Tensor]]) -> Vector:
    """Return the parameters as one float32 vector on the CPU (a copy)."""
    flat = [parameter.detach().reshape(-1).cpu() for _, parameter in parameters]
    return torch.cat(flat).numpy().astype(np.float32, copy=False) if flat else np.zeros(0, np.float32)


@torch.no_grad()
def unflatten(vector: Vector, parameters: Iterable[tuple[str, Tensor]]) -> None:
    """Copy a vector into the parameters.

    Raises:
        ValueError: The vector's length is not that of the parameters.
    """
    named = list(parameters)
    length = sum(parameter.numel() for _, parameter in named)
    if vector.shape != (length,):
        raise ValueError(f"the shared vector has shape {vector.shape}, these settings need ({length},)")
    source = torch.from_numpy(np.require(vector, np.float32, ["C", "W"]))  # a copy only where it must not be written to
    offset = 0
    for _, parameter in named:
        parameter.copy_(source[offset : offset + parameter.numel()].view(parameter.shape))
        offset += parameter.numel()


def _fresh_parts(
    embed_dim: int, settings: TrainingSettings, method: str, num_classes: int, generator: torch.Generator | None
) -> tuple[FeatureAdaptationModule | None, PrivateMlp | None]:
    if method not in METHODS:
        raise SettingsError("method", f"is {method!r}; use one of {', '.join(METHODS)}")
    if method not in AGGREGATED_METHODS:
        return None, None
    fam = FeatureAdaptationModule(embed_dim, settings, generator)
    if method != "fedavg-mlp":
        return fam, None
    if num_classes < 1:
        raise SettingsError("num_classes", "is needed to share the MLP")
    return fam, PrivateMlp(embed_dim, num_classes, settings, generator)
