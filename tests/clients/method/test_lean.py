"""The lean step against autograd: every setting, both precisions, last batches that are smaller."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from clients.method.fam import FeatureAdaptationModule
from clients.method.lean import masked
from clients.method.lean import trainer as trainer_module
from clients.method.lean.trainer import LeanTrainer
from clients.method.mlp import PrivateMlp
from clients.method.model import HospitalModel
from clients.method.settings import TrainingSettings
from clients.method.training import make_optimizer, train_epochs
from tests.clients.method.test_training import generator, unit

D, C = 32, 3
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
PROFILES = {"default": TrainingSettings.default(), "paper": TrainingSettings.paper()}
CHANGES = {
    "as it is": {},
    "published FAM": {"fam_form": "published"},
    "residual FAM": {"fam_form": "residual"},
    "contrastive": {"fam_loss": "contrastive"},
    "class prompts": {"fam_loss": "class-prompt", "label_smoothing": 0.1},
    "smoothing": {"label_smoothing": 0.2},
    "prior": {"prior_adjustment": 0.5},
    "no feature dropout": {"feature_dropout": 0.0},
    "feature dropout": {"feature_dropout": 0.4},
    "no distillation": {"distillation": "off"},
    "no strength": {"distillation_strength": 0.0},
    "per example": {"distillation": "per-example", "distillation_strength": 2.0},
    "per example, half": {"distillation": "per-example", "distillation_weight": "half", "distillation_strength": 2.0},
    "class-wise": {"distillation": "class-wise", "distillation_strength": 2.0},
    "class-wise, half": {"distillation": "class-wise", "distillation_weight": "half", "distillation_strength": 2.0},
    "mlp stops": {"mlp_to_fam": False},
    "linear head": {"mlp_layers": 0},
    "two layers": {"mlp_layers": 2, "mlp_width": 20},
    "no norm": {"mlp_norm": "none"},
    "layer norm": {"mlp_norm": "layer", "mlp_layers": 2},
    "group norm": {"mlp_norm": "group", "mlp_width": 160, "batch_size": 31},
    "batch norm": {"mlp_norm": "batch", "mlp_layers": 2},
    "dropout": {"mlp_dropout": 0.3, "mlp_layers": 2},
    "no dropout": {"mlp_dropout": 0.0, "feature_dropout": 0.0},
    "image only": {"mlp_input": "image"},
    "adapted only": {"mlp_input": "adapted"},
    "both inputs": {"mlp_input": "both", "mlp_input_rms": 0.0},
    "bias kept": {"mask_bias": False},
    "wide window": {"threshold_window": 0.5},
    "rows reset": {"reset_keep_ratio": 0.95},
    "thresholds not learned": {"learn_thresholds": False, "mlp_layers": 2},
    "narrow FAM": {"fam_width": 12},
    "FAM's own scales": {"fam_input_rms": 1.0, "fam_logit_scale": 20.0},
    "two passes": {"local_epochs": 2},
    "large batches": {"batch_size": 50},
    "a last image on its own": {"batch_size": 8},
}
CASES = [(profile, name) for profile in PROFILES for name in CHANGES]


def settings_of(profile, name):
    return dataclasses.replace(PROFILES[profile], **CHANGES[name])


def make_model(settings, with_mlp=True, seed=0, dtype=torch.float32):
    fam = FeatureAdaptationModule(D, settings, generator(seed))
    mlp = PrivateMlp(D, C, settings, generator(seed + 1)) if with_mlp else None
    prior = torch.log(torch.tensor([0.5, 0.3, 0.2]))
    model = HospitalModel(unit(torch.randn(C, D, generator=generator(7))), 100.0, settings, fam, mlp, prior).to(dtype)
    if settings.learn_thresholds:  # some rows are off, so that the masks do something
        for layer in (fam.first, fam.second):
            layer.threshold.data.add_(0.09 * torch.rand(len(layer.threshold), generator=generator(seed + 2)).to(dtype))
    return model


def sample(count=97, dtype=torch.float32):
    labels = torch.arange(count) % C
    centres = torch.randn(C, D, generator=generator(8))
    return unit(centres[labels] + torch.randn(count, D, generator=generator(9))).to(dtype), labels


def both(settings, *, with_mlp=True, dtype=torch.float32, weights=None, rounds=1, data=None):
    """The state after some rounds: by autograd and by the lean step."""
    x, y = data or sample(dtype=dtype)
    oracle = make_model(settings, with_mlp, dtype=dtype)
    lean = copy.deepcopy(oracle)
    trainer = LeanTrainer(lean)
    for number in range(1, rounds + 1):
        slow = train_epochs(
            oracle, make_optimizer(oracle, settings, number), x, y, weights, settings, generator(number)
        )
        fast = trainer.train(x, y, weights, number, generator(number))
        assert slow == fast > 0
    return oracle.state_dict(), lean.state_dict()


def assert_same(expected, got, dtype, leave_out=()):
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        if name not in leave_out:
            np.testing.assert_allclose(got[name].numpy(), tensor.numpy(), rtol=0, atol=TOLERANCE[dtype], err_msg=name)


def biases_before_batch_norm(settings):
    """A batch norm takes them out again: their gradient is 0 but for rounding, which AdamW blows up to a step."""
    layers = range(settings.mlp_layers) if settings.mlp_norm == "batch" else ()
    return [name for n in layers for name in (f"mlp.hidden.{n}.bias", f"mlp.norms.{n}.running_mean")]


@pytest.mark.parametrize(("profile", "name"), CASES)
def test_a_round_is_that_of_autograd_in_double_precision(profile, name):
    assert_same(*both(settings_of(profile, name), dtype=torch.float64), torch.float64)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("with_mlp", [True, False])
def test_a_round_is_that_of_autograd_in_single_precision(profile, with_mlp):
    settings = PROFILES[profile]
    expected, got = both(settings, with_mlp=with_mlp)
    assert_same(expected, got, torch.float32, biases_before_batch_norm(settings) if with_mlp else ())
    models = [make_model(settings, with_mlp) for _ in range(2)]
    for model, state in zip(models, (expected, got), strict=True):
        model.load_state_dict(state, strict=False)
    parts = [model.log_probabilities(sample(50)[0]) for model in models]
    for a, b in zip(*parts, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            np.testing.assert_allclose(a.exp().numpy(), b.exp().numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_where_loops_are_not_compiled_a_round_is_the_same(profile, dtype, monkeypatch):
    for module in (masked, trainer_module):
        monkeypatch.setattr(module, "is_compiled", lambda device: False)
    settings = PROFILES[profile]
    assert_same(*both(settings, dtype=dtype), dtype, biases_before_batch_norm(settings))


@pytest.mark.parametrize("profile", PROFILES)
def test_class_weights_and_a_fam_alone(profile):
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    for with_mlp in (True, False):
        assert_same(*both(PROFILES[profile], with_mlp=with_mlp, dtype=torch.float64, weights=weights), torch.float64)


@pytest.mark.parametrize("name", ["as it is", "thresholds not learned"])
def test_weights_are_trained_in_blocks_of_rows(name, monkeypatch):
    monkeypatch.setattr("clients.method.lean.trainer._BLOCK_BYTES", 7 * D * 8)  # 7 rows, or 3 of the MLP's
    assert_same(*both(settings_of("default", name), dtype=torch.float64, rounds=2), torch.float64)


def test_groups_of_one_entry_take_a_last_image_on_its_own():
    """Such a norm hands back nothing but rounding, which AdamW blows up: the layer before it is not comparable."""
    settings = dataclasses.replace(TrainingSettings.default(), mlp_norm="group", mlp_input="image")
    expected, got = both(settings, dtype=torch.float64)  # 97 images in batches of 32, 32 groups of a width of 32
    for state in (expected, got):
        assert all(tensor.isfinite().all() for tensor in state.values())
    np.testing.assert_allclose(got["fam.second.bias"], expected["fam.second.bias"], rtol=0, atol=1e-6)


def test_memory_is_kept_from_round_to_round_and_the_model_sees_it():
    settings = TrainingSettings.default()
    x, y = sample()
    model = make_model(settings)
    trainer = LeanTrainer(model)
    where = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    before = model.log_probabilities(x)[0]
    for number in (1, 2):
        assert trainer.train(x, y, None, number, generator(number)) == 4
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == where
    assert not torch.equal(before, model.log_probabilities(x)[0])


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_images(count):
    x, y = sample(3)
    model = make_model(TrainingSettings.paper())
    before = copy.deepcopy(model.state_dict())
    assert LeanTrainer(model).train(x[:count], y[:count], None, 1, generator()) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_torchs_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    for settings in PROFILES.values():
        LeanTrainer(make_model(settings)).train(*sample(), None, 1, generator())
    assert torch.equal(before, torch.random.get_rng_state())
