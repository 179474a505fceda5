"""Units of privacy of a hospital's images, and Poisson samples of them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clients.privacy.randomness import Randomness

UnitOfImages = npt.NDArray[np.int64]
"""int64[N], the unit of privacy that each training image belongs to, counted from 0."""


def units_of_images(unit: str, images: int, patients: Sequence[str | None] | None) -> UnitOfImages:
    """Return the unit of each training image.

    Args:
        unit: `image` or `patient`.
        images: Number N of images.
        patients: The patient of each image; needed for the unit `patient`.

    Raises:
        ValueError: Patients are needed and missing.
    """
    if unit == "image":
        return np.arange(images, dtype=np.int64)
    if patients is None or len(patients) != images or any(patient is None for patient in patients):
        raise ValueError("patient-level privacy needs the patient of every training image; use the unit image")
    order = {patient: index for index, patient in enumerate(dict.fromkeys(patients))}
    return np.array([order[patient] for patient in patients], dtype=np.int64)


def sampled_rows(units: UnitOfImages, rate: float, source: Randomness) -> npt.NDArray[np.int64]:
    """Return int64[n], the images of a Poisson sample: each unit is in it with probability `rate`, independently."""
    sampled = source.poisson_sample(int(units.max(initial=-1)) + 1, rate)
    return np.flatnonzero(sampled[units])
