"""Memory for what hospitals keep between rounds: it goes back to the system when nobody has it any more.

Thousands of hospitals allocate and free megabytes in turn, in several threads. On the heap that leaves holes as large
as what is kept.
"""

import mmap
from collections.abc import Mapping

import torch
from torch import Tensor

_ALIGNED = 64
"""Bytes, a line of the cache."""

_LEAST = 1 << 18
"""Bytes; smaller sets stay on the heap."""


def kept_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies; those of a processor's tensors lie in one piece of memory of their own, freed with the last."""
    sizes = [-(-tensor.nbytes // _ALIGNED) * _ALIGNED for tensor in tensors.values()]
    if sum(sizes) < _LEAST or any(t.device.type != "cpu" or not t.numel() for t in tensors.values()):
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}
    memory = _pages(sum(sizes))
    copies: dict[str, Tensor] = {}
    start = 0
    for (name, tensor), size in zip(tensors.items(), sizes, strict=True):
        copy = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=start).view(tensor.shape)
        copies[name] = copy.copy_(tensor.detach())
        start += size
    return copies


def _pages(size: int) -> mmap.mmap:
    """Fresh private memory of at least so many bytes."""
    if hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, size)
