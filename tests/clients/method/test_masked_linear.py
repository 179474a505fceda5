"""The masked layer: rows below their threshold are off, and thresholds learn."""

import numpy as np
import pytest
import torch

from clients.method.masked_linear import MaskedLinear, keep_mask, masks_held

WINDOW = 0.01


def make_layer(inputs=6, outputs=4, mask_bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layer = MaskedLinear(inputs, outputs, window=WINDOW, mask_bias=mask_bias, generator=generator)
    return layer.double()


def set_thresholds(layer, offsets):
    with torch.no_grad():
        layer.threshold.copy_(layer.weight.abs().mean(1) + torch.tensor(offsets, dtype=torch.float64))


@pytest.mark.parametrize("mask_bias", [True, False])
def test_output_is_the_masked_product(mask_bias):
    layer = make_layer(mask_bias=mask_bias)
    set_thresholds(layer, [-0.001, 0.001, -0.02, 0.02])
    x = np.random.default_rng(0).normal(size=(5, 6))
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    mask = np.array([1.0, 0.0, 1.0, 0.0])
    expected = x @ (weight * mask[:, None]).T + (bias * mask if mask_bias else bias)
    np.testing.assert_allclose(layer(torch.tensor(x)).detach().numpy(), expected, rtol=1e-12)
    assert layer.keep_ratio() == 0.5


@pytest.mark.parametrize("mask_bias", [True, False])
def test_an_answer_without_gradients_is_the_same_bit_for_bit(mask_bias):
    layer = make_layer(inputs=64, outputs=32, mask_bias=mask_bias).float()
    set_thresholds(layer, [-0.001, 0.0, 0.001, 0.02] * 8)
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(1))
    kept = x.clone()
    with torch.no_grad():
        answer = layer(x)
    assert torch.equal(answer, layer(x).detach())
    assert torch.equal(x, kept)
    assert 0 < layer.keep_ratio() < 1


def test_thresholds_start_at_zero_and_keep_everything():
    layer = make_layer()
    assert not layer.threshold.any()
    assert layer.keep_ratio() == 1.0


@pytest.mark.parametrize("mask_bias", [True, False])
def test_gradients_are_those_of_the_sigmoid_in_place_of_the_step(mask_bias):
    layer = make_layer(mask_bias=mask_bias)
    set_thresholds(layer, [-0.001, 0.001, -0.02, 0.02])
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    factor = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (layer(x) * factor).sum().backward()

    # The same by plain autograd: the step's value with the sigmoid's slope.
    weight, bias, threshold = (p.detach().clone().requires_grad_() for p in (layer.weight, layer.bias, layer.threshold))
    y = x.detach().clone().requires_grad_()
    distance = weight.abs().mean(1) - threshold
    soft = torch.sigmoid(distance / WINDOW)
    keep = (distance >= 0).double() + soft - soft.detach()
    linear = y @ weight.T
    out = (linear + bias) * keep if mask_bias else linear * keep + bias
    (out * factor).sum().backward()
    for ours, theirs in ((layer.weight, weight), (layer.bias, bias), (layer.threshold, threshold), (x, y)):
        np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-9, atol=1e-12)
    assert layer.threshold.grad.abs().min() > 0


def test_threshold_gradient_by_hand():
    layer = make_layer(inputs=2, outputs=1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.03, -0.01]]))
        layer.bias.fill_(0.5)
        layer.threshold.fill_(0.03)
    layer.threshold.data = torch.tensor([0.03], dtype=torch.float64)
    layer.weight.data = torch.tensor([[0.03, -0.01]], dtype=torch.float64)
    layer(torch.tensor([[2.0, 1.0]], dtype=torch.float64)).backward(torch.tensor([[3.0]], dtype=torch.float64))
    # u = 0.02, (u - k) / window = -1: the row is off; w x + b = 0.55; dL/dk = -3 * 0.55 * sigmoid'(-1) / 0.01.
    slope = 1 / (1 + np.e) * (1 - 1 / (1 + np.e)) / 0.01
    np.testing.assert_allclose(layer.threshold.grad.item(), -3 * 0.55 * slope, rtol=1e-12)
    np.testing.assert_allclose(layer.weight.grad.numpy(), [[3 * 0.55 * slope / 2, -3 * 0.55 * slope / 2]], rtol=1e-12)
    assert layer.bias.grad.item() == 0


def test_per_example_gradients_through_vmap_equal_the_slow_loop():
    layer = make_layer()
    set_thresholds(layer, [-0.001, 0.001, -0.005, 0.005])
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(values, row):
        return torch.func.functional_call(layer, values, (row[None],)).square().sum()

    together = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for i in range(len(x)):
        layer.zero_grad()
        layer(x[i : i + 1]).square().sum().backward()
        for name, parameter in layer.named_parameters():
            np.testing.assert_allclose(together[name][i].numpy(), parameter.grad.numpy(), rtol=1e-9, atol=1e-14)


def test_training_moves_thresholds_and_switches_rows_off():
    generator = torch.Generator().manual_seed(0)
    layer = MaskedLinear(8, 16, window=WINDOW, mask_bias=True, generator=generator)
    x = torch.randn(64, 8, generator=generator)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        layer(x).square().mean().backward()  # rows are best off
        optimizer.step()
    assert layer.threshold.abs().min() > 0
    assert layer.keep_ratio() < 1


def test_a_layer_that_is_all_but_off_is_reset():
    layer = make_layer(outputs=200)
    with torch.no_grad():
        layer.threshold.fill_(10.0)
        layer.threshold[:2] = 0.0
    assert layer.keep_ratio() == 0.01
    assert layer.reset_if_at_most(0.01)
    assert layer.keep_ratio() == 1.0
    with torch.no_grad():
        layer.threshold[:-3] = 10.0
    assert not layer.reset_if_at_most(0.01)
    assert keep_mask(layer.weight, layer.threshold).sum() == 3


def test_masks_are_held_in_their_block_and_taken_anew_after_it():
    layer = make_layer()
    set_thresholds(layer, [-0.001, 0.001, -0.02, 0.02])
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = layer(x)
        with masks_held(torch.nn.Sequential(layer)):
            assert torch.equal(layer(x), before)
            assert layer.keep_ratio() == 0.5
            layer.threshold.zero_()
            assert torch.equal(layer(x), before)
        assert not torch.equal(layer(x), before)
    assert layer.keep_ratio() == 1.0
