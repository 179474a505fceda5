"""Draws for dropout."""

import torch
from torch import Tensor


def draw_ones(
    target: Tensor, probability: float, generator: torch.Generator | None, memory: Tensor | None = None
) -> Tensor:
    """Fill a tensor with ones at a probability and zeros elsewhere, and return it.

    On a processor each entry compares one uniform number of 53 bits. Those are the ones of `Tensor.bernoulli_` where
    torch does not leave them to MKL, in less than half of its time (no branch to guess) and on every make of processor.

    Args:
        target: float[...], overwritten.
        probability: Of a one, in [0, 1].
        generator: On the target's device; None for torch's own.
        memory: float64[...] of the target's shape, overwritten; made anew where it is not given.
    """
    if target.device.type != "cpu":
        return target.bernoulli_(probability, generator=generator)
    uniform = torch.empty_like(target, dtype=torch.float64) if memory is None else memory
    return torch.lt(uniform.uniform_(generator=generator), probability, out=target)
