"""The kernels by rows of the feature adaptation module: one program an image, `row` = hospital * B + image.

Tensors of K hospitals lie side by side: float[K, B, width] by rows, float[K, width] for biases and keep masks.
"""
# mypy: disallow-untyped-decorators=False

import triton
import triton.language as tl

from clients.method.lean.fused.norms import softmax, standardised, standardised_backward


@triton.jit(do_not_specialize=["steps", "rows"])
def take_images(
    features: tl.tensor,
    all_labels: tl.tensor,
    all_weights: tl.tensor,
    order: tl.tensor,
    number: tl.tensor,
    base: tl.tensor,
    drop: tl.tensor,
    image: tl.tensor,
    seen: tl.tensor,
    mlp_input: tl.tensor,
    labels: tl.tensor,
    weights: tl.tensor,
    steps: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    fam_gain: tl.tensor,
    mlp_gain: tl.tensor,
    DROPS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Take the images of step `number`, drop entries of them, and write what the first layers see of them."""
    row = tl.program_id(0)
    k = row // rows
    place = tl.load(order + (k * steps + tl.load(number)) * rows + row % rows)
    tl.store(labels + row, tl.load(all_labels + place))
    tl.store(weights + row, tl.load(all_weights + place) * tl.load(base + row))
    column = tl.arange(0, WIDTH)
    inside = column < width
    x = tl.load(features + place * width + column, mask=inside, other=0.0)
    if DROPS:
        x *= tl.load(drop + row * width + column, mask=inside, other=0.0)
        x /= tl.maximum(tl.sqrt(tl.sum(x * x, 0)), 1e-12)
    tl.store(image + row * width + column, x, mask=inside)
    tl.store(seen + row * width + column, x * fam_gain, mask=inside)
    tl.store(mlp_input + (2 * row + 1) * width + column, x * mlp_gain, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def hidden_forward(
    linear: tl.tensor,
    bias: tl.tensor,
    keep: tl.tensor,
    hidden: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    WIDTH: tl.constexpr,
) -> None:
    """From x W^T of the first layer to relu6(norm(.))."""
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    of_layer = row // rows * width + column
    y = tl.load(linear + row * width + column, mask=inside, other=0.0)
    y += tl.load(bias + of_layer, mask=inside, other=0.0)
    y *= tl.load(keep + of_layer, mask=inside, other=0.0)
    normed, _ = standardised(y, inside, width)
    tl.store(hidden + row * width + column, tl.minimum(tl.maximum(normed, 0.0), 6.0), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def hidden_backward(
    linear: tl.tensor,
    bias: tl.tensor,
    keep: tl.tensor,
    to_hidden: tl.tensor,
    gradient: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    WIDTH: tl.constexpr,
) -> None:
    """From the gradient of relu6(norm(.)) to that of the first layer's output."""
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    of_layer = row // rows * width + column
    y = tl.load(linear + row * width + column, mask=inside, other=0.0)
    y += tl.load(bias + of_layer, mask=inside, other=0.0)
    y *= tl.load(keep + of_layer, mask=inside, other=0.0)
    normed, scale = standardised(y, inside, width)
    to_normed = tl.load(to_hidden + row * width + column, mask=inside, other=0.0)
    to_normed = tl.where((normed > 0.0) & (normed < 6.0), to_normed, 0.0)
    to_y = standardised_backward(to_normed, normed, scale, inside, width)
    tl.store(gradient + row * width + column, to_y, mask=inside)


@triton.jit
def _adapted(y: tl.tensor, x: tl.tensor, inside: tl.tensor, width: tl.tensor) -> tl.tensor:
    """Return attention, I~ of unit length and its length before, of the second layer's output."""
    attention = softmax(y, inside)
    longer = x + width * attention * x
    length = tl.maximum(tl.sqrt(tl.sum(longer * longer, 0)), 1e-12)
    return attention, longer / length, length


@triton.jit(do_not_specialize=["rows"])
def adapted_forward(
    linear: tl.tensor,
    bias: tl.tensor,
    keep: tl.tensor,
    image: tl.tensor,
    text: tl.tensor,
    prior: tl.tensor,
    mlp_input: tl.tensor,
    logits: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    classes: tl.tensor,
    scale: tl.tensor,
    adjustment: tl.tensor,
    mlp_gain: tl.tensor,
    WIDTH: tl.constexpr,
    CLASSES: tl.constexpr,
) -> None:
    """From x W^T of the second layer to I~, as the MLP sees it, and the FAM's logits."""
    row = tl.program_id(0)
    k = row // rows
    column = tl.arange(0, WIDTH)
    inside = column < width
    y = tl.load(linear + row * width + column, mask=inside, other=0.0)
    y += tl.load(bias + k * width + column, mask=inside, other=0.0)
    y *= tl.load(keep + k * width + column, mask=inside, other=0.0)
    x = tl.load(image + row * width + column, mask=inside, other=0.0)
    _, adapted, _ = _adapted(y, x, inside, width)
    tl.store(mlp_input + 2 * row * width + column, adapted * mlp_gain, mask=inside)
    c = tl.arange(0, CLASSES)
    real = c < classes
    prompts = tl.load(text + c[:, None] * width + column[None, :], mask=real[:, None] & inside[None, :], other=0.0)
    cosines = tl.sum(prompts * adapted[None, :], 1)
    log_prior = tl.load(prior + k * classes + c, mask=real, other=0.0)
    tl.store(logits + row * classes + c, scale * cosines + adjustment * log_prior, mask=real)


@triton.jit(do_not_specialize=["rows"])
def adapted_backward(
    linear: tl.tensor,
    bias: tl.tensor,
    keep: tl.tensor,
    image: tl.tensor,
    text: tl.tensor,
    to_cosines: tl.tensor,
    from_mlp: tl.tensor,
    gradient: tl.tensor,
    kept: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    classes: tl.tensor,
    mlp_gain: tl.tensor,
    TO_FAM: tl.constexpr,
    WIDTH: tl.constexpr,
    CLASSES: tl.constexpr,
) -> None:
    """From the gradients of the cosines and of the MLP's input to that of the second layer's output, kept rows too."""
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    of_layer = row // rows * width + column
    keeps = tl.load(keep + of_layer, mask=inside, other=0.0)
    y = tl.load(linear + row * width + column, mask=inside, other=0.0)
    y = (y + tl.load(bias + of_layer, mask=inside, other=0.0)) * keeps
    x = tl.load(image + row * width + column, mask=inside, other=0.0)
    attention, adapted, length = _adapted(y, x, inside, width)
    c = tl.arange(0, CLASSES)
    real = c < classes
    prompts = tl.load(text + c[:, None] * width + column[None, :], mask=real[:, None] & inside[None, :], other=0.0)
    of_cosines = tl.load(to_cosines + row * classes + c, mask=real, other=0.0)
    to_adapted = tl.sum(prompts * of_cosines[:, None], 0)
    if TO_FAM:
        to_adapted += mlp_gain * tl.load(from_mlp + row * width + column, mask=inside, other=0.0)
    along = tl.sum(to_adapted * adapted, 0)
    to_attention = (to_adapted - adapted * along) / (length / width) * x
    to_y = attention * (to_attention - tl.sum(to_attention * attention, 0))
    tl.store(gradient + row * width + column, to_y, mask=inside)
    tl.store(kept + row * width + column, to_y * keeps, mask=inside)
