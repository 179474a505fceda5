"""Findings about data whose records get other sites: one hospital's, dealt to clients."""

import csv

import numpy as np
import pytest
from PIL import Image

from securefed.config import DataConfig
from securefed.preparation import load_sites


@pytest.fixture
def one_site(tmp_path):
    """Forty patients of each of two classes; the first of each has a picture that another patient has, too."""
    rng, rows = np.random.default_rng(0), []
    for label in ("oak", "pine"):
        folder = tmp_path / "only" / label
        folder.mkdir(parents=True)
        for number in range(40):
            path = folder / f"{number}.png"
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
            split = "train" if number < 30 else "test" if number < 35 else "val"
            rows.append((path.relative_to(tmp_path), f"{label} {number}", split))
        (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
        rows.append(((folder / "copy.png").relative_to(tmp_path), f"{label} other", "train"))
    with (tmp_path / "metadata.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "patient", "split"), *rows])
    return tmp_path


def test_what_was_found_at_one_site_is_not_told_of_the_clients_that_it_is_dealt_to(one_site):
    kinds = []
    for clients in (0, 4):
        dataset, found = load_sites(DataConfig(source=str(one_site), clients=clients), 0)
        told = {finding.kind: finding.count for finding in found}
        in_split = {(r.digest, r.site) for r in dataset.records if r.split == "train"}
        trained = [r for r in dataset.records if r.split == "train"]
        assert ("duplicate_in_split" in told) == (len(in_split) < len(trained))
        kinds.append("duplicate_in_split" in told)
    assert kinds == [True, False]
