"""The fused step against the lean one: on a GPU where there is one, elsewhere interpreted by Triton."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from clients.method.fam import FeatureAdaptationModule
from clients.method.layout import flatten
from clients.method.lean.fleet import Fleet
from clients.method.lean.fused import fits
from clients.method.lean.stack import Trainee
from clients.method.lean.trainer import LeanTrainer
from clients.method.mlp import PrivateMlp
from clients.method.model import HospitalModel
from clients.method.parts import private_part, shared_part
from clients.method.settings import TrainingSettings
from tests.clients.method.test_lean import generator, unit

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = (9, 5, 0, 1)
"""Two that end with a batch of one image, none at all, and a single one, in batches of 4."""

FEW = (5, 3)
"""A whole batch and a rest, and less than a batch: interpreted steps are slow."""

CHANGES = {
    "half, FAM's own scales": {
        "distillation_weight": "half",
        "distillation_strength": 2.0,
        "fam_input_rms": 1.0,
        "fam_logit_scale": 20.0,
    },
    "targets, mlp stops": {
        "label_smoothing": 0.2,
        "prior_adjustment": 0.5,
        "mlp_input_rms": 0.0,
        "mlp_to_fam": False,
    },
    "no dropout, no distillation": {"mlp_dropout": 0.0, "feature_dropout": 0.0, "distillation": "off"},
    "two passes, rows reset": {"local_epochs": 2, "reset_keep_ratio": 0.95},
    "no momentum, other widths": {
        "adam_beta1": 0.0,
        "weight_decay": 0.0,
        "distillation_strength": 2.0,
        "distillation_temperature": 0.7,
        "threshold_window": 0.5,
        "fam_width": 32,
        "mlp_width": 48,
        "mlp_dropout": 0.3,
    },
}


@pytest.fixture(autouse=True)
def also_on_the_processor(monkeypatch):
    monkeypatch.setattr(fits, "DEVICES", ("cuda", "cpu"))


def settings_of(**changes):
    return dataclasses.replace(TrainingSettings.default(), **{"batch_size": 4} | changes)


def make_model(settings, width=16, classes=3, seed=0, with_mlp=True):
    fam = FeatureAdaptationModule(width, settings, generator(seed))
    mlp = PrivateMlp(width, classes, settings, generator(seed + 1)) if with_mlp else None
    prior = torch.log_softmax(torch.randn(classes, generator=generator(seed + 3)), 0)
    text = unit(torch.randn(classes, width, generator=generator(7)))
    model = HospitalModel(text, 100.0, settings, fam, mlp, prior)
    for layer in (fam.first, fam.second, *((mlp.hidden[0], mlp.head) if with_mlp and settings.mlp_layers else ())):
        layer.threshold.data.copy_(
            layer.weight.detach().abs().mean(1)
            * (0.86 + 0.2 * torch.rand(len(layer.bias), generator=generator(seed + 2)))
        )
    return model.to(DEVICE)


def cohort_of(settings, sizes, **shape):
    cohort = []
    for number, size in enumerate(sizes):
        model, draw = make_model(settings, seed=10 * number, **shape), generator(100 + number)
        classes, width = model.text_features.shape
        x = unit(torch.randn(size, width, generator=draw)).to(DEVICE)
        y = torch.randint(0, classes, (size,), generator=draw).to(DEVICE)
        weights = (0.5 + torch.rand(classes, generator=draw)).to(DEVICE) if number % 2 else None
        cohort.append((model, x, y, weights))
    return cohort


def drawn(number, k):
    return torch.Generator(DEVICE).manual_seed(100 * number + k)


def train_both_ways(settings, sizes=SIZES, rounds=1, method="local", **shape):
    """Private parts after each round, by hospital: fused and by the lean step on its own."""
    cohort = cohort_of(settings, sizes, **shape)
    fleet = Fleet(copy.deepcopy(cohort[0][0]), method)
    trainers = [LeanTrainer(model) for model, *_ in cohort]
    private = [copy.deepcopy(private_part(model, method)) for model, *_ in cohort]
    for number in range(1, rounds + 1):
        trainees = [
            Trainee(x, y, weights, mine, lambda number=number, k=k: drawn(number, k))
            for k, ((_, x, y, weights), mine) in enumerate(zip(cohort, private, strict=True))
        ]
        private = [result.private for result in fleet.train(np.zeros(0, np.float32), trainees, number)]
        assert fleet._kept.general_because is None
        for k, (trainer, (model, x, y, weights)) in enumerate(zip(trainers, cohort, strict=True)):
            trainer.train(x, y, weights, number, drawn(number, k))
            yield private[k], private_part(model, method)
            private[k] = copy.deepcopy(private_part(model, method))  # rounding is not to add up


def assert_same(pairs):
    for fused, lean in pairs:
        assert fused.keys() == lean.keys()
        for name, tensor in lean.items():
            torch.testing.assert_close(
                fused[name], tensor.detach(), rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.parametrize("name", CHANGES)
def test_each_hospital_trains_as_by_the_lean_step(name):
    assert_same(train_both_ways(settings_of(**CHANGES[name]), FEW))


def test_hospitals_that_end_before_others_or_have_no_images_train_as_by_the_lean_step():
    assert_same(train_both_ways(settings_of(), SIZES))


@pytest.mark.parametrize(("width", "classes"), [(64, 2), (32, 64)])
def test_other_shapes_train_as_by_the_lean_step(width, classes):
    assert_same(train_both_ways(settings_of(), (3, 2), width=width, classes=classes))


def test_batches_that_are_no_power_of_two_train_as_by_the_lean_step():
    assert_same(train_both_ways(settings_of(batch_size=5), (7,)))


def test_what_is_kept_of_one_round_does_not_show_in_the_next():
    assert_same(train_both_ways(settings_of(), FEW, rounds=2))


def test_rows_are_off_and_cross_their_thresholds_in_these_tests():
    model, x, y, weights = cohort_of(settings_of(), SIZES)[0]
    layers = (model.fam.first, model.fam.second)
    before = [layer.keep_ratio() for layer in layers]
    LeanTrainer(model).train(x, y, weights, 1, drawn(1, 0))
    after = [layer.keep_ratio() for layer in layers]
    assert all(0.5 < ratio < 1 for ratio in before + after)
    assert before != after


def test_two_runs_give_the_same_bits():
    settings = settings_of()
    first, second = ([fused for fused, _ in train_both_ways(settings, FEW)] for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_shared_vector_moves_as_by_the_lean_step():
    settings, method = settings_of(), "fedmedclip"
    cohort = cohort_of(settings, (5, 4))
    vector = flatten(shared_part(cohort[0][0], method))
    for model, *_ in cohort:
        for (_, mine), (_, first) in zip(shared_part(model, method), shared_part(cohort[0][0], method), strict=True):
            mine.data.copy_(first.data)
    trainees = [
        Trainee(x, y, weights, copy.deepcopy(private_part(model, method)), lambda k=k: drawn(1, k))
        for k, (model, x, y, weights) in enumerate(cohort)
    ]
    fleet = Fleet(copy.deepcopy(cohort[0][0]), method)
    trained = fleet.train(vector, trainees, 1)
    assert fleet._kept.general_because is None
    for k, (model, x, y, weights) in enumerate(cohort):
        LeanTrainer(model).train(x, y, weights, 1, drawn(1, k))
        np.testing.assert_allclose(trained[k].update, flatten(shared_part(model, method)) - vector, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fam_form": "published"}, "fam_form is published"),
        ({"fam_loss": "contrastive"}, "fam_loss is contrastive"),
        ({"distillation": "class-wise"}, "distillation is class-wise"),
        ({"mlp_layers": 2}, "mlp_layers is 2"),
        ({"mlp_norm": "group"}, "mlp_norm is group"),
        ({"mlp_input": "image"}, "mlp_input is image"),
        ({"learn_thresholds": False}, "learn_thresholds is False"),
        ({"mask_bias": False}, "mask_bias is False"),
        ({"fam_width": 12}, "multiple of 16"),
        ({"batch_size": 65}, "batch_size"),
    ],
)
def test_other_settings_say_why_they_take_the_general_step(changes, reason):
    assert reason in fits.reason_for_general_step(make_model(settings_of(**changes)))


def test_a_model_without_an_mlp_or_in_double_precision_takes_the_general_step():
    settings = settings_of()
    assert fits.reason_for_general_step(make_model(settings, with_mlp=False)) == "there is no MLP"
    assert "float64" in fits.reason_for_general_step(make_model(settings).double())
    assert fits.reason_for_general_step(make_model(settings)) is None


def test_a_processor_takes_the_general_step(monkeypatch):
    monkeypatch.undo()
    assert fits.reason_for_general_step(make_model(settings_of()).cpu()) == "parameters are on the device cpu"


def test_without_triton_or_with_an_old_one_the_general_step_is_taken(monkeypatch):
    model = make_model(settings_of())
    monkeypatch.setattr("triton.__version__", "2.3.1")
    assert fits.reason_for_general_step(model) == "Triton is 2.3.1"
    monkeypatch.setattr(fits, "find_spec", lambda name: None)
    assert fits.reason_for_general_step(model) == "Triton is not installed"


@pytest.mark.gpu
@pytest.mark.parametrize("width", [64, 512])
def test_a_gpu_trains_in_recorded_steps_as_by_the_lean_step(width):
    """Steps that are recorded, replayed and begun by call, in full batches and with hospitals that have ended."""
    settings = TrainingSettings.default()
    assert_same(train_both_ways(settings, (400, 353, 0, 1, 340, 33), rounds=3, width=width, classes=8))
