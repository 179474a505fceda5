"""The local training loop: gradients reach everything, thresholds learn, imbalance can be weighed."""

import dataclasses

import numpy as np
import pytest
import torch

from clients.method.fam import FeatureAdaptationModule
from clients.method.masked_linear import MaskedLinear
from clients.method.mlp import PrivateMlp
from clients.method.model import HospitalModel
from clients.method.settings import TrainingSettings
from clients.method.training import class_weights, make_optimizer, refresh_batch_norm, train_epochs

D, C = 32, 3
LOG_PRIOR = torch.log(torch.tensor([0.5, 0.3, 0.2]))
PROFILES = {"default": TrainingSettings.default(), "paper": TrainingSettings.paper()}
FAST = {
    name: dataclasses.replace(profile, fam_learning_rate=5e-3, mlp_learning_rate=5e-3, learning_rate_decay=0.99)
    for name, profile in PROFILES.items()
}
"""The profiles with learning rates for a few small steps."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def unit(rows):
    return torch.nn.functional.normalize(rows, dim=-1)


def make_model(settings, seed=0):
    fam = FeatureAdaptationModule(D, settings, generator(seed))
    mlp = PrivateMlp(D, C, settings, generator(seed + 1))
    return HospitalModel(unit(torch.randn(C, D, generator=generator(7))), 100.0, settings, fam, mlp, LOG_PRIOR)


def sample(count=97, noise=1.0):
    labels = torch.arange(count) % C
    centres = torch.randn(C, D, generator=generator(8))
    return unit(centres[labels] + noise * torch.randn(count, D, generator=generator(9))), labels


def test_the_contrastive_loss_of_the_fam_goes_without_prior_and_smoothing():
    def loss(**fields):
        settings = dataclasses.replace(PROFILES["default"], feature_dropout=0.0, **fields)
        model = make_model(settings)
        model.mlp = None  # what is left is L_FAM
        return float(model.loss(*sample()).detach())

    for changed in ({"prior_adjustment": 0.0}, {"label_smoothing": 0.2}):
        assert loss(fam_loss="contrastive", **changed) == loss(fam_loss="contrastive")
        assert loss(fam_loss="class-prompt", **changed) != loss(fam_loss="class-prompt")


def train(settings, epochs=1, seed=0, data=None):
    model = make_model(settings)
    x, y = data or sample()
    draw = generator(seed)
    steps = 0
    for number in range(1, epochs + 1):
        steps += train_epochs(model, make_optimizer(model, settings, number), x, y, None, settings, draw)
    return model, steps


@pytest.mark.parametrize("profile", PROFILES)
def test_gradients_flow_to_every_parameter_thresholds_included(profile):
    model = make_model(PROFILES[profile]).train()
    model.loss(*sample(), generator=generator()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("profile", PROFILES)
def test_thresholds_move_and_rows_are_switched_off_in_training(profile):
    model, _ = train(FAST[profile], epochs=60)
    layers = [m for m in model.modules() if isinstance(m, MaskedLinear)]
    assert all(layer.threshold.abs().max() > 0 for layer in layers)
    assert min(layer.keep_ratio() for layer in layers) < 1
    assert all(layer.keep_ratio() > PROFILES[profile].reset_keep_ratio for layer in layers)


@pytest.mark.parametrize("profile", PROFILES)
def test_training_learns(profile):
    x, y = sample()
    before, (model, _) = make_model(FAST[profile]), train(FAST[profile], epochs=40)
    for part in (0, 1):
        accuracy = [(m.log_probabilities(x)[part].argmax(1) == y).float().mean().item() for m in (before, model)]
        assert accuracy[1] > max(accuracy[0], 0.9)


def test_a_step_without_own_gradient_memory_is_the_same():
    settings = TrainingSettings.paper()
    x, y = sample(32)
    lean, _ = train(settings, data=(x, y), seed=4)
    plain = make_model(settings).train()
    draw = generator(4)
    optimizer = make_optimizer(plain, settings, 1)
    order = torch.randperm(32, generator=draw)
    plain.loss(x[order], y[order], None, draw).backward()
    optimizer.step()
    for name, parameter in plain.named_parameters():
        np.testing.assert_allclose(
            lean.get_parameter(name).detach().numpy(), parameter.detach().numpy(), rtol=1e-5, atol=1e-8, err_msg=name
        )


def test_the_mlps_gradient_stops_where_it_is_told_to():
    settings = TrainingSettings(mlp_to_fam=False, distillation="off", mlp_dropout=0.0, feature_dropout=0.0)
    x, y = sample()
    model = make_model(settings).train()
    model.loss(x, y).backward()
    fam = FeatureAdaptationModule(D, settings, generator())
    fam_only = HospitalModel(model.text_features, 100.0, settings, fam, None, LOG_PRIOR)
    fam_only.loss(x, y).backward()
    for ours, alone in zip(model.fam.parameters(), fam_only.fam.parameters(), strict=True):
        np.testing.assert_allclose(ours.grad.numpy(), alone.grad.numpy(), rtol=1e-4, atol=1e-7)


def test_a_pass_has_the_last_partial_batch_but_no_batch_norm_over_one_image():
    x, y = sample(65)
    assert train(PROFILES["paper"], data=(x, y))[1] == 2
    assert train(TrainingSettings(mlp_norm="layer"), data=(x, y))[1] == 3
    assert train(TrainingSettings(local_epochs=2), data=(x[:64], y[:64]))[1] == 4


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_images(count):
    x, y = sample(3)
    assert train(PROFILES["paper"], data=(x[:count], y[:count]))[1] == 0


def test_the_learning_rates_decay_by_round():
    settings = PROFILES["paper"]
    groups = make_optimizer(make_model(settings), settings, 11).param_groups
    assert [group["lr"] for group in groups] == [pytest.approx(5e-4 * 0.97**10), pytest.approx(1e-4 * 0.97**10)]
    assert groups[0]["betas"] == (0.9, 0.98)
    assert groups[0]["weight_decay"] == 0.02


def test_class_weights():
    labels = np.array([0] * 16 + [1] * 4 + [3])
    assert class_weights(labels, 4, 0.0) is None
    weights = class_weights(labels, 4, 0.5)
    np.testing.assert_allclose(weights[[0, 1, 3]] / weights[3], [1 / 4, 1 / 2, 1], rtol=1e-6)
    assert weights[2] == 0
    np.testing.assert_allclose(weights[labels].mean(), 1, rtol=1e-6)
    balanced = class_weights(labels, 4, 1.0)
    np.testing.assert_allclose([balanced[labels[labels == c]].sum() for c in (0, 1, 3)], [7, 7, 7], rtol=1e-6)


def test_class_weights_enter_the_loss():
    settings = TrainingSettings(distillation="off", mlp_dropout=0.0, feature_dropout=0.0)
    x, y = sample(12)
    model = make_model(settings).train()
    single = torch.stack([model.loss(x[i : i + 1], y[i : i + 1]) for i in range(12)])
    weights = torch.tensor([1.0, 2.0, 0.5])
    np.testing.assert_allclose(model.loss(x, y, weights).item(), (single * weights[y]).mean().item(), rtol=1e-5)


def test_refreshed_batch_norm_has_the_statistics_of_the_features():
    settings = PROFILES["paper"]
    model = make_model(settings)
    x, _ = sample()
    refresh_batch_norm(model, x)
    with torch.no_grad():
        first = model.mlp.hidden[0](model.fam(x))
    norm = model.mlp.norms[0]
    np.testing.assert_allclose(norm.running_mean.numpy(), first.mean(0).numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.running_var.numpy(), first.var(0).numpy(), rtol=1e-4, atol=1e-6)
    assert not norm.training
    assert norm.momentum == 0.1


def test_refreshed_batch_norm_is_the_same_in_a_model_that_trains_and_in_one_that_predicts():
    model = make_model(dataclasses.replace(PROFILES["default"], mlp_norm="batch"))
    assert model.settings.feature_dropout or model.settings.mlp_dropout
    x, _ = sample()
    seen = []
    for mode in (True, True, False):
        model.train(mode)
        refresh_batch_norm(model, x)
        assert not model.training
        seen.append([(norm.running_mean.clone(), norm.running_var.clone()) for norm in model.mlp.norms])
    torch.testing.assert_close(seen[1:], [seen[0], seen[0]], rtol=0, atol=0)


def test_nothing_touches_torchs_global_generator():
    before = torch.random.get_rng_state()
    for settings in PROFILES.values():
        train(settings)
    assert torch.equal(before, torch.random.get_rng_state())
