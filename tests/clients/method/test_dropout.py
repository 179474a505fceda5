"""Draws for dropout."""

import pytest
import torch

from clients.method.dropout import draw_ones


def generator():
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 0.999, 1.0])
def test_an_entry_is_one_where_its_uniform_number_is_below_the_probability(dtype, probability):
    uniform = torch.empty(40, 30, dtype=torch.float64).uniform_(generator=generator())
    drawn = draw_ones(torch.empty(40, 30, dtype=dtype), probability, generator())
    assert drawn.dtype == dtype
    assert torch.equal(drawn, (uniform < probability).to(dtype))


def test_memory_that_is_given_changes_nothing_but_the_memory():
    memory = torch.empty(7, 9, dtype=torch.float64)
    target = torch.empty(7, 9)
    assert draw_ones(target, 0.4, generator(), memory) is target
    assert torch.equal(target, draw_ones(torch.empty(7, 9), 0.4, generator()))
    assert torch.equal(target, (memory < 0.4).float())


def test_the_share_of_ones_is_the_probability():
    """A draw of 10^6 misses its mean by more than 7 standard deviations with probability below 3e-12."""
    ones = draw_ones(torch.empty(1000, 1000), 0.7, generator()).sum().item()
    assert abs(ones - 700_000) < 7 * (1e6 * 0.7 * 0.3) ** 0.5


def test_the_next_draw_goes_on_where_the_last_one_ended():
    one, two = generator(), generator()
    parts = [draw_ones(torch.empty(3), 0.5, one), draw_ones(torch.empty(5), 0.5, one)]
    assert torch.equal(torch.cat(parts), draw_ones(torch.empty(8), 0.5, two))
