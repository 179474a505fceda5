"""Parts of the kernels by rows: layer norm and softmax of one row in registers."""
# mypy: disallow-untyped-decorators=False

import triton
import triton.language as tl


@triton.jit
def standardised(y: tl.tensor, inside: tl.tensor, width: tl.tensor) -> tl.tensor:
    """Return a row with mean 0 and variance 1 (0 outside), and the factor that made it so; epsilon is 1e-5."""
    mean = tl.sum(tl.where(inside, y, 0.0), 0) / width
    centred = tl.where(inside, y - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / width + 1e-5)
    return centred * scale, scale


@triton.jit
def standardised_backward(
    gradient: tl.tensor, normed: tl.tensor, scale: tl.tensor, inside: tl.tensor, width: tl.tensor
) -> tl.tensor:
    """Return the gradient of y, given that of the standardised y."""
    gradient = tl.where(inside, gradient, 0.0)
    mean = tl.sum(gradient, 0) / width
    slope = tl.sum(gradient * normed, 0) / width
    return tl.where(inside, (gradient - mean - normed * slope) * scale, 0.0)


@triton.jit
def softmax(y: tl.tensor, inside: tl.tensor) -> tl.tensor:
    """Return the softmax of a row, 0 outside."""
    y = tl.where(inside, y, float("-inf"))
    powers = tl.exp(y - tl.max(y, 0))
    return powers / tl.sum(powers, 0)


@triton.jit
def log_softmax(y: tl.tensor, inside: tl.tensor) -> tl.tensor:
    """Return the logarithm of the softmax of a row, 0 outside."""
    y = tl.where(inside, y, float("-inf"))
    shifted = y - tl.max(y, 0)
    return tl.where(inside, shifted - tl.log(tl.sum(tl.exp(shifted), 0)), 0.0)
