"""A clipped sum moves by one of its images no further than the sensitivity that is accounted for, whatever they are."""

import copy
import dataclasses
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clients.method.layout import initial_vector
from clients.privacy import PrivacySettings, PrivateHospital, Randomness
from clients.privacy.clipping import Group
from clients.privacy.step import LeanClipping
from protocols.noise.plan import LEEWAY
from tests.clients.privacy.test_private_hospital import SETTINGS, TEXT, WIDTH, make_site

MANY = 20_000
"""Images that all point one way: a float32 sum over them rounds by more than LEEWAY leaves room for."""

EVERYBODY = PrivacySettings(
    sampling_rate=1.0, clip_norms=(1.0,), noise_multipliers=(0.0,), coupling="one-way", steps=1, normaliser=1.0
)
WIDE = dataclasses.replace(SETTINGS, fam_width=64)
RECEIVED = initial_vector(WIDTH, WIDE, 0)


def hospital_of(features, labels):
    site = make_site()
    site.train = SimpleNamespace(features=features, labels=labels)
    return PrivateHospital(site, TEXT, 30.0, WIDE, EVERYBODY)


def summed(features, labels):
    """The clipped sum over images, in clip norms."""
    made = hospital_of(features, labels).clipped_sum(RECEIVED, 1, Randomness.of_a_seed(1))
    assert made.vector.dtype == np.float64
    return made.vector / made.clip_norm


def summed_in_single(features, labels):
    """The same in float32 from the first product on."""
    hospital = hospital_of(features, labels)
    hospital.receive(RECEIVED)
    model = hospital._private_model
    fam = tuple(parameter for parameter in model.fam.parameters() if parameter.requires_grad)
    made = LeanClipping(model, (Group(fam, 1.0),))(torch.from_numpy(features), torch.from_numpy(labels))
    return torch.cat([part.reshape(-1) for part in made.gradients[0]]).double().numpy()


def moved_by_one(count, sums):
    """By how much the sum over so many images moves, in clip norms, if the first or the last is taken away."""
    rng = np.random.default_rng(1)
    features = (rng.standard_normal((1, WIDTH)) + 0.01 * rng.standard_normal((count, WIDTH))).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = np.zeros(count, np.int64)
    whole = sums(features, labels)
    others = (sums(features[kept], labels[kept]) for kept in (slice(1, None), slice(None, -1)))
    assert np.linalg.norm(whole) > count / 3  # they do point one way, and are clipped
    return max(float(np.linalg.norm(whole - other)) for other in others)


@pytest.mark.parametrize("count", [2, 1000, 1025, MANY])
def test_a_sum_is_as_insensitive_as_it_is_accounted_for(count):
    assert 0.9 < moved_by_one(count, summed) <= LEEWAY


def test_in_single_precision_many_images_would_be_too_sensitive():
    assert moved_by_one(MANY, summed_in_single) > LEEWAY


def _on_a_kink(*, alone=False):
    """Images with a hidden unit so close to the kink of its activation that rounding decides on which side it is.

    In float32 it is on another side than in float64, or with `alone` than in float32 with the image by itself; of the
    latter there may be none, by the processor.
    """
    hospital = hospital_of(*(getattr(make_site().train, name) for name in ("features", "labels")))
    hospital.receive(RECEIVED)
    fam = hospital._private_model.fam
    exact, rng = copy.deepcopy(fam).double(), np.random.default_rng(0)

    def hidden(model, images, kind):
        with torch.no_grad():
            scaled = model._scaled(torch.from_numpy(images).to(kind))
            return torch.nn.functional.layer_norm(model.first(scaled), (WIDE.fam_width,)).numpy()

    def between(one, other, share):
        mixed = one + share * (other - one)
        return mixed / np.linalg.norm(mixed)

    for _ in range(400):
        one, other = rng.standard_normal((2, WIDTH))
        ends = hidden(exact, np.stack([between(one, other, 0), between(one, other, 1)]), torch.float64)
        crossing = np.flatnonzero(ends[0] * ends[1] < 0)
        if not len(crossing):
            continue
        unit, low, high = int(crossing[0]), 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            same = hidden(exact, between(one, other, middle)[None], torch.float64)[0, unit] * ends[0, unit] > 0
            low, high = (middle, high) if same else (low, middle)
        close = (between(one, other, low) * (1 + rng.uniform(-2e-7, 2e-7, (200, WIDTH)))).astype(np.float32)
        side = hidden(fam, close, torch.float32)[:, unit] > 0
        if alone:
            other = np.concatenate([hidden(fam, image[None], torch.float32) for image in close])[:, unit] > 0
        else:
            other = hidden(exact, close, torch.float64)[:, unit] > 0
        yield from close[side != other][:2]


def test_an_image_more_changes_the_sum_of_images_on_a_kink_by_itself_alone():
    """Nothing about how the others are summed may hang on the number of images: rounding moves them over the kink."""
    found = _on_a_kink()
    mixed = []
    for image in (next(found) for _ in range(8)):
        for count in (1, 2, 3, 1024):
            features, labels = np.repeat(image[None], count + 1, 0), np.zeros(count + 1, np.int64)
            more, less = summed(features, labels), summed(features[:count], labels[:count])
            assert np.linalg.norm(more - less) <= LEEWAY
        mixed.append(np.linalg.norm(more - summed_in_single(features[:count], labels[:count])))
    assert max(mixed) > 10  # in another precision the sums of the same images are far apart


def test_how_few_images_are_rounded_does_not_hang_on_their_number():
    for image in islice(_on_a_kink(alone=True), 8):
        for count in (1, 2, 3, 4, 31, 32):
            features, labels = np.repeat(image[None], count + 1, 0), np.zeros(count + 1, np.int64)
            more, less = summed_in_single(features, labels), summed_in_single(features[:count], labels[:count])
            assert np.linalg.norm(more - less) <= LEEWAY


@pytest.mark.parametrize("count", [30, 1025, 2500])
def test_both_precisions_give_the_same_sum(count):
    rng = np.random.default_rng(2)
    features = rng.standard_normal((count, WIDTH)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = rng.integers(0, len(TEXT), count)
    np.testing.assert_allclose(summed_in_single(features, labels), summed(features, labels), rtol=1e-4, atol=1e-4)
