"""At image level a picture with its copies is one unit of privacy."""

import dataclasses

import numpy as np
import pytest
import torch

from clients.privacy import Randomness
from tests.clients.privacy.test_private_hospital import EVERYBODY, GROUPS, make, make_site, one_step, start


def test_a_picture_with_its_copies_is_one_image():
    """Ten copies move the clipped sum by no more than the clip norm, also where one has another label."""
    quiet = dataclasses.replace(EVERYBODY, noise_multipliers=(0.0,))
    site, other = make_site(), make_site()
    other.train.features = np.concatenate([site.train.features, np.repeat(site.train.features[:1], 10, axis=0)])
    other.train.labels = np.concatenate([site.train.labels, np.repeat(site.train.labels[:1], 10)])
    other.train.labels[-1] += 1
    first = [str(number) for number in range(60)]

    def moved(digests):
        sums = [
            torch.cat(one_step(quiet, Randomness.of_a_seed(1), hospital=make(quiet, at, digests=names)))
            for at, names in ((site, first), (other, digests))
        ]
        return float((sums[1] - sums[0]).norm()) * quiet.normaliser / quiet.clip_norms[0]

    assert moved([*first, *["copy"] * 10]) <= 1 + 1e-4
    assert moved(None) > 5
    with pytest.raises(ValueError, match="60 digests for 70 training images"):
        make(quiet, other, digests=first)


def test_images_without_copies_are_trained_to_the_same_bits():
    updates = [
        make(GROUPS, digests=digests).train_round(start(), 1, Randomness.of_a_seed(1))
        for digests in (None, [str(number) for number in range(60)])
    ]
    assert updates[0].tobytes() == updates[1].tobytes()


def test_copies_of_one_picture_do_not_move_what_is_clipped_of_the_others():
    """Thousands of clipped images that one unit opposes: a share of 2e-6 of each would be more than it may move."""
    count = 10_000
    quiet = dataclasses.replace(EVERYBODY, noise_multipliers=(0.0,), clip_norms=(0.05,))
    site, other = make_site(count), make_site(count)
    rng = np.random.default_rng(0)
    alike = site.train.features[:1] + 0.02 * rng.standard_normal((count, site.train.features.shape[1]))
    site.train.features = (alike / np.linalg.norm(alike, axis=1, keepdims=True)).astype(np.float32)
    site.train.labels = np.zeros(count, dtype=site.train.labels.dtype)
    other.train.features = np.concatenate([site.train.features, np.repeat(site.train.features[:1], 2, axis=0)])
    other.train.labels = np.concatenate([site.train.labels, [1, 1]])
    names = [str(number) for number in range(count)]

    def total(at, digests):
        hospital = make(quiet, at, digests=digests)
        hospital._load_shared(start())
        summed = hospital._sum_of_a_sample(hospital._groups(), Randomness.of_a_seed(1))
        return torch.cat([part.flatten().double() for group in summed.gradients for part in group])

    moved = float((total(other, [*names, "copy", "copy"]) - total(site, names)).norm()) / quiet.clip_norms[0]
    assert 0.9 < moved <= 1 + 1e-3
