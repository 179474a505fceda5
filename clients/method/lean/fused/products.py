"""The kernel of the products of few images with the weights of a layer: one program a block of columns of the result.

A product of 32 rows is done when the weights have been read: programs ask for tiles ahead of those they work on.
"""
# mypy: disallow-untyped-decorators=False

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def product(
    x: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    outputs: tl.tensor,
    inputs: tl.tensor,
    columns: tl.tensor,
    PRECISION: tl.constexpr,
    OF_INPUT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """Write x W^T float[K, B, out], or with OF_INPUT the first `columns` entries of x W float[K, B, columns].

    Shapes: weight float[K, out, in]; x float[K, B, in], or float[K, B, out] with OF_INPUT. `columns` is those of the
    result.
    """
    k = tl.program_id(1)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    wanted = column < columns
    b = tl.arange(0, ROWS)
    image = (b < rows)[:, None]
    weight += k.to(tl.int64) * outputs * inputs
    summed = outputs if OF_INPUT else inputs
    x += (k * rows + b)[:, None] * summed
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(0, summed, DEPTH):
        along = start + tl.arange(0, DEPTH)
        within = along < summed
        part = tl.load(x + along[None, :], mask=image & within[None, :], other=0.0)
        if OF_INPUT:
            here = along[:, None] * inputs + column[None, :]
            tile = tl.load(weight + here, mask=within[:, None] & wanted[None, :], other=0.0)
        else:
            here = column[:, None] * inputs + along[None, :]
            tile = tl.trans(tl.load(weight + here, mask=wanted[:, None] & within[None, :], other=0.0))
        total = tl.dot(part, tile, total, input_precision=PRECISION)
    tl.store(out + (k * rows + b)[:, None] * columns + column[None, :], total, mask=image & wanted[None, :])
