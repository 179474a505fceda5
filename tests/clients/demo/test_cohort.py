import hashlib
from collections import defaultdict

import numpy as np
import pytest

from clients.demo.cohort import CASE_MIX, EVALUATION_IMAGES, PIXELS, RECIPE, TRAINING_IMAGES, plan_cohort
from clients.demo.findings import FINDINGS
from clients.demo.scanners import SCANNERS

PICTURES = {"2": "561b322212453000b4f3446cc64632090c91016d38570b9ed5097d7c68ec4fa5"}
"""SHA-256 over sixteen pictures, by recipe: whoever changes a pixel gives the recipe a new number."""


def sample():
    return plan_cohort(0)[::60]


def test_pictures_are_the_same_on_every_machine():
    digest = hashlib.sha256()
    for item in sample():
        digest.update(item.draw().tobytes())
    assert digest.hexdigest() == PICTURES[RECIPE]


def test_counts_are_those_of_the_tables():
    scans = plan_cohort(0)
    for site in SCANNERS:
        for index, finding in enumerate(FINDINGS):
            counts = defaultdict(int)
            for item in scans:
                if (item.site, item.finding) == (site, finding):
                    counts[item.split] += 1
            assert counts["train"] == CASE_MIX[site][index] * TRAINING_IMAGES
            assert {split: counts[split] for split in EVALUATION_IMAGES} == EVALUATION_IMAGES


def test_every_finding_is_frequent_at_two_hospitals_and_absent_at_another():
    for column in np.array(list(CASE_MIX.values())).T:
        assert (column >= 4).sum() >= 2
        assert (column == 0).sum() >= 1
    assert {sum(mix) for mix in CASE_MIX.values()} == {18}


def test_patients_have_one_to_four_images_of_one_split():
    patients = defaultdict(list)
    for item in plan_cohort(3):
        patients[item.patient].append(item)
    assert {len(items) for items in patients.values()} == {1, 2, 3, 4}
    for items in patients.values():
        assert len({(item.site, item.split, item.finding) for item in items}) == 1


def test_digests_and_paths_name_one_image_each():
    scans = [*plan_cohort(0), *plan_cohort(1)]
    assert len({item.digest for item in scans}) == len(scans)
    assert len({item.path for item in plan_cohort(0)}) == len(plan_cohort(0))


def test_another_seed_gives_other_pictures_at_the_same_hospitals():
    first, second = plan_cohort(0)[0], plan_cohort(1)[0]
    assert first.path == second.path
    assert (first.draw() != second.draw()).mean() > 0.2


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="must not be negative"):
        plan_cohort(-1)


def test_pictures_are_8_bit_rgb_with_contrast():
    for item in sample():
        picture = item.draw()
        assert picture.shape == (PIXELS, PIXELS, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 15


def test_images_of_a_patient_share_the_anatomy_and_are_not_copies():
    by_patient = defaultdict(list)
    for item in plan_cohort(0):
        by_patient[item.patient].append(item)
    pairs = [items for name, items in by_patient.items() if len(items) > 1 and name.startswith("alder")][:6]
    strangers = [by_patient[name][0] for name in by_patient if name.startswith("alder")][:12]

    def difference(a, b):
        return float(np.abs(a.draw().astype(float) - b.draw().astype(float)).mean())

    within = np.mean([difference(items[0], items[1]) for items in pairs])
    between = np.mean([difference(a, b) for a, b in zip(strangers[::2], strangers[1::2], strict=True)])
    assert 1.0 < within < between


def test_hospitals_can_be_told_apart_by_tint_brightness_and_border():
    def look(item):
        drawn = item.draw().astype(float)
        picture, border = drawn.reshape(-1, 3), np.concatenate([drawn[:8, 40:120], drawn[-8:, 40:120]]).reshape(-1, 3)
        tint = picture[:, 0].mean() - picture[:, 2].mean()
        return [*picture.mean(axis=0), *picture.std(axis=0), *border.mean(axis=0), 3 * tint]

    scans = [item for item in plan_cohort(0) if item.number < 4]
    looks = {site: np.array([look(item) for item in scans if item.site == site]) for site in SCANNERS}
    centres = {site: values[::2].mean(axis=0) for site, values in looks.items()}
    for site, values in looks.items():
        nearest = [min(centres, key=lambda name: np.abs(centres[name] - value).sum()) for value in values[1::2]]
        assert nearest.count(site) >= 0.9 * len(nearest)
