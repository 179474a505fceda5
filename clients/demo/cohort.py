"""Who is in the demo cohort: hospitals, patients, and which findings each hospital happens to see."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from clients.demo.anatomy import draw_tissue
from clients.demo.findings import FINDINGS, draw_finding
from clients.demo.randomness import Stream
from clients.demo.scanners import SCANNERS, scan

RECIPE = "2"
"""Version of everything that determines a pixel; a change of any picture must change it, as digests are made of it."""

PIXELS = 160
"""Side of every picture."""

CASE_MIX: dict[str, tuple[int, ...]] = {
    "alder": (7, 1, 6, 0, 4, 0),
    "birch": (0, 7, 1, 6, 0, 4),
    "cedar": (5, 6, 0, 1, 0, 6),
    "hazel": (1, 0, 7, 5, 5, 0),
    "rowan": (0, 4, 0, 1, 7, 6),
}
"""How often each hospital sees each finding (in the order of FINDINGS) in training, of 18; each lacks two of them."""

TRAINING_IMAGES = 5
"""Training images for each unit of CASE_MIX: 90 a hospital."""

EVALUATION_IMAGES = {"val": 6, "test": 16}
"""Images of each finding at each hospital: in these splits all findings are equally frequent."""


@dataclass(frozen=True)
class Scan:
    """One image of the cohort, before it is drawn.

    Attributes:
        seed: Seed of the cohort.
        site: Hospital, a key of SCANNERS.
        finding: One of FINDINGS.
        number: Running number among the images of this finding at this hospital, from 0.
        patient: Name of the patient; a patient is at one hospital, in one split, and has one finding.
        split: `train`, `val` or `test`.
    """

    seed: int
    site: str
    finding: str
    number: int
    patient: str
    split: str

    @property
    def path(self) -> str:
        """Where the image lies in a folder of the cohort."""
        return f"{self.site}/{self.finding}/{self.number:04d}.png"

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what determines every pixel: the recipe's version, the seed, and which image it is."""
        name = f"securefed/demo/{RECIPE}/{self.seed}/{self.patient}/{self.path}"
        return hashlib.sha256(name.encode()).hexdigest()

    def draw(self) -> NDArray[np.uint8]:
        """Return the picture: uint8[PIXELS, PIXELS, 3], the same bytes on every machine."""
        stream = Stream(self.seed, "image", self.path)
        density = draw_tissue(Stream(self.seed, "patient", self.patient), stream, PIXELS)
        across, down = stream.direction()
        distance = 0.12 + 0.33 * stream.unit()
        density = density + draw_finding(self.finding, stream, PIXELS, across * distance, down * distance)
        return scan(np.clip(density, 0.0, 1.0), SCANNERS[self.site], stream)


@lru_cache(maxsize=4)
def plan_cohort(seed: int = 0) -> tuple[Scan, ...]:
    """Return all images of the cohort, sorted by path; a patient has one to four of them.

    Args:
        seed: Chooses other patients and images at the same hospitals; at least 0.

    Raises:
        ValueError: The seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed {seed} must not be negative")
    scans: list[Scan] = []
    for site, mix in CASE_MIX.items():
        patients = Stream(seed, "patients", site)
        number_of_patients = 0
        for index, finding in enumerate(FINDINGS):
            number = 0
            for split, left in {"train": mix[index] * TRAINING_IMAGES, **EVALUATION_IMAGES}.items():
                while left:
                    number_of_patients += 1
                    images = min(_images_of_a_patient(patients.unit()), left)
                    name = f"{site}-{number_of_patients:04d}"
                    scans.extend(Scan(seed, site, finding, number + k, name, split) for k in range(images))
                    number += images
                    left -= images
    return tuple(sorted(scans, key=lambda item: item.path))


def _images_of_a_patient(unit: float) -> int:
    """Return 1, 2, 3 or 4 for a number in [0, 1): half of the patients have one image, a tenth have four."""
    return 1 if unit < 0.5 else 2 if unit < 0.75 else 3 if unit < 0.9 else 4
