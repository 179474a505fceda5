"""How images and class names are turned into features."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clients.encoders.errors import FeatureCacheError

DEFAULT_TEMPLATE = "a picture of a {class}"
"""Prompt of a class. Paper: FedMedCLIP (arXiv 2511.07929), section on class prompts."""

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class EncodeOptions:
    """How images and class names are turned into features.

    Attributes:
        templates: Prompts of a class, each with `{class}` once or more; the features of several are averaged.
        class_prompts: Class name to its own prompts, which replace the templates for it.
        batch_size: Images a batch; 0 lets the device decide.
        workers: Processes that decode images; 0 decodes in this one, -1 lets the number of cores decide.
        device: `auto` (a CUDA device where there is one), `cpu` or `cuda`.
        precision: `auto` (fp32 on a CPU; bf16, or else fp16, on a CUDA device), `fp32`, `bf16` or `fp16`.
        cache_dir: Folder of the feature cache; None takes default_cache_dir().
        strict: Refuse a data set with an image that cannot be decoded, instead of leaving it out.
    """

    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)
    class_prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    batch_size: int = 0
    workers: int = -1
    device: str = "auto"
    precision: str = "auto"
    cache_dir: Path | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if not self.templates or not all("{class}" in template for template in self.templates):
            raise ValueError(f"templates {self.templates} must each contain {{class}}")
        for label, prompts in self.class_prompts.items():
            if not prompts or not all(prompts):
                raise ValueError(f"class_prompts of {label!r} must be one or more texts")
        if self.batch_size < 0:
            raise ValueError(f"batch_size {self.batch_size} is negative; 0 lets the device decide")
        if self.workers < -1:
            raise ValueError(f"workers {self.workers} must be -1 (automatic), 0 or a number of processes")
        if self.device not in DEVICES:
            raise ValueError(f"device {self.device!r} must be one of {', '.join(DEVICES)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} must be one of {', '.join(PRECISIONS)}")


def default_cache_dir() -> Path:
    """Return the folder of the feature cache: SECUREFED_CACHE, else securefed/ in XDG_CACHE_HOME or ~/.cache.

    Raises:
        FeatureCacheError: None of them is set, and the user has no home folder.
    """
    named = os.environ.get("SECUREFED_CACHE")
    if named:
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "securefed"
    except RuntimeError as error:
        raise FeatureCacheError("~/.cache", "this user has no home folder") from error
