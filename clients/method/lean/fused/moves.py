"""The kernels that move the parameters of all layers and say which rows of their weights are kept.

One program takes `BLOCK` rows of one layer's weights of one hospital. Layers differ in where their tensors are: a table
int64[layers, FIELDS] has their addresses and shapes, a table int32[blocks, 2] the layer and the first row of a block.
Tensors of K hospitals lie side by side, weights float[K, out, in] and all that a row has one of float[K, out].
"""
# mypy: disallow-untyped-decorators=False

import triton
import triton.language as tl

FIELDS = (
    *(f"{role}{name}" for name in ("weight", "bias", "threshold") for role in ("", "mean_", "square_")),
    *("seen", "gradient", "linear", "keep", "slope"),
    *("outputs", "inputs", "of_fam", "has_norm"),
    *(f"{role}{name}" for name in ("norm_weight", "norm_bias") for role in ("", "mean_", "square_")),
    *("normed", "to_norm"),
)
"""Of a layer: the addresses of its parameters and of their two moments; of what it saw float[K, B, in], of the gradient
of its output and of x W^T, both float[K, B, out]; of its keep mask and of the mask's slope; its rows, and its columns
over 16 (so that the compiler knows that they are a multiple of it); whether it is the FAM's; and, where a norm is
behind it, the same of the norm, its standardised input and the gradient of its output."""

_COUNT = tl.constexpr(len(FIELDS))
_MEAN = tl.constexpr(1)
_SQUARE = tl.constexpr(2)
_WEIGHT = tl.constexpr(FIELDS.index("weight"))
_BIAS = tl.constexpr(FIELDS.index("bias"))
_THRESHOLD = tl.constexpr(FIELDS.index("threshold"))
_SEEN = tl.constexpr(FIELDS.index("seen"))
_GRADIENT = tl.constexpr(FIELDS.index("gradient"))
_LINEAR = tl.constexpr(FIELDS.index("linear"))
_KEEP = tl.constexpr(FIELDS.index("keep"))
_SLOPE = tl.constexpr(FIELDS.index("slope"))
_OUTPUTS = tl.constexpr(FIELDS.index("outputs"))
_INPUTS = tl.constexpr(FIELDS.index("inputs"))
_OF_FAM = tl.constexpr(FIELDS.index("of_fam"))
_HAS_NORM = tl.constexpr(FIELDS.index("has_norm"))
_NORM_WEIGHT = tl.constexpr(FIELDS.index("norm_weight"))
_NORM_BIAS = tl.constexpr(FIELDS.index("norm_bias"))
_NORMED = tl.constexpr(FIELDS.index("normed"))
_TO_NORM = tl.constexpr(FIELDS.index("to_norm"))


@triton.jit
def _at(entry: tl.tensor, field: tl.constexpr) -> tl.tensor:
    return tl.load(entry + field).to(tl.pointer_type(tl.float32))


@triton.jit
def _size(entry: tl.tensor, field: tl.constexpr) -> tl.tensor:
    return tl.load(entry + field).to(tl.int32)


@triton.jit
def _adamw(
    value: tl.tensor,
    gradient: tl.tensor,
    mean: tl.tensor,
    square: tl.tensor,
    beta1: tl.tensor,
    beta2: tl.tensor,
    shrink: tl.tensor,
    size: tl.tensor,
    root: tl.tensor,
    epsilon: tl.tensor,
) -> tl.tensor:
    """Return value and moments after a step of AdamW, as torch's fused one takes it."""
    mean = beta1 * mean + (gradient - beta1 * gradient)
    square = beta2 * square + (gradient * gradient - beta2 * (gradient * gradient))
    return value * shrink - size * mean / (tl.sqrt(square) / root + epsilon), mean, square


@triton.jit
def _loaded(weights: tl.tensor, means: tl.tensor, squares: tl.tensor, here: tl.tensor, valid: tl.tensor) -> tl.tensor:
    """Return weights and moments; every row begins at a multiple of 16 bytes."""
    weight = tl.load(tl.multiple_of(weights + here, [16, 16]), mask=valid, other=0.0)
    mean = tl.load(tl.multiple_of(means + here, [16, 16]), mask=valid, other=0.0)
    square = tl.load(tl.multiple_of(squares + here, [16, 16]), mask=valid, other=0.0)
    return weight, mean, square


@triton.jit
def _move_vector(
    entry: tl.tensor,
    field: tl.constexpr,
    place: tl.tensor,
    inside: tl.tensor,
    gradient: tl.tensor,
    beta1: tl.tensor,
    beta2: tl.tensor,
    shrink: tl.tensor,
    size: tl.tensor,
    root: tl.tensor,
    epsilon: tl.tensor,
) -> tl.tensor:
    """Move a parameter that a row has one of, and return it."""
    values, means, squares = _at(entry, field), _at(entry, field + _MEAN), _at(entry, field + _SQUARE)
    value, mean, square = _adamw(
        tl.load(values + place, mask=inside, other=0.0),
        gradient,
        tl.load(means + place, mask=inside, other=0.0),
        tl.load(squares + place, mask=inside, other=0.0),
        beta1,
        beta2,
        shrink,
        size,
        root,
        epsilon,
    )
    tl.store(values + place, value, mask=inside)
    tl.store(means + place, mean, mask=inside)
    tl.store(squares + place, square, mask=inside)
    return value


@triton.jit
def _write_mask(
    entry: tl.tensor,
    place: tl.tensor,
    inside: tl.tensor,
    total: tl.tensor,
    threshold: tl.tensor,
    inputs: tl.tensor,
    window: tl.tensor,
) -> None:
    """Write which rows are kept, and the slope of the sigmoid that stands in for the derivative."""
    distance = total / inputs - threshold
    soft = 1.0 / (1.0 + tl.exp(-distance / window))
    tl.store(_at(entry, _KEEP) + place, tl.where(distance >= 0.0, 1.0, 0.0), mask=inside)
    tl.store(_at(entry, _SLOPE) + place, (soft - soft * soft) / window, mask=inside)


@triton.jit
def write_masks(
    table: tl.tensor, blocks: tl.tensor, window: tl.tensor, BLOCK: tl.constexpr, COLUMNS: tl.constexpr
) -> None:
    """Write masks and slopes of the weights and thresholds as they are."""
    block, k = tl.program_id(0), tl.program_id(1)
    entry = table + tl.load(blocks + 2 * block) * _COUNT
    outputs, inputs = _size(entry, _OUTPUTS), 16 * _size(entry, _INPUTS)
    row = tl.load(blocks + 2 * block + 1) + tl.arange(0, BLOCK)
    inside = row < outputs
    place = k * outputs + row
    weights = _at(entry, _WEIGHT) + k.to(tl.int64) * outputs * inputs
    sums = tl.zeros([BLOCK, COLUMNS], tl.float32)
    for start in range(0, inputs, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        here = tl.multiple_of(weights + (row[:, None] * inputs + column[None, :]), [16, 16])
        sums += tl.abs(tl.load(here, mask=inside[:, None] & (column < inputs)[None, :], other=0.0))
    threshold = tl.load(_at(entry, _THRESHOLD) + place, mask=inside, other=0.0)
    _write_mask(entry, place, inside, tl.sum(sums, 1), threshold, inputs, window)


@triton.jit(do_not_specialize=["first", "rows"])
def move(
    table: tl.tensor,
    blocks: tl.tensor,
    count: tl.tensor,
    fam_rate: tl.tensor,
    mlp_rate: tl.tensor,
    first: tl.tensor,
    rows: tl.tensor,
    window: tl.tensor,
    beta1: tl.tensor,
    beta2: tl.tensor,
    log_beta1: tl.tensor,
    log_beta2: tl.tensor,
    decay: tl.tensor,
    epsilon: tl.tensor,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Take some rows of a layer from the gradient of its output to moved parameters and the mask of the next step.

    The gradient of the weights is kept^T x + sign(W) * factor (a weight of 0 counts as negative).
    """
    block, k = tl.program_id(0) + first, tl.program_id(1)
    entry = table + tl.load(blocks + 2 * block) * _COUNT
    outputs, inputs = _size(entry, _OUTPUTS), 16 * _size(entry, _INPUTS)
    row = tl.load(blocks + 2 * block + 1) + tl.arange(0, BLOCK)
    inside = row < outputs
    place = k * outputs + row

    steps = tl.load(count)
    rate = tl.where(_size(entry, _OF_FAM) > 0, tl.load(fam_rate), tl.load(mlp_rate))
    shrink = 1.0 - rate * decay
    size = rate / (1.0 - tl.exp(steps * log_beta1))
    root = tl.sqrt(1.0 - tl.exp(steps * log_beta2))

    b = tl.arange(0, ROWS)
    image = b < rows
    both = inside[:, None] & image[None, :]
    across = (k * rows + b)[None, :] * outputs + row[:, None]
    gradient = tl.load(_at(entry, _GRADIENT) + across, mask=both, other=0.0)
    linear = tl.load(_at(entry, _LINEAR) + across, mask=both, other=0.0)
    linear += tl.load(_at(entry, _BIAS) + place, mask=inside, other=0.0)[:, None]
    kept = gradient * tl.load(_at(entry, _KEEP) + place, mask=inside, other=0.0)[:, None]
    to_distance = tl.sum(gradient * linear, 1) * tl.load(_at(entry, _SLOPE) + place, mask=inside, other=0.0)
    factor = (to_distance / inputs)[:, None]
    _move_vector(entry, _BIAS, place, inside, tl.sum(kept, 1), beta1, beta2, shrink, size, root, epsilon)
    threshold = _move_vector(entry, _THRESHOLD, place, inside, -to_distance, beta1, beta2, shrink, size, root, epsilon)
    if _size(entry, _HAS_NORM) > 0:
        to_norm = tl.load(_at(entry, _TO_NORM) + across, mask=both, other=0.0)
        normed = tl.load(_at(entry, _NORMED) + across, mask=both, other=0.0)
        to_weight = tl.sum(to_norm * normed, 1)
        _move_vector(entry, _NORM_WEIGHT, place, inside, to_weight, beta1, beta2, shrink, size, root, epsilon)
        to_bias = tl.sum(to_norm, 1)
        _move_vector(entry, _NORM_BIAS, place, inside, to_bias, beta1, beta2, shrink, size, root, epsilon)

    offset = k.to(tl.int64) * outputs * inputs
    weights, means, squares = (
        _at(entry, _WEIGHT) + offset,
        _at(entry, _WEIGHT + _MEAN) + offset,
        _at(entry, _WEIGHT + _SQUARE) + offset,
    )
    seen = _at(entry, _SEEN) + k * rows * inputs
    sums = tl.zeros([BLOCK, COLUMNS], tl.float32)
    column = tl.arange(0, COLUMNS)
    here, valid = row[:, None] * inputs + column[None, :], inside[:, None] & (column < inputs)[None, :]
    weight, mean, square = _loaded(weights, means, squares, here, valid)
    for start in range(0, inputs, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        within = column < inputs
        following = column + COLUMNS  # asked for before this part is moved: it comes meanwhile
        next_weight, next_mean, next_square = _loaded(
            weights,
            means,
            squares,
            row[:, None] * inputs + following[None, :],
            inside[:, None] & (following < inputs)[None, :],
        )
        x = tl.load(
            tl.multiple_of(seen + (b[:, None] * inputs + column[None, :]), [16, 16]),
            mask=image[:, None] & within[None, :],
            other=0.0,
        )
        to_weight = tl.dot(kept, x, input_precision=PRECISION) + tl.where(weight > 0.0, factor, -factor)
        weight, mean, square = _adamw(weight, to_weight, mean, square, beta1, beta2, shrink, size, root, epsilon)
        here, valid = row[:, None] * inputs + column[None, :], inside[:, None] & within[None, :]
        tl.store(tl.multiple_of(weights + here, [16, 16]), weight, mask=valid)
        tl.store(tl.multiple_of(means + here, [16, 16]), mean, mask=valid)
        tl.store(tl.multiple_of(squares + here, [16, 16]), square, mask=valid)
        sums += tl.where(valid, tl.abs(weight), 0.0)
        weight, mean, square = next_weight, next_mean, next_square
    _write_mask(entry, place, inside, tl.sum(sums, 1), threshold, inputs, window)
