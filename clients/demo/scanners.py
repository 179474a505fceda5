"""The scanners of the five hospitals: how each of them turns tissue into a picture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.demo import marks
from clients.demo.fields import Field, blurred, cloud, coordinates, curve, radius, within
from clients.demo.randomness import Stream

Colour = tuple[float, float, float]
GREYS: tuple[Colour, Colour, Colour] = ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Scanner:
    """What is particular about one hospital's pictures.

    Attributes:
        quarter_turns: How the picture is turned, in steps of 90 degrees counter-clockwise.
        mirrored: Whether left and right are exchanged (before turning).
        aperture: Shape of the field of view: `circle`, `frame`, `plate`, `sector` or `octagon`.
        bin: Side in pixels of the squares that the detector averages over.
        blur: Passes of smoothing.
        window: Densities that become black and white.
        bend: Bend of the contrast curve, in (-1, 1).
        inverted: Whether dense tissue is dark.
        shading: How much the picture darkens towards the edge, in [0, 1].
        drift: Strength of a smooth unevenness of the receiver, in [0, 1].
        noise: Standard deviation of the additive noise.
        grain_blur: Passes of smoothing of the noise, which makes it coarse.
        speckle: Strength of multiplicative noise.
        bands: Strength of horizontal bands.
        ramp: Colours of black, of the middle and of white; the ones between lie on a parabola.
        overlays: What is written over the picture: `ruler`, `letters`, `cross`, `dust`, `glare`.
    """

    quarter_turns: int = 0
    mirrored: bool = False
    aperture: str = "frame"
    bin: int = 1
    blur: int = 0
    window: tuple[float, float] = (0.0, 1.0)
    bend: float = 0.0
    inverted: bool = False
    shading: float = 0.0
    drift: float = 0.0
    noise: float = 0.02
    grain_blur: int = 0
    speckle: float = 0.0
    bands: float = 0.0
    ramp: tuple[Colour, Colour, Colour] = GREYS
    overlays: tuple[str, ...] = ()


SCANNERS: dict[str, Scanner] = {
    "alder": Scanner(
        aperture="circle",
        window=(0.0, 0.88),
        bend=0.1,
        noise=0.035,
        ramp=((0.0, 0.0, 0.01), (0.49, 0.5, 0.52), (0.99, 1.0, 1.0)),
        overlays=("ruler", "letters"),
    ),
    "birch": Scanner(
        blur=1,
        window=(0.0, 0.88),
        bend=-0.15,
        shading=0.17,
        drift=0.09,
        noise=0.02,
        grain_blur=1,
        bands=0.05,
    ),
    "cedar": Scanner(
        aperture="plate",
        blur=1,
        window=(0.0, 0.88),
        shading=-0.08,
        noise=0.03,
        grain_blur=2,
        ramp=((0.06, 0.05, 0.04), (0.54, 0.52, 0.48), (0.99, 0.98, 0.94)),
        overlays=("letters", "dust", "cross"),
    ),
    "hazel": Scanner(
        aperture="octagon",
        blur=1,
        window=(0.0, 0.88),
        bend=0.2,
        shading=0.15,
        noise=0.015,
        ramp=((0.04, 0.0, 0.01), (0.59, 0.45, 0.43), (1.0, 0.97, 0.94)),
        overlays=("glare",),
    ),
    "rowan": Scanner(
        aperture="sector",
        blur=1,
        window=(0.0, 0.88),
        bend=-0.1,
        shading=0.06,
        noise=0.01,
        speckle=0.1,
        grain_blur=1,
        bands=0.02,
        ramp=((0.0, 0.01, 0.02), (0.47, 0.48, 0.52), (0.98, 0.99, 1.0)),
        overlays=("ruler",),
    ),
}
"""The hospitals of the cohort, named after trees."""


def scan(density: Field, scanner: Scanner, stream: Stream) -> NDArray[np.uint8]:
    """Return the picture that a scanner makes of a slice.

    Args:
        density: float32[size, size] in [0, 1]; size a multiple of the scanner's bin.
        scanner: How it takes pictures.
        stream: Source of noise, dust and writing, and of a variation from picture to picture.

    Returns:
        uint8[size, size, 3].
    """
    size = density.shape[0]
    x, y = coordinates(size)
    field = density[:, ::-1] if scanner.mirrored else density
    field = np.ascontiguousarray(np.rot90(field, scanner.quarter_turns))
    field = blurred(_binned(field, scanner.bin), scanner.blur)
    gain = 1.0 - scanner.shading * stream.between(0.7, 1.0) * np.minimum(0.5 * (x * x + y * y), 1.0)
    if scanner.drift:
        gain = gain + scanner.drift * cloud(stream, size, 2)
    low, high = scanner.window
    low, high = low + stream.between(-0.02, 0.02), high + stream.between(-0.06, 0.06)
    value = np.clip((field - low) / (high - low), 0.0, 1.0)
    if scanner.inverted:
        value = 1.0 - value
    value = value * gain
    if scanner.speckle:
        value = value * (1.0 + scanner.speckle * _grain(stream, size, scanner.grain_blur))
    value = value + scanner.noise * _grain(stream, size, scanner.grain_blur)
    if scanner.bands:
        value = value + scanner.bands * stream.grain(size, 1)
    value = curve(np.clip(value, 0.0, 1.0), scanner.bend)
    opening, outside = _aperture(scanner.aperture, x, y)
    value = value * opening + outside * (1.0 - opening)
    for overlay in scanner.overlays:
        value = marks.MARKS[overlay](value, stream)
    return _coloured(value, scanner.ramp)


def _binned(field: Field, bin: int) -> Field:
    if bin == 1:
        return field
    total = np.zeros_like(field[::bin, ::bin])
    for row in range(bin):
        for column in range(bin):
            total = total + field[row::bin, column::bin]
    return np.repeat(np.repeat(total / (bin * bin), bin, axis=0), bin, axis=1)


def _grain(stream: Stream, size: int, passes: int) -> Field:
    """Return noise of about unit variance: one pass of smoothing divides the standard deviation by 8/3, two by 3.66."""
    return blurred(stream.grain(size, size), passes) * (1.0, 2.667, 3.657)[passes]


def _aperture(name: str, x: Field, y: Field) -> tuple[Field, float]:
    """Return how open the field of view is at each pixel, and the grey outside of it."""
    if name == "circle":
        return within(radius(x, y) - 0.96, 0.02), 0.0
    if name == "octagon":
        across, down = np.abs(x), np.abs(y)
        return within(np.maximum(np.maximum(across, down) - 0.97, across + down - 1.5), 0.02), 0.0
    if name == "sector":
        depth = y + 1.35
        reach = radius(x, depth)
        return within(np.maximum(np.maximum(reach - 2.3, 0.5 - reach), np.abs(x) - 0.62 * depth), 0.02), 0.0
    if name == "plate":
        return within(np.maximum(np.abs(x) - 0.9, np.abs(y) - 0.94), 0.02), 1.0
    return np.ones_like(x), 0.0


def _coloured(value: Field, ramp: tuple[Colour, Colour, Colour]) -> NDArray[np.uint8]:
    value = np.clip(value, 0.0, 1.0)
    channels = []
    for dark, middle, light in zip(*ramp, strict=True):
        control = 2.0 * middle - 0.5 * (dark + light)
        rest = 1.0 - value
        channels.append(rest * rest * dark + 2.0 * value * rest * control + value * value * light)
    picture: NDArray[np.uint8] = np.floor(np.clip(np.stack(channels, axis=2), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return picture
