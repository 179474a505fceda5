"""Images read, decoded and resized in batches while the encoder computes: in threads, or in worker processes."""

import itertools
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from clients.data import BrokenImageError, ImageSource
from clients.data.quiet import quiet_decoders
from clients.encoders.errors import EncoderError
from clients.method.threads import usable_cores

_FEW_IMAGES = 64
"""Below this, starting worker processes takes longer than they save."""


_AHEAD = 2
"""Batches that threads decode ahead of the encoder."""

_MOST_THREADS = 4
"""More threads than this wait for Python's lock; processes are for more cores."""


@dataclass(frozen=True)
class DecodedBatch:
    """Some images of a list.

    Attributes:
        positions: Where in the list the decoded ones are.
        pixels: uint8[len(positions), H, W, 3].
        broken: Position and reason of those that cannot be decoded.
    """

    positions: tuple[int, ...]
    pixels: NDArray[np.uint8]
    broken: tuple[tuple[int, str], ...]


class _Images(Dataset[tuple[int, "NDArray[np.uint8] | str"]]):
    """Picklable list of images: their pixels at the encoder's size, or why there are none."""

    def __init__(
        self, source: ImageSource, paths: Sequence[str], resize: Callable[[Image.Image], NDArray[np.uint8]]
    ) -> None:
        self._source = source
        self._paths = tuple(paths)
        self._resize = resize

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[int, NDArray[np.uint8] | str]:
        try:
            image = self._source.load(self._paths[index])
        except BrokenImageError as error:
            return index, error.reason
        return index, self._resize(image)


def _collate(items: list[tuple[int, NDArray[np.uint8] | str]]) -> DecodedBatch:
    decoded = [(index, item) for index, item in items if not isinstance(item, str)]
    broken = tuple((index, item) for index, item in items if isinstance(item, str))
    pixels = np.stack([item for _, item in decoded]) if decoded else np.empty((0, 1, 1, 3), np.uint8)
    return DecodedBatch(tuple(index for index, _ in decoded), pixels, broken)


def decoded_batches(
    source: ImageSource,
    paths: Sequence[str],
    resize: Callable[[Image.Image], NDArray[np.uint8]],
    batch_size: int,
    workers: int,
) -> Iterator[DecodedBatch]:
    """Yield the images in order, `batch_size` at a time; what cannot be decoded is reported in its batch.

    Without worker processes threads decode the next two batches while the caller uses the last one: decoding and
    resizing do not hold Python's lock. From worker processes batches come back through a pipe and not through shared
    memory, of which containers often have too little.

    Raises:
        EncoderError: A worker process died (as a rule for want of memory).
    """
    images = _Images(source, paths, resize)
    if not workers or len(paths) < _FEW_IMAGES:
        with quiet_decoders():
            yield from _decoded_in_threads(images, batch_size)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more workers than cores: whoever asked for them has a reason
        loader = DataLoader(
            images,
            batch_size=batch_size,
            num_workers=workers,
            collate_fn=_collate,
        )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise EncoderError("a process that decodes images died; use fewer --workers (0 needs least memory)") from error


def _decoded_in_threads(images: _Images, batch_size: int) -> Iterator[DecodedBatch]:
    """Yield the batches, at most two of them decoded ahead; each thread uses one core."""
    before = torch.get_num_threads()
    threads = ThreadPoolExecutor(min(usable_cores(), _MOST_THREADS), initializer=torch.set_num_threads, initargs=(1,))
    ahead: deque[Future[tuple[int, NDArray[np.uint8] | str]]] = deque()
    left = iter(range(len(images)))
    try:
        for start in range(0, len(images), batch_size):
            for index in itertools.islice(left, (_AHEAD + 1) * batch_size - len(ahead)):
                ahead.append(threads.submit(images.__getitem__, index))
            batch = [ahead.popleft() for _ in range(min(batch_size, len(images) - start))]
            yield _collate([item.result() for item in batch])
    finally:
        threads.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # threads that start later take the last number that was set anywhere


def choose_workers(workers: int, device: torch.device) -> int:
    """Resolve -1: on a CPU half of the cores (at most 8) from four on, else none; on CUDA all but one (at most 12)."""
    if workers >= 0:
        return workers
    cores = usable_cores()
    if device.type == "cpu":
        return min(8, cores // 2) if cores >= 4 else 0
    return max(1, min(12, cores - 1))
