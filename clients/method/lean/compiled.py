"""What torch does to a layer in several passes, as one compiled loop each: on a processor, one hospital at a time."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]
Loop = Callable[..., None]

_COLUMNS = 16
"""Of an output, written together: a cache line of single precision."""

_INEXACT = {"reassoc", "contract", "nsz"}
"""Sums in any order and products added unrounded, so that loops are vectorised; NaN and infinity stay what they are."""


def is_compiled(device: torch.device) -> bool:
    """Return whether one hospital's layers on a device take the compiled loops."""
    return device.type == "cpu"


class CompiledMove:
    """Straight-through gradient, AdamW and the new sums of |w| for some rows of a layer's weights, in one pass.

    Args:
        weight: float[r, in], contiguous as all of these.
        gradient: float[r, in], holds (gradient of the output, masked)^T x, the product alone, when it is called.
        mean: float[r, in], the first moment.
        square: float[r, in], the second.
        total: float[r], receives the sums of |w| of the moved weights over each row.
    """

    def __init__(self, weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, total: Tensor) -> None:
        self._arrays = tuple(tensor.numpy() for tensor in (weight, gradient, mean, square, total))
        self._move = compiled(_move)

    def __call__(self, factor: Tensor, numbers: tuple[float, ...]) -> None:
        """Move the weights.

        Args:
            factor: float[r]; times the sign of a weight it is what its gradient has beside the product.
            numbers: `FusedAdamW.numbers`.
        """
        self._move(*self._arrays, factor.numpy(), np.array(numbers, self._arrays[0].dtype))


class CompiledMask:
    """Bias and mask of a layer whose product is W x^T, which is made in two thirds of the time of x W^T.

    Args:
        product: float[out, B], holds W x^T when it is called; contiguous as all of these.
        bias: float[out].
        keep: float[1, out], 1 for rows that are kept and 0 for the others.
        linear: float[B, out], receives x W^T + b.
        output: float[B, out], receives that times the mask.
    """

    def __init__(self, product: Tensor, bias: Tensor, keep: Tensor, linear: Tensor, output: Tensor) -> None:
        self._arrays = tuple(tensor.numpy() for tensor in (product, bias, keep.squeeze(0), linear, output))
        self._mask = compiled(_mask)

    def __call__(self) -> None:
        """Write both."""
        self._mask(*self._arrays)


@cache
def compiled(loop: Loop) -> Loop:
    """Return a loop as machine code, made at its first call for a precision and kept on disk where that is possible."""
    import numba

    decorate = numba.njit(nogil=True, fastmath=_INEXACT, error_model="numpy")
    made: Loop = decorate(loop)
    with suppress(RuntimeError):  # where nothing can be written, each process makes its own
        made.enable_caching()  # type: ignore[attr-defined]
    return made


def _move(
    weight: Array, product: Array, mean: Array, square: Array, total: Array, factor: Array, numbers: Array
) -> None:
    towards_gradient, keep_square, add_square, keep_weight, rate, scale, epsilon = numbers
    for i in range(weight.shape[0]):
        straight, size = factor[i], total.dtype.type(0)
        for j in range(weight.shape[1]):
            w = weight[i, j]
            gradient = product[i, j] + (straight if w > 0 else -straight)
            m = mean[i, j] + (gradient - mean[i, j]) * towards_gradient
            v = square[i, j] * keep_square + gradient * gradient * add_square
            mean[i, j] = m
            square[i, j] = v
            w = w * keep_weight - rate * m / (np.sqrt(v) * scale + epsilon)
            weight[i, j] = w
            size += np.abs(w)
        total[i] = size


def _mask(product: Array, bias: Array, keep: Array, linear: Array, output: Array) -> None:
    outputs, rows = product.shape
    for start in range(0, outputs, _COLUMNS):
        for i in range(rows):
            for j in range(start, min(start + _COLUMNS, outputs)):
                y = product[j, i] + bias[j]
                linear[i, j] = y
                output[i, j] = y * keep[j]
