"""The demo cohort as a data set, and as a folder to look at."""

import csv
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from clients.data.dataset import ImageDataset, Record
from clients.data.errors import BrokenImageError
from clients.data.findings import DataWarning
from clients.demo.cohort import Scan, plan_cohort
from clients.demo.findings import FINDINGS


class DemoImages:
    """Draws the images of the cohort when they are asked for; nothing is kept."""

    def load(self, path: str) -> Image.Image:
        """Return an image as 8-bit RGB; raises BrokenImageError for a path that the cohort does not have."""
        found = _by_path().get(path)
        if found is None:
            raise BrokenImageError(path, "the demo cohort has no such image")
        return Image.fromarray(found.draw())


def load_demo_dataset() -> tuple[ImageDataset, tuple[DataWarning, ...]]:
    """Return the demo cohort: five hospitals, six findings, all of it drawn by a program and none of it medical.

    Returns:
        The data set, whose paths are those that `write_cohort` writes, and no findings.
    """
    records = tuple(
        Record(item.path, item.site, item.finding, item.patient, item.split, item.digest) for item in plan_cohort()
    )
    return ImageDataset("demo", Path(), records, FINDINGS, DemoImages()), ()


def write_cohort(folder: Path) -> int:
    """Write the cohort as `<site>/<class>/<image>.png` with a `metadata.csv` beside the sites.

    Args:
        folder: Where to; made if it is not there.

    Returns:
        The number of images written.

    Raises:
        FileExistsError: The folder is not empty.
        OSError: It cannot be written. An error or Ctrl-C leaves the folder empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder}: is not empty; name a new folder")
    scans = plan_cohort()
    try:
        _write(scans, folder)
    except BaseException:  # a part of the cohort would be read as all of it
        for part in folder.iterdir():
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        raise
    return len(scans)


def _write(scans: Sequence[Scan], folder: Path) -> None:
    for item in scans:
        target = folder / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(item.draw()).save(target)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "site", "label", "patient", "split"))
        writer.writerows((item.path, item.site, item.finding, item.patient, item.split) for item in scans)


@cache
def _by_path() -> dict[str, Scan]:
    return {item.path: item for item in plan_cohort()}
