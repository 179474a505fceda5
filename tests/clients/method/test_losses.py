"""Every loss term at a fixed point, against numbers worked out in numpy from the equations."""

import numpy as np
import pytest
import torch

from clients.method import losses

B, D, C = 4, 3, 3
SCALE, T = 10.0, 2.0
Z = np.array([[3.0, 0.0, 4.0], [0.0, 1.0, 0.0], [2.0, -1.0, 2.0], [-6.0, 2.0, 3.0]])
Z /= np.sqrt((Z**2).sum(1, keepdims=True))
TEXT = np.array([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8], [0.6, -0.8, 0.0]])
LABELS = np.array([0, 1, 1, 2])
MLP = np.array([[1.0, 0.5, -1.0], [0.2, 2.0, 0.3], [-0.5, 0.0, 0.5], [0.0, -3.0, 3.0]])
COSINES = Z @ TEXT.T


def tensor(array):
    return torch.tensor(array, dtype=torch.float64 if array.dtype.kind == "f" else torch.int64)


def softmax(logits, axis):
    e = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def entropies(probabilities):
    return -(probabilities * np.log(probabilities)).sum(1)


def test_contrastive_is_the_symmetric_clip_loss_of_the_batch():
    logits = SCALE * Z @ TEXT[LABELS].T
    by_image = -np.log(np.diag(softmax(logits, 1)))
    by_text = -np.log(np.diag(softmax(logits, 0)))
    actual = losses.contrastive_loss(tensor(Z), tensor(TEXT), tensor(LABELS), SCALE)
    np.testing.assert_allclose(actual.numpy(), (by_image + by_text) / 2, rtol=1e-12)


def test_contrastive_of_two_orthogonal_pairs_by_hand():
    eye = torch.eye(2, dtype=torch.float64)
    actual = losses.contrastive_loss(eye, eye, torch.tensor([0, 1]), 1.0)
    # Each row and column holds the logits 1 (right) and 0 (wrong).
    np.testing.assert_allclose(actual.numpy(), [np.log(1 + np.exp(-1))] * 2, rtol=1e-12)


def test_classification_is_the_cross_entropy_of_each_example():
    expected = -np.log(softmax(MLP, 1)[np.arange(B), LABELS])
    actual = losses.classification_loss(tensor(MLP), tensor(LABELS))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12)


def test_label_smoothing_spreads_the_target_over_all_classes():
    target = np.full((B, C), 0.3 / C)
    target[np.arange(B), LABELS] += 0.7
    actual = losses.classification_loss(tensor(MLP), tensor(LABELS), label_smoothing=0.3)
    np.testing.assert_allclose(actual.numpy(), -(target * np.log(softmax(MLP, 1))).sum(1), rtol=1e-12)


def fam_share():
    h_p, h_q = entropies(softmax(MLP, 1)), entropies(softmax(SCALE * COSINES, 1))
    return h_q / (h_p + h_q)


@pytest.mark.parametrize("adaptive", [True, False])
def test_class_wise_distillation_runs_over_the_batch(adaptive):
    p, q = softmax(MLP / T, 0), softmax(COSINES / T, 0)
    w = fam_share()[:, None] if adaptive else 0.5
    expected = (w * q * np.log(q / p) + (1 - w) * p * np.log(p / q)).sum() / C
    actual = losses.class_wise_distillation(
        tensor(MLP), tensor(COSINES), tensor(SCALE * COSINES), temperature=T, adaptive=adaptive
    )
    assert actual.shape == (B,)
    np.testing.assert_allclose(actual.sum().item(), expected, rtol=1e-12)


@pytest.mark.parametrize("adaptive", [True, False])
def test_per_example_distillation_runs_over_the_classes(adaptive):
    p, q = softmax(MLP / T, 1), softmax(SCALE * COSINES / T, 1)
    w = fam_share() if adaptive else 0.5
    expected = w * (p * np.log(p / q)).sum(1) + (1 - w) * (q * np.log(q / p)).sum(1)
    actual = losses.per_example_distillation(tensor(MLP), tensor(SCALE * COSINES), temperature=T, adaptive=adaptive)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12)


def test_per_example_distillation_teaches_the_less_certain_side_more():
    certain, vague = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.02, 0.0]])

    def gradient_norms(mlp, fam):
        mlp, fam = mlp.clone().requires_grad_(), fam.clone().requires_grad_()
        losses.per_example_distillation(mlp, fam, temperature=T, adaptive=True).sum().backward()
        return mlp.grad.norm().item(), fam.grad.norm().item()

    mlp, fam = gradient_norms(certain, vague)
    assert fam > 10 * mlp
    mlp, fam = gradient_norms(vague, certain)
    assert mlp > 10 * fam


def test_no_example_sees_another_one_where_that_is_claimed():
    whole = losses.per_example_distillation(tensor(MLP), tensor(SCALE * COSINES), temperature=T, adaptive=True)
    single = losses.per_example_distillation(tensor(MLP[:1]), tensor(SCALE * COSINES[:1]), temperature=T, adaptive=True)
    np.testing.assert_allclose(single.numpy(), whole[:1].numpy(), rtol=1e-12)


def test_entropy_share_is_a_half_between_two_certain_sides():
    certain = torch.log_softmax(torch.tensor([[1e4, 0.0]]), -1)
    assert losses.entropy_share(certain, certain).item() == 0.5
    vague = torch.log_softmax(torch.zeros(1, 2), -1)
    assert losses.entropy_share(vague, certain).item() == 1.0
    assert losses.entropy_share(certain, vague).item() == 0.0
