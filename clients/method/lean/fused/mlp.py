"""The kernel by rows of the private MLP and of the losses: forward and backward pass of one image in one program."""
# mypy: disallow-untyped-decorators=False

import triton
import triton.language as tl

from clients.method.lean.fused.norms import log_softmax, softmax, standardised, standardised_backward


@triton.jit
def _less_negative_entropy(log_p: tl.tensor, p: tl.tensor, tiny: tl.tensor) -> tl.tensor:
    """Return -H(p), less the smallest normal number: a ratio of two of them is defined where both are 0."""
    return tl.sum(p * log_p, 0) - tiny


@triton.jit(do_not_specialize=["rows"])
def mlp_both_ways(
    linear: tl.tensor,
    bias: tl.tensor,
    keep: tl.tensor,
    norm_weight: tl.tensor,
    norm_bias: tl.tensor,
    drop: tl.tensor,
    head: tl.tensor,
    head_bias: tl.tensor,
    head_keep: tl.tensor,
    fam_logits: tl.tensor,
    labels: tl.tensor,
    weights: tl.tensor,
    base: tl.tensor,
    hidden: tl.tensor,
    normed_out: tl.tensor,
    to_norm: tl.tensor,
    gradient: tl.tensor,
    kept: tl.tensor,
    head_linear: tl.tensor,
    to_head: tl.tensor,
    to_cosines: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    classes: tl.tensor,
    undropped: tl.tensor,
    smoothing: tl.tensor,
    strength: tl.tensor,
    temperature: tl.tensor,
    scale: tl.tensor,
    tiny: tl.tensor,
    DROPS: tl.constexpr,
    ADAPTIVE: tl.constexpr,
    WIDTH: tl.constexpr,
    CLASSES: tl.constexpr,
) -> None:
    """From x W^T of the hidden layer to the gradients of the cosines, of the head's and of the hidden layer's outputs.

    Weights float[K, B] of the images count in both cross entropies, `base` float[K, B] (one over the number of images,
    0 for rows that are none) in the distillation; `strength` is its factor over the temperature.
    """
    row = tl.program_id(0)
    k = row // rows
    column = tl.arange(0, WIDTH)
    inside = column < width
    here, of_layer = row * width + column, k * width + column
    c = tl.arange(0, CLASSES)
    real = c < classes
    keeps = tl.load(keep + of_layer, mask=inside, other=0.0)
    y = tl.load(linear + here, mask=inside, other=0.0)
    y = (y + tl.load(bias + of_layer, mask=inside, other=0.0)) * keeps
    normed, factor = standardised(y, inside, width)
    gain = tl.load(norm_weight + of_layer, mask=inside, other=0.0)
    positive = tl.maximum(normed * gain + tl.load(norm_bias + of_layer, mask=inside, other=0.0), 0.0)
    share = tl.where(positive > 0.0, 1.0, 0.0)
    if DROPS:
        drops = tl.load(drop + here, mask=inside, other=0.0) / undropped
        positive *= drops
        share *= drops
    tl.store(hidden + here, positive, mask=inside)
    tl.store(normed_out + here, normed, mask=inside)

    of_head = k * classes * width + c[:, None] * width + column[None, :]
    matrix = tl.load(head + of_head, mask=real[:, None] & inside[None, :], other=0.0)
    of_class, at_class = k * classes + c, row * classes + c
    head_keeps = tl.load(head_keep + of_class, mask=real, other=0.0)
    product = tl.sum(matrix * positive[None, :], 1)
    tl.store(head_linear + at_class, product, mask=real)
    of_mlp = (product + tl.load(head_bias + of_class, mask=real, other=0.0)) * head_keeps
    of_fam = tl.load(fam_logits + at_class, mask=real, other=0.0)

    log_fam, log_mlp = log_softmax(of_fam, real), log_softmax(of_mlp, real)
    p_fam = tl.where(real, tl.exp(log_fam), 0.0)
    p_mlp = tl.where(real, tl.exp(log_mlp), 0.0)
    target = tl.where(c == tl.load(labels + row), 1.0 - smoothing, 0.0) + smoothing / classes
    weight = tl.load(weights + row)
    to_fam = (p_fam - target) * weight
    to_mlp = (p_mlp - target) * weight
    fam_share = 0.5
    if ADAPTIVE:
        certain_fam = _less_negative_entropy(log_fam, p_fam, tiny)
        certain_mlp = _less_negative_entropy(log_mlp, p_mlp, tiny)
        fam_share = certain_fam / (certain_fam + certain_mlp)
    difference = softmax(of_fam / temperature, real) - softmax(of_mlp / temperature, real)
    difference *= strength * tl.load(base + row)
    to_fam += difference * fam_share
    to_mlp -= difference * (1.0 - fam_share)
    to_mlp = tl.where(real, to_mlp, 0.0)
    tl.store(to_cosines + at_class, to_fam * scale, mask=real)
    tl.store(to_head + at_class, to_mlp, mask=real)

    to_positive = tl.sum(matrix * (to_mlp * head_keeps)[:, None], 0)
    to_normed = to_positive * share
    tl.store(to_norm + here, to_normed, mask=inside)
    to_y = standardised_backward(to_normed * gain, normed, factor, inside, width)
    tl.store(gradient + here, to_y, mask=inside)
    tl.store(kept + here, to_y * keeps, mask=inside)
