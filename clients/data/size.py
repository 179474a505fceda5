"""The sizes of images that are read."""

MAX_RATIO = 100
"""An image whose longer side is more times its shorter one is refused: encoders scale the shorter side to their own."""


def size_fault(width: int, height: int, max_pixels: int) -> str:
    """Return why an image of this size (pixels) is not read; "" where it is."""
    if min(width, height) < 1:
        return f"{width} x {height} pixels are no image"
    if width * height > max_pixels:
        return f"{width} x {height} pixels are more than the limit of {max_pixels}"
    if max(width, height) > MAX_RATIO * min(width, height):
        return f"of its {width} x {height} pixels one side is more than {MAX_RATIO} times the other"
    return ""
