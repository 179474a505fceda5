"""Images read, decoded and preprocessed in batches, in worker processes where that pays."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clients.data import BrokenImageError, ImageSource
from clients.encoders.errors import EncoderError

_FEW_IMAGES = 64
"""Below this, starting worker processes takes longer than they save."""


@dataclass(frozen=True)
class DecodedBatch:
    """Some images of a list.

    Attributes:
        positions: Where in the list the decoded ones are.
        pixels: float32[len(positions), 3, H, W].
        broken: Position and reason of those that cannot be decoded.
    """

    positions: tuple[int, ...]
    pixels: NDArray[np.float32]
    broken: tuple[tuple[int, str], ...]


class _Images(Dataset[tuple[int, "NDArray[np.float32] | str"]]):
    """Picklable list of images: preprocessed pixels, or why there are none."""

    def __init__(self, source: ImageSource, paths: Sequence[str], preprocess: Callable[[Image.Image], Tensor]) -> None:
        self._source = source
        self._paths = tuple(paths)
        self._preprocess = preprocess

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[int, NDArray[np.float32] | str]:
        try:
            image = self._source.load(self._paths[index])
        except BrokenImageError as error:
            return index, error.reason
        return index, self._preprocess(image).numpy()


def _collate(items: list[tuple[int, NDArray[np.float32] | str]]) -> DecodedBatch:
    decoded = [(index, item) for index, item in items if not isinstance(item, str)]
    broken = tuple((index, item) for index, item in items if isinstance(item, str))
    pixels = np.stack([item for _, item in decoded]) if decoded else np.empty((0, 3, 1, 1), np.float32)
    return DecodedBatch(tuple(index for index, _ in decoded), pixels, broken)


def decoded_batches(
    source: ImageSource,
    paths: Sequence[str],
    preprocess: Callable[[Image.Image], Tensor],
    batch_size: int,
    workers: int,
) -> Iterator[DecodedBatch]:
    """Yield the images in order, `batch_size` at a time; what cannot be decoded is reported in its batch.

    Batches come back through a pipe and not through shared memory, of which containers often have too little.

    Raises:
        EncoderError: A worker process died (as a rule for want of memory).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more workers than cores: whoever asked for them has a reason
        loader = DataLoader(
            _Images(source, paths, preprocess),
            batch_size=batch_size,
            num_workers=workers if len(paths) >= _FEW_IMAGES else 0,
            collate_fn=_collate,
        )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise EncoderError("a process that decodes images died; use fewer --workers (0 needs least memory)") from error


def choose_workers(workers: int, device: torch.device) -> int:
    """Resolve -1: on a CPU half of the cores (at most 8) from four on, else none; on CUDA all but one (at most 12)."""
    if workers >= 0:
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device.type == "cpu":
        return min(8, cores // 2) if cores >= 4 else 0
    return max(1, min(12, cores - 1))
