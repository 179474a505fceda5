"""What hospitals keep is copied bit for bit and belongs to nobody else."""

import gc
import mmap
import weakref

import pytest
import torch

from clients.method import kept
from clients.method.kept import kept_copies


def tensors(width):
    draw = torch.Generator().manual_seed(1)
    return {
        "weight": torch.randn(width, width, generator=draw),
        "turned": torch.randn(3, 5, generator=draw).T,
        "double": torch.randn(7, generator=draw, dtype=torch.float64),
        "batches": torch.tensor(12),
        "trained": torch.nn.Parameter(torch.randn(4, generator=draw)),
    }


@pytest.mark.parametrize("width", [4, 300])
def test_copies_are_equal_and_apart(width):
    given = tensors(width)
    copies = kept_copies(given)
    assert list(copies) == list(given)
    for name, tensor in given.items():
        assert torch.equal(copies[name], tensor.detach())
        assert copies[name].dtype == tensor.dtype
        assert not copies[name].requires_grad
    for copy in copies.values():
        copy.zero_()
    assert all(torch.equal(tensor, tensors(width)[name]) for name, tensor in given.items())


def test_an_empty_tensor_is_copied():
    copies = kept_copies({"weight": torch.ones(300, 300), "none": torch.empty(0, 3)})
    assert copies["none"].shape == (0, 3)
    assert copies["weight"].all()


def test_the_memory_lives_as_long_as_the_last_copy(monkeypatch):
    class Pages(mmap.mmap):
        """One that can be watched."""

    made = []

    def pages(size):
        memory = Pages(-1, size)
        made.append(weakref.ref(memory))
        return memory

    monkeypatch.setattr(kept, "_pages", pages)
    copies = kept_copies(tensors(300))
    last = copies.pop("double")
    del copies
    gc.collect()
    assert made[0]() is not None
    assert torch.equal(last, tensors(300)["double"])
    del last
    gc.collect()
    assert made[0]() is None
