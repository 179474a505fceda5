"""The four couplings of the published method: one record moves the clipped sum by several clip norms; what is allowed.

Each sum is made as somebody would who bolts DP-SGD on the method: the gradient of each entry of the loss, clipped to C,
added up. `sensitivity` leaves out each record in turn; above 1 there is no guarantee.
"""

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from clients.method import losses
from clients.method.parts import build_model
from clients.method.settings import TrainingSettings
from clients.privacy.clipping import ClippedSum, Group
from clients.privacy.replay import SensitivityError, made_up_records, require_sensitivity, sensitivity
from clients.privacy.step import LeanClipping
from tests.clients.privacy.opacus_clipping import clipped_sum
from tests.clients.privacy.slow_clipping import example_losses

WIDTH, CLASSES, BATCH = 16, 3, 32
CLIP = 0.05
ALLOWED = dataclasses.replace(TrainingSettings.default(), prior_adjustment=0.0, feature_dropout=0.0, mlp_dropout=0.0)


def make_model(**changes):
    rng = np.random.default_rng(3)
    text = rng.normal(size=(CLASSES, WIDTH)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    model = build_model(text, 30.0, dataclasses.replace(ALLOWED, **changes), "fedmedclip", "a", 0, "cpu")
    return model.train()


def naive_sum(groups, entries):
    """The sum over the entries of a loss of their clipped gradients, whatever the entries depend on."""

    def sum_of(features, labels, units=None):
        totals = [[torch.zeros_like(p) for p in group.parameters] for group in groups]
        values = entries(features, labels)
        for value in values:
            for group, total in zip(groups, totals, strict=True):
                found = torch.autograd.grad(value, group.parameters, retain_graph=True, allow_unused=True)
                filled = [torch.zeros_like(p) if g is None else g for p, g in zip(group.parameters, found, strict=True)]
                norm = torch.stack([g.norm() for g in filled]).norm()
                for so_far, gradient in zip(total, filled, strict=True):
                    so_far.add_(gradient * (group.clip_norm / norm.clamp_min(1e-12)).clamp(max=1))
        return ClippedSum(tuple(tuple(total) for total in totals), len(labels), 0)

    return sum_of


def fam_group(model):
    return [Group(tuple(model.fam.parameters()), CLIP)]


def joint_group(model):
    return [Group(tuple(model.parameters()), CLIP)]


def test_the_contrastive_loss_is_no_sum_of_records():
    model = make_model()

    def entries(features, labels):
        return losses.contrastive_loss(model.fam(features), model.text_features, labels, 30.0)

    groups = fam_group(model)
    assert sensitivity(naive_sum(groups, entries), groups, *made_up_records(WIDTH, CLASSES, BATCH)) > 1.5


def test_class_wise_distillation_is_no_sum_of_records():
    model = make_model()

    def entries(features, labels):
        _, similarities, mlp_logits = model(features)
        # One image that is sure of its class takes the whole column of the softmax over the batch.
        return losses.class_wise_distillation(
            20 * mlp_logits, 20 * similarities, 30 * similarities, temperature=1.0, adaptive=True
        )

    groups = joint_group(model)
    assert sensitivity(naive_sum(groups, entries), groups, *made_up_records(WIDTH, CLASSES, BATCH)) > 3


def test_batch_norm_is_no_sum_of_records():
    model = make_model(mlp_norm="batch")

    def entries(features, labels):
        _, _, mlp_logits = model(features)
        return losses.classification_loss(mlp_logits, labels)

    groups = [Group(tuple(model.mlp.parameters()), CLIP)]
    assert sensitivity(naive_sum(groups, entries), groups, *made_up_records(WIDTH, CLASSES, BATCH)) > 3


def test_noise_on_the_fam_alone_does_not_hide_who_taught_the_mlp():
    """The MLP is a function of all records; through the distillation each of them moves the FAM's gradient of all.

    Half of the records are of one class, half of another: whom the MLP teaches to every record hangs on each of them.
    """
    form = {"mlp_layers": 0, "mlp_input": "image", "learn_thresholds": False, "mlp_to_fam": False}
    taught = {"distillation_strength": 10.0, "distillation_temperature": 0.02, "fam_logit_scale": 0.01}
    features, _ = made_up_records(WIDTH, CLASSES, BATCH)
    features[-1] = features[0]
    labels = torch.tensor([0, 2] * (BATCH // 2))
    clip = 1e-6
    groups = []

    def sum_of(x, y, units=None):
        model = make_model(**form, **taught)
        optimizer = torch.optim.SGD(model.mlp.parameters(), lr=0.5)
        for _ in range(300):  # the MLP of the round before, without noise
            optimizer.zero_grad()
            losses.classification_loss(model(x)[2], y).mean().backward()
            optimizer.step()
        for parameter in model.mlp.parameters():
            parameter.requires_grad_(False)
        groups[:] = [Group(tuple(model.fam.parameters()), clip)]
        return naive_sum(groups, example_losses(model))(x, y)

    sum_of(features, labels)
    assert sensitivity(sum_of, groups, features[:], labels) > 3


@pytest.mark.parametrize("changes", [{}, {"learn_thresholds": False, "mlp_layers": 0}, {"mlp_norm": "group"}])
@pytest.mark.parametrize("records", ["adversarial", "random"])
def test_what_is_allowed_moves_by_one_clip_norm(changes, records):
    """Ratio 1.00: attained, and never passed."""
    model = make_model(**changes, mlp_width=64)
    groups = joint_group(model)
    features, labels = made_up_records(WIDTH, CLASSES, BATCH)
    if records == "random":
        rng = np.random.default_rng(4)
        features = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(BATCH, WIDTH))).float(), dim=1)
        labels = torch.from_numpy(rng.integers(0, CLASSES, BATCH))
    ratio = sensitivity(
        lambda x, y, _: clipped_sum(model, groups, example_losses(model), x, y), groups, features, labels
    )
    assert ratio == pytest.approx(1.0, abs=1e-3)


def test_the_replay_refuses_a_coupled_step():
    model = make_model()
    groups = fam_group(model)

    def entries(features, labels):
        return losses.contrastive_loss(model.fam(features), model.text_features, labels, 30.0)

    with pytest.raises(SensitivityError, match="clip norms") as refused:
        require_sensitivity(naive_sum(groups, entries), groups, *made_up_records(WIDTH, CLASSES, BATCH))
    assert refused.value.ratio > 1
    require_sensitivity(
        lambda x, y, _: clipped_sum(model, joint_group(model), example_losses(model), x, y),
        joint_group(model),
        *made_up_records(WIDTH, CLASSES),
    )


def test_a_group_is_held_to_its_own_clip_norm():
    """What the FAM does not use of its norm is nothing that the MLP may use: their noise may differ."""
    model = make_model()
    groups = [Group(tuple(model.fam.parameters()), CLIP), Group(tuple(model.mlp.parameters()), CLIP / 10)]

    def sum_of(features, labels, units=None):
        found = [[torch.zeros_like(p) for p in group.parameters] for group in groups]
        found[1][0].view(-1)[0] = 1.4 * CLIP / 10 * len(labels)
        return ClippedSum(tuple(map(tuple, found)), len(labels), 0)

    assert sensitivity(sum_of, groups, *made_up_records(WIDTH, CLASSES)) == pytest.approx(1.4, rel=1e-4)
    with pytest.raises(SensitivityError, match=r"by 1\.4 clip norms"):
        require_sensitivity(sum_of, groups, *made_up_records(WIDTH, CLASSES))


@pytest.mark.parametrize(("moved", "is_refused"), [(1.0, False), (1.0005, False), (1.002, True), (1.1, True)])
def test_the_replay_forgives_rounding_and_nothing_more(moved, is_refused):
    model = make_model()
    groups = fam_group(model)

    def sum_of(features, labels, units=None):
        found = [torch.zeros_like(parameter) for parameter in groups[0].parameters]
        found[0].view(-1)[0] = moved * groups[0].clip_norm * len(labels)
        return ClippedSum((tuple(found),), len(labels), 0)

    refused = pytest.raises(SensitivityError, match="clip norms") if is_refused else nullcontext()
    with refused:
        require_sensitivity(sum_of, groups, *made_up_records(WIDTH, CLASSES))


def test_a_patient_is_left_out_with_all_its_images():
    """Images that are clipped one by one move the sum by more than one norm, and only patients show it."""
    model = make_model()
    groups = joint_group(model)
    features, labels = made_up_records(WIDTH, CLASSES)
    patients = torch.arange(len(labels)) // 3
    by_patient = LeanClipping(model, groups)

    def by_image(x, y, _):
        return by_patient(x, y, None)

    assert sensitivity(by_image, groups, features, labels) == pytest.approx(1, abs=1e-3)
    assert sensitivity(by_image, groups, features, labels, patients) > 2
    assert sensitivity(by_patient, groups, features, labels, patients) == pytest.approx(1, abs=1e-3)
