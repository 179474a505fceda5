"""Noise, momentum and move, against their formula in double precision."""

import dataclasses

import pytest
import torch
from torch import nn

from clients.method.settings import TrainingSettings
from clients.privacy import PrivacySettings, Randomness, descent
from clients.privacy.clipping import Group
from clients.privacy.descent import NoisyDescent

SETTINGS = dataclasses.replace(
    TrainingSettings.default(),
    fam_learning_rate=0.3,
    mlp_learning_rate=0.05,
    learning_rate_decay=0.9,
    adam_beta1=0.8,
    weight_decay=0.01,
)
PRIVACY = PrivacySettings(sampling_rate=1.0, clip_norms=(0.5, 2.0), noise_multipliers=(3.0, 0.7), normaliser=7.0)
SHAPES = {"fam.first.weight": (6, 5), "fam.first.bias": (6,), "mlp.head.weight": (3, 6), "mlp.head.bias": (3,)}


def make(device="cpu", settings=SETTINGS):
    generator = torch.Generator().manual_seed(1)
    named = [(name, nn.Parameter(torch.randn(s, generator=generator).to(device))) for name, s in SHAPES.items()]
    groups = [Group(tuple(p for name, p in named if name[:3] == part), c) for part, c in (("fam", 0.5), ("mlp", 2.0))]
    sums = [
        [[torch.randn(p.shape, generator=generator).to(device) for p in g.parameters] for g in groups] for _ in "ab"
    ]
    return NoisyDescent(PRIVACY, settings, named), dict(named), groups, sums


@pytest.mark.parametrize("beta", [0.8, 0.0])
@pytest.mark.parametrize("block", [descent._BLOCK, 4])
@pytest.mark.parametrize("compiled", [True, False])
def test_two_steps_are_those_of_the_formula(monkeypatch, block, beta, compiled):
    monkeypatch.setattr(descent, "_BLOCK", block)
    monkeypatch.setattr(descent, "is_compiled", lambda device: compiled)
    moving, parameters, groups, sums = make(settings=dataclasses.replace(SETTINGS, adam_beta1=beta))
    values = {name: p.detach().double() for name, p in parameters.items()}
    momentum = {name: torch.zeros_like(value) for name, value in values.items()}
    source, same = (Randomness.of_a_seed(5) for _ in range(2))
    names = {p: name for name, p in parameters.items()}
    for round_number, gradients in ((1, sums[0]), (2, sums[1])):
        moving.step(groups, gradients, {}, round_number, source)
        for group, given, multiplier in zip(groups, gradients, (3.0, 0.7), strict=True):
            for parameter, gradient in zip(group.parameters, given, strict=True):
                name = names[parameter]
                rate = (0.3 if name.startswith("fam") else 0.05) * 0.9 ** (round_number - 1)
                noise = torch.cat([same.gaussian(len(part)) for part in gradient.reshape(-1).split(block)])
                noisy = (gradient + multiplier * group.clip_norm * noise.view_as(gradient)).double() / 7.0
                momentum[name] = beta * momentum[name] + noisy
                values[name] = (1 - rate * 0.01) * values[name] - rate * momentum[name]
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.detach().double(), values[name], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(moving.momentum[name].double(), momentum[name], rtol=1e-5, atol=1e-6)


def test_the_sums_are_left_as_they_are_and_parameters_may_change_their_place():
    moving, parameters, groups, sums = make()
    before = [[gradient.clone() for gradient in part] for part in sums[0]]
    other, same, _, _ = make()
    for parameter in parameters.values():
        parameter.data = parameter.data.clone()
    moving.step(groups, sums[0], {}, 1, Randomness.of_a_seed(5))
    other.step(
        [
            Group(tuple(p for name, p in same.items() if name[:3] == part), c)
            for part, c in (("fam", 0.5), ("mlp", 2.0))
        ],
        sums[0],
        {},
        1,
        Randomness.of_a_seed(5),
    )
    assert all(torch.equal(a, b) for x, y in zip(sums[0], before, strict=True) for a, b in zip(x, y, strict=True))
    assert all(torch.equal(parameters[name], same[name]) for name in parameters)


def test_a_centred_layer_is_mapped_back():
    moving, parameters, groups, sums = make()
    plain, others, same, _ = make()
    centre = torch.arange(5.0)
    moving.step(groups, sums[0], {"fam.first": centre}, 1, Randomness.of_a_seed(5))
    plain.step(same, sums[0], {}, 1, Randomness.of_a_seed(5))
    moved = 0.3 * plain.momentum["fam.first.weight"] @ centre
    torch.testing.assert_close(parameters["fam.first.bias"], others["fam.first.bias"] + moved)
    assert torch.equal(parameters["fam.first.weight"], others["fam.first.weight"])


@pytest.mark.gpu
def test_a_gpu_moves_the_same():
    (here, on_cpu, of_cpu, sums), (there, on_gpu, of_gpu, same) = make(), make("cuda")
    for moving, groups, gradients in ((here, of_cpu, sums[0]), (there, of_gpu, same[0])):
        moving.step(groups, gradients, {}, 1, Randomness.of_a_seed(5))
    for name, parameter in on_gpu.items():
        torch.testing.assert_close(parameter.detach().cpu(), on_cpu[name].detach(), rtol=1e-5, atol=1e-6)
