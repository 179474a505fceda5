"""Grey values of more than 8 bits, brought to the 8 bits that encoders take."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.data.errors import BrokenImageError


def scale_to_8_bit(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Map grey values linearly from [low, high] to [0, 255], clipped and rounded; all to 0 where low equals high.

    Args:
        values: Any integer or floating type, any shape.
        low: Value that becomes 0.
        high: Value that becomes 255, at least `low`.
    """
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return np.rint(np.clip(scaled, 0.0, 255.0)).astype(np.uint8)


def stretch_to_8_bit(values: NDArray[Any], path: str, padding: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Map an image linearly from its own darkest value to 0 and from its brightest to 255.

    How many of 16 bits a scanner uses is rarely written in the file, so no fixed scale is right for all of them.

    Args:
        values: Grey values [height, width] of any integer or floating type.
        path: For messages.
        padding: bool[height, width], the area outside the picture: it does not count as darkest or brightest.

    Raises:
        BrokenImageError: A value is not finite.
    """
    if not np.isfinite(values).all():
        raise BrokenImageError(path, "it has values that are not finite")
    counted = values if padding is None else values[~padding]
    if counted.size == 0:
        counted = values
    return scale_to_8_bit(values, float(counted.min()), float(counted.max()))
