"""Clipped sums of several hospitals in one computation: no unit weighs more than its clip norm, at its own hospital."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clients.privacy import PrivacySettings, step
from clients.privacy.stack import Sample, StackedClipping
from tests.clients.privacy.test_step import BATCH, SHAPES, flat, groups_of, make_batch, make_model


def stacked_clipping(model, batches, *clips):
    """The clipped sums of one model at several hospitals; returns the function of the units of each, and its parts."""
    values = {
        name: p.detach().expand(len(batches), *p.shape).contiguous().clone() for name, p in model.named_parameters()
    }
    gradients = {name: torch.full_like(value, 7.0) for name, value in values.items()}  # memory is never fresh
    privacy = PrivacySettings(clip_norms=clips, noise_multipliers=(0.0,) * len(clips))
    features, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    prior = model.log_prior.expand(len(batches), -1)
    clipping = StackedClipping(model, privacy, values, gradients, prior, features, labels)
    starts = np.cumsum([0, *(len(batch[1]) for batch in batches)])

    def sums(units=None):
        rows = [np.arange(a, b) for a, b in itertools.pairwise(starts)]
        given = [None] * len(rows) if units is None else units
        clipping([Sample(r, u if u is None else u.numpy()) for r, u in zip(rows, given, strict=True)], {})
        return torch.stack(
            [torch.cat([g[k].reshape(-1) for g in gradients.values()]) for k in range(len(batches))]
        ).clone()

    return SimpleNamespace(sums=sums, clipping=clipping, gradients=gradients)


@pytest.mark.parametrize("clips", [(0.5,), (0.7, 0.2)])
@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES.keys())
def test_a_contribution_never_exceeds_its_clip_norm(changes, clips):
    """Hostile records, each alone at a hospital: exactly the clip norm, and in no group more than its own."""
    model = make_model(**changes)
    features, labels = make_batch()
    hostile = torch.cat([features, 1e3 * features[:3], 1e-3 * features[:3], -features[:3]])
    labels = torch.cat([labels, labels[:9]])
    batches = [(hostile[row : row + 1], labels[row : row + 1]) for row in range(len(labels))]
    made = stacked_clipping(model, batches, *clips)
    made.sums()
    for part, clip in zip(("fam.", "mlp.") if len(clips) == 2 else ("",), clips, strict=True):
        own = [g.flatten(1) for name, g in made.gradients.items() if name.startswith(part)]
        norms = torch.cat(own, 1).norm(dim=1)
        assert float(norms.max()) <= clip * (1 + 1e-5)
        assert float(norms.max()) >= clip * (1 - 1e-3)


@pytest.mark.parametrize("level", ["image", "patient"])
def test_one_unit_moves_the_sum_of_its_hospital_by_one_clip_norm_and_of_no_other(level):
    model = make_model(**SHAPES["private"])
    features, labels = make_batch()
    others = make_batch(5)
    copies = 1 if level == "image" else 20
    more = torch.cat([features, -features[:1].repeat(copies, 1)]), torch.cat([labels, labels[:1].repeat(copies)])
    units = [torch.arange(BATCH + copies).clamp(max=BATCH), torch.arange(5)] if level == "patient" else None
    less = [torch.arange(BATCH), torch.arange(5)] if level == "patient" else None
    base = stacked_clipping(model, [(features, labels), others], 0.4).sums(less)
    moved = stacked_clipping(model, [more, others], 0.4).sums(units) - base
    assert float(moved[0].norm()) == pytest.approx(0.4, rel=1e-3)
    assert float(moved[1].abs().max()) < 1e-6


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("level", ["image", "patient"])
@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES.keys())
def test_rows_that_fill_up_add_nothing_whatever_is_in_them(changes, poison, level):
    """Samples of 12, 5, 0 and 1 images; the row that stands for no image is poisoned."""
    model = make_model(**changes)
    batches = [make_batch(count) for count in (BATCH, 5, 0, 1)]
    units = [torch.arange(len(labels)) // 3 for _, labels in batches] if level == "patient" else None
    made = stacked_clipping(model, batches, 0.5, 0.2)
    exact = made.sums(units)
    made.clipping._features[-1] = poison
    assert torch.equal(made.sums(units), exact)
    assert not exact[2].any()
    for k, (features, labels) in enumerate(batches):
        alone = step.LeanClipping(model, groups_of(model, 0.5, 0.2))
        summed = flat(alone(features, labels, None if units is None else units[k]))
        assert float((exact[k] - summed).norm()) <= 1e-4 * max(1e-6, float(summed.norm()))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("level", ["image", "patient"])
@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES.keys())
def test_a_unit_that_is_not_finite_counts_as_zero(changes, poison, level):
    model = make_model(**changes)
    features, labels = make_batch()
    broken = torch.cat([features, torch.full((1, features.shape[1]), poison), features[:1]])
    given = torch.cat([labels, labels[:1], labels[:1]])
    patients = level == "patient"
    if not patients:
        broken, given = broken[:-1], given[:-1]
    units = [torch.arange(BATCH + 2).clamp(max=BATCH), torch.arange(BATCH)] if patients else None
    sums = stacked_clipping(model, [(broken, given), (features, labels)], 0.5).sums(units)
    assert torch.isfinite(sums).all()
    assert float((sums[0] - sums[1]).norm()) <= 1e-4 * float(sums[1].norm())


def test_a_step_for_another_number_of_rows_is_made_without_a_copy_that_is_waited_for(monkeypatch):
    made = stacked_clipping(make_model(**SHAPES["private"]), [make_batch(), make_batch(5)], 0.5)
    exact = made.sums()
    made.clipping._steps.clear()
    monkeypatch.setattr(torch.Tensor, "new_tensor", lambda *_: pytest.fail("it waits for the device"))
    assert torch.equal(made.sums(), exact)


@pytest.mark.gpu
@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES.keys())
def test_a_gpu_sums_the_same(changes):
    sums = []
    for device in ("cpu", "cuda"):
        model = make_model(device, **changes)
        batches = [make_batch(count, device) for count in (BATCH, 5, 0, 1)]
        sums.append(stacked_clipping(model, batches, 0.5, 0.2).sums().cpu())
    assert float((sums[1] - sums[0]).norm()) <= 1e-3 * float(sums[0].norm())
