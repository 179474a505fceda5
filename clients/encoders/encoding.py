"""Running images and texts through a frozen encoder, in batches of one fixed size.

The last bits of a feature depend on the size of its batch (other blocks, other order of sums). So batches are always
filled up to one size, with zeros in the last one, and the same images in the same order give the same bits. With
batches of a multiple of 16 a feature also came out the same, bit by bit, at every place in a batch and beside any
other images, for every encoder that was tried on a CPU (MobileNet v2, EfficientNet, ViT-B/32); that rests on the
kernels of the machine's libraries and is no promise of theirs.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.data import ImageSource
from clients.encoders.decoding import DecodedBatch, choose_workers, decoded_batches
from clients.encoders.frozen import FrozenEncoder

CPU_BATCH = 16
"""Among the fastest of 1 to 128 for MobileNet v2 and ViT-B/32 on one core; larger ones fall out of its cache."""

CUDA_BATCH = 128

TEXT_BATCH = 16

_AHEAD = 2
"""Batches that a GPU has to compute while the next one is made ready."""


@dataclass(frozen=True)
class EncodedBatch:
    """Features float32[n, D] of the images at `positions`, and position and reason of those that are broken."""

    positions: tuple[int, ...]
    features: NDArray[np.float32]
    broken: tuple[tuple[int, str], ...]


def encode_batches(
    encoder: FrozenEncoder,
    source: ImageSource,
    paths: Sequence[str],
    batch_size: int,
    workers: int,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    fill_up: bool = True,
) -> Iterator[EncodedBatch]:
    """Yield the features of images, batch by batch and in order.

    Args:
        encoder: The encoder.
        source: Decodes the images.
        paths: The images.
        batch_size: Images a batch; 0 takes CPU_BATCH or CUDA_BATCH.
        workers: Decoding processes; 0 for none, -1 by the number of cores.
        on_progress: Called after every batch with the images done and their total.
        fill_up: Bring the last batch to the common size, which costs time and makes features independent of what is
            encoded beside them.

    Raises:
        EncoderError: A decoding process died.
    """
    size = batch_size or (CPU_BATCH if encoder.device.type == "cpu" else CUDA_BATCH)
    done = 0
    begun: deque[tuple[DecodedBatch, Callable[[], Tensor]]] = deque()
    decoded = decoded_batches(source, paths, encoder.resize, size, choose_workers(workers, encoder.device))
    for batch in chain(decoded, [None]):
        if batch is not None:
            pixels = torch.from_numpy(batch.pixels)
            count = size if fill_up else len(pixels)
            begun.append((batch, encoder.begin_images(_filled(pixels, count)) if len(pixels) else _nothing(encoder)))
        while len(begun) > (_AHEAD if batch is not None and encoder.device.type == "cuda" else 0):
            first, features = begun.popleft()
            done += len(first.positions) + len(first.broken)
            yield EncodedBatch(first.positions, features()[: len(first.positions)].numpy(), first.broken)
            if on_progress is not None:
                on_progress(done, len(paths))


def encode_texts(encoder: FrozenEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the features of texts, rows of norm 1: float32[N, D]. Batches are filled up as those of images are."""
    rows = []
    for start in range(0, len(texts), TEXT_BATCH):
        chunk = list(texts[start : start + TEXT_BATCH])
        filled = chunk + [""] * (TEXT_BATCH - len(chunk))
        rows.append(encoder.encode_texts(filled)[: len(chunk)].numpy())
    return np.concatenate(rows)


def _nothing(encoder: FrozenEncoder) -> Callable[[], Tensor]:
    """No features: of a batch in which every image is broken."""
    return lambda: torch.empty(0, encoder.card.embed_dim)


def _filled(pixels: Tensor, size: int) -> Tensor:
    if len(pixels) == size:
        return pixels
    return torch.cat([pixels, pixels.new_zeros((size - len(pixels), *pixels.shape[1:]))])
