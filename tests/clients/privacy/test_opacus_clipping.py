"""Clipped sums: ghost clipping against the slow loop, and what one example or patient can do to them."""

import dataclasses

import numpy as np
import pytest
import torch

from clients.method.masked_linear import MaskedLinear
from clients.method.parts import build_model
from clients.method.settings import SettingsError, TrainingSettings
from tests.clients.privacy.opacus_clipping import GhostClipping, clipped_sum
from tests.clients.privacy.slow_clipping import example_losses, unit_by_unit_sum
from tests.clients.privacy.test_step import flat, groups_of

WIDTH, CLASSES, BATCH = 24, 4, 12
PLAIN = dataclasses.replace(TrainingSettings.default(), prior_adjustment=0.0, feature_dropout=0.0, mlp_dropout=0.0)


def unit_rows(rng, count, width=WIDTH):
    rows = rng.normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_model(**changes):
    rng = np.random.default_rng(3)
    model = build_model(
        unit_rows(rng, CLASSES), 30.0, dataclasses.replace(PLAIN, **changes), "fedmedclip", "a", 0, "cpu"
    )
    model.train()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, MaskedLinear) and module.learned:  # some rows off, all close to the step
                spread = torch.linspace(-0.004, 0.004, len(module.threshold))
                module.threshold.copy_(module.weight.abs().mean(1) + spread)
    return model


def make_batch(count=BATCH, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(unit_rows(rng, count)), torch.from_numpy(rng.integers(0, CLASSES, count))


@pytest.mark.parametrize("clips", [(0.5,), (1e6,), (0.7, 0.2), (1e6, 0.1)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mask_bias": False},
        {"learn_thresholds": False, "fam_width": 8, "fam_input_rms": 1.0, "fam_form": "published"},
        {"mlp_layers": 0, "mlp_input": "image"},
        {"mlp_layers": 2, "mlp_norm": "group", "mlp_width": 64, "distillation": "off"},
    ],
    ids=lambda changes: ",".join(changes) or "default",
)
def test_ghost_clipping_equals_the_slow_loop(changes, clips):
    model = make_model(**changes)
    features, labels = make_batch()
    groups = groups_of(model, *clips)
    ghost = clipped_sum(model, groups, example_losses(model), features, labels)
    slow = unit_by_unit_sum(groups, example_losses(model), features, labels, torch.arange(BATCH))
    for fast_group, slow_group in zip(ghost.gradients, slow.gradients, strict=True):
        for fast, exact in zip(fast_group, slow_group, strict=True):
            torch.testing.assert_close(fast, exact, rtol=1e-4, atol=1e-5 * max(float(exact.norm()), 1e-3))
    assert ghost.units == slow.units == BATCH


def test_norms_of_the_masked_layer_equal_those_of_its_gradients():
    model = make_model()
    features, labels = make_batch()
    ghost = GhostClipping(model, groups_of(model, 1.0))
    example_losses(model)(features.requires_grad_(), labels).sum().backward()
    found = {name: vars(p)["_norm_sample"] for name, p in model.named_parameters()}
    ghost.close()
    for row in range(BATCH):
        loss = example_losses(model)(features[row : row + 1].detach(), labels[row : row + 1]).sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
            assert float(found[name][row]) == pytest.approx(float(gradient.norm()), rel=1e-4, abs=1e-6), name


def test_the_unclipped_sum_is_the_gradient_of_the_plain_loss():
    model = make_model()
    features, labels = make_batch()
    summed = clipped_sum(model, groups_of(model, 1e9), example_losses(model), features, labels)
    plain = torch.autograd.grad(model.loss(features, labels) * BATCH, list(model.parameters()))
    torch.testing.assert_close(flat(summed), torch.cat([g.reshape(-1) for g in plain]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clips", [(0.3,), (0.3, 0.1)])
def test_adding_one_record_moves_the_sum_by_at_most_the_clip(clips):
    """Random neighbours, and adversarial ones: scaled, repeated, of the wrong label, close to another record."""
    model = make_model()
    features, labels = make_batch()
    groups = groups_of(model, *clips)
    bound = float(np.sqrt(np.square(clips).sum()))
    base = flat(clipped_sum(model, groups, example_losses(model), features, labels))
    rng = np.random.default_rng(8)
    added = [torch.from_numpy(unit_rows(rng, 1)) * scale for scale in (1.0, 1.0, 1e3, 1e-3, 0.0)]
    added += [features[:1], -features[:1], features[:1] * 1e6]
    reached = 0.0
    for row in added:
        for label in range(CLASSES):
            more = clipped_sum(
                model,
                groups,
                example_losses(model),
                torch.cat([features, row]),
                torch.cat([labels, torch.tensor([label])]),
            )
            difference = float((flat(more) - base).norm())
            assert difference <= bound * (1 + 1e-4)
            reached = max(reached, difference / bound)
    assert reached > 0.99  # the bound is attained, so the test would see a clip that is off


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_record_that_is_not_finite_counts_as_zero(poison):
    model = make_model()
    features, labels = make_batch()
    groups = groups_of(model, 0.5)
    without = clipped_sum(model, groups, example_losses(model), features, labels)
    poisoned = torch.cat([features, torch.full((1, WIDTH), poison)])
    withit = clipped_sum(model, groups, example_losses(model), poisoned, torch.cat([labels, labels[:1]]))
    assert torch.isfinite(flat(withit)).all()
    if np.isfinite(poison):
        assert float((flat(withit) - flat(without)).norm()) <= 0.5 * (1 + 1e-4)
    else:
        assert withit.zeroed == 1
        torch.testing.assert_close(flat(withit), flat(without), rtol=1e-5, atol=1e-6)


def test_an_empty_batch_is_a_sum_of_nothing():
    model = make_model()
    features, labels = make_batch(0)
    summed = clipped_sum(model, groups_of(model, 1.0, 1.0), example_losses(model), features, labels)
    assert summed.units == 0
    assert flat(summed).shape == (sum(p.numel() for p in model.parameters()),)
    assert not flat(summed).any()


def test_a_batch_of_nothing_but_broken_records_is_a_sum_of_nothing():
    model = make_model()
    _, labels = make_batch(3)
    summed = clipped_sum(model, groups_of(model, 1.0), example_losses(model), torch.full((3, WIDTH), np.nan), labels)
    assert summed.zeroed == 3
    assert not flat(summed).any()


def test_a_patient_counts_once_however_many_images():
    """The sum of a patient's gradients is clipped once: fifty copies of an image move a step no further than one."""
    model = make_model()
    features, labels = make_batch()
    groups = groups_of(model, 0.4)
    units = torch.arange(BATCH)
    base = flat(unit_by_unit_sum(groups, example_losses(model), features, labels, units))
    for copies in (1, 50):
        more = unit_by_unit_sum(
            groups,
            example_losses(model),
            torch.cat([features, features[:1].repeat(copies, 1)]),
            torch.cat([labels, labels[:1].repeat(copies)]),
            torch.cat([units, torch.full((copies,), BATCH)]),
        )
        assert more.units == BATCH + 1
        assert float((flat(more) - base).norm()) <= 0.4 * (1 + 1e-5)
    as_images = clipped_sum(
        model,
        groups,
        example_losses(model),
        torch.cat([features, features[:1].repeat(50, 1)]),
        torch.cat([labels, labels[:1].repeat(50)]),
    )
    assert float((flat(as_images) - base).norm()) > 10 * 0.4  # image-level clipping bounds no patient


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"fam_loss": "contrastive"}, "fam_loss"),
        ({"distillation": "class-wise"}, "distillation"),
        ({"mlp_norm": "batch"}, "mlp_norm"),
    ],
)
def test_losses_that_couple_a_batch_have_no_example_losses(changes, field):
    with pytest.raises(SettingsError) as refused:
        example_losses(make_model(**changes))
    assert refused.value.field == field


def test_the_hooks_come_off():
    model = make_model()
    features, labels = make_batch()
    for _ in range(2):
        clipped_sum(model, groups_of(model, 1.0), example_losses(model), features, labels)
    example_losses(model)(features, labels).sum().backward()
    assert all("_norm_sample" not in vars(p) or vars(p)["_norm_sample"] is None for p in model.parameters())
    assert not any(hasattr(module, "activations") and module.activations for module in model.modules())
