"""Small folders of images, drawn in the test."""

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """Return random pixels: no two seeds give the same file."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def draw() -> Callable[..., Image.Image]:
    return picture


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write `{site: {class: number}}` images as PNG and return the root."""

    def make(layout: Mapping[str, Mapping[str, int]], name: str = "cohort") -> Path:
        root = tmp_path / name
        seed = 0
        for site, classes in layout.items():
            for label, count in classes.items():
                (root / site / label).mkdir(parents=True)
                for index in range(count):
                    picture(seed).save(root / site / label / f"{index:03d}.png")
                    seed += 1
        return root

    return make


@pytest.fixture
def write_csv() -> Callable[..., Path]:
    """Write a header and rows as CSV."""

    def write(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> Path:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)
        return path

    return write
