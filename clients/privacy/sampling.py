"""Units of privacy of a hospital's images, and Poisson samples of them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clients.privacy.randomness import Randomness

UnitOfImages = npt.NDArray[np.int64]
"""int64[N], the unit of privacy that each training image belongs to, counted from 0."""


def units_of_images(
    unit: str, images: int, patients: Sequence[str | None] | None, digests: Sequence[str] | None = None
) -> UnitOfImages:
    """Return the unit of each training image: at image level a picture with its copies is one.

    Args:
        unit: `image` or `patient`.
        images: Number N of images.
        patients: The patient of each image; needed for the unit `patient`.
        digests: What names the content of each image; None where no image has a copy.

    Raises:
        ValueError: Patients are needed and missing, or there are not as many digests as images.
    """
    if unit == "image" and digests is None:
        return np.arange(images, dtype=np.int64)
    if unit == "image" and digests is not None:
        if len(digests) != images:
            raise ValueError(f"{len(digests)} digests for {images} training images; give one for each")
        return _numbered(digests)
    if patients is None or len(patients) != images or any(patient is None for patient in patients):
        raise ValueError("patient-level privacy needs the patient of every training image; use the unit image")
    return _numbered(patients)


def have_several_images(units: UnitOfImages) -> bool:
    """Return whether a unit has more than one image."""
    return int(units.max(initial=-1)) + 1 < len(units)


def _numbered(names: Sequence[str | None]) -> UnitOfImages:
    """Return for each name its number, counted from 0 in the order in which they are first met."""
    order = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return np.array([order[name] for name in names], dtype=np.int64)


def sampled_rows(units: UnitOfImages, rate: float, source: Randomness) -> npt.NDArray[np.int64]:
    """Return int64[n], the images of a Poisson sample: each unit is in it with probability `rate`, independently."""
    sampled = source.poisson_sample(int(units.max(initial=-1)) + 1, rate)
    return np.flatnonzero(sampled[units])
