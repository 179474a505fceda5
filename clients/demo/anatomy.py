"""The tissue that a finding lies in: one slice of an imagined body, nearly the same in all images of a patient."""

import numpy as np

from clients.demo import shapes
from clients.demo.fields import Field, cloud, placed, radius, waves, within
from clients.demo.randomness import Stream


def draw_tissue(patient: Stream, image: Stream, pixels: int) -> Field:
    """Return the density of a slice: float32[pixels, pixels] in [0, 1], 0 outside the body.

    Args:
        patient: Determines the body, its organs and its vessels.
        image: Determines what differs between two images of a patient: a small shift and turn, and the texture.
        pixels: Side of the picture.
    """
    lean = patient.between(-0.12, 0.12) + image.between(-0.03, 0.03)
    turn = ((1.0 - lean * lean) / (1.0 + lean * lean), 2.0 * lean / (1.0 + lean * lean))
    x, y = placed(pixels, image.between(-0.04, 0.04), image.between(-0.04, 0.04), turn)
    outline = 1.0 + patient.between(-0.05, 0.05) * waves(x, y, 2) + patient.between(0.0, 0.03) * waves(y, x, 3)
    depth = radius(x / patient.between(0.86, 0.95), y / patient.between(0.74, 0.88)) - outline
    skin = within(np.abs(depth + 0.03) - 0.012, 0.03) * patient.between(0.3, 0.45)
    fat = within(np.abs(depth + 0.1) - 0.05, 0.05) * patient.between(0.06, 0.16)
    tissue = patient.between(0.27, 0.34) + 0.07 * cloud(patient, pixels, 4, 2) + 0.07 * cloud(image, pixels, 20, 2)
    tissue = tissue + _organs(patient, x, y) + _spine(patient, x, y) + _vessels(patient, x, y)
    density: Field = np.clip(within(depth, 0.03) * (tissue - fat + skin), 0.0, 1.0)
    return density


def _organs(patient: Stream, x: Field, y: Field) -> Field:
    """Return what a large organ on one side and two or three small ones add."""
    reach = patient.between(0.42, 0.56)
    u, v = x + patient.between(0.28, 0.4), y + patient.between(0.05, 0.2)
    large = radius(u / reach, v / (0.85 * reach)) + 0.1 * waves(u, v, 3) - 1.0
    added = within(large, 0.08) * patient.between(0.05, 0.12)
    for _ in range(2 + patient.below(2)):
        u, v = x - patient.between(0.05, 0.5), y - patient.between(-0.4, 0.35)
        small = radius(u / patient.between(0.13, 0.26), v / patient.between(0.1, 0.22)) - 1.0
        added = added + within(small, 0.15) * patient.between(-0.13, 0.1)
    return added


def _spine(patient: Stream, x: Field, y: Field) -> Field:
    """Return what a bright block near the lower edge adds, with its dark canal."""
    u, v = x - patient.between(-0.05, 0.05), y - patient.between(0.46, 0.54)
    block = within(radius(u / 0.17, v / 0.12) + 0.08 * waves(u, v, 4) - 1.0, 0.2)
    canal = within(radius(u, v - 0.04) - 0.04, 0.03)
    return block * patient.between(0.2, 0.3) - canal * 0.2


def _vessels(patient: Stream, x: Field, y: Field) -> Field:
    """Return what a few bent bands, and vessels that cross the slice as small discs, add."""
    added = np.zeros_like(x)
    for _ in range(2 + patient.below(3)):
        across, down = patient.direction()
        u, v = x - patient.between(-0.4, 0.4), y - patient.between(-0.5, 0.3)
        u, v = u * across + v * down, v * across - u * down
        added = added + shapes.vessel(patient, u, v) * patient.between(0.06, 0.16)
    for _ in range(1 + patient.below(3)):
        u, v = x - patient.between(-0.6, 0.6), y - patient.between(-0.6, 0.3)
        added = added + within(radius(u, v) - patient.between(0.02, 0.045), 0.03) * patient.between(0.1, 0.18)
    return added
