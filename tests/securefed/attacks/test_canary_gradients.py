"""Canaries in a step: each adds one clip norm to its number of every group, whatever else is in the step."""

import pytest
import torch

from clients.privacy.step import LeanClipping
from securefed.attacks.canary_gradients import CanaryClipping
from tests.clients.privacy.test_step import SHAPES, WIDTH, flat, groups_of, make_batch, make_model

CLIPS = (0.5, 2.0)


def with_canaries(model, groups, features, labels, canaries, centres=None):
    rows = model.text_features[:1].expand(len(canaries), -1)
    summed = CanaryClipping(model, groups, centres)(
        torch.cat([features, rows]), torch.cat([labels, -1 - torch.tensor(canaries, dtype=torch.int64)])
    )
    return flat(summed)


def expected(model, groups, features, labels, canaries, centres=None):
    total, start = flat(LeanClipping(model, groups, centres)(features, labels)).clone(), 0
    for group in groups:
        size = sum(parameter.numel() for parameter in group.parameters)
        for canary in canaries:
            if canary < size:
                total[start + canary] += group.clip_norm
        start += size
    return total


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES.keys())
def test_a_canary_adds_a_clip_norm_to_its_number_of_each_group(changes):
    """The last one is where the head of the group has its last number, or past it."""
    model = make_model(**changes)
    groups = groups_of(model, *CLIPS)
    canaries = [0, 7, 60, sum(parameter.numel() for parameter in groups[1].parameters) - 1]
    found = with_canaries(model, groups, *make_batch(), canaries)
    torch.testing.assert_close(found, expected(model, groups, *make_batch(), canaries), rtol=1e-5, atol=1e-5)


def test_canaries_go_through_chunks_centres_and_rows_that_are_not_finite():
    model = make_model(**SHAPES["private"])
    groups = groups_of(model, *CLIPS)
    features, labels = make_batch(1100)
    features[3] = float("nan")
    canaries, centres = list(range(0, 400, 2)), {"fam.layers.0": torch.full((WIDTH,), 0.1)}
    found = with_canaries(model, groups, features, labels, canaries, centres)
    right = expected(model, groups, features, labels, canaries, centres)
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)


def test_without_canaries_the_sum_is_that_of_the_training_to_the_bit():
    model = make_model(**SHAPES["default"])
    groups = groups_of(model, *CLIPS)
    assert torch.equal(
        with_canaries(model, groups, *make_batch(), []),
        flat(LeanClipping(model, groups)(*make_batch())),
    )
