"""The private MLP, against its equations written in numpy."""

import numpy as np
import pytest
import torch

from clients.method.mlp import PrivateMlp
from clients.method.settings import TrainingSettings

D, C, B = 6, 3, 5


def make_mlp(seed=0, **fields):
    settings = TrainingSettings(**{"mlp_dropout": 0.0, **fields})
    return PrivateMlp(D, C, settings, torch.Generator().manual_seed(seed)).double()


def rows(seed):
    x = np.random.default_rng(seed).normal(size=(B, D))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def masked(p, layer, x):
    mask = np.abs(p[f"{layer}.weight"]).mean(1) >= p[f"{layer}.threshold"]
    return x @ (p[f"{layer}.weight"] * mask[:, None]).T + p[f"{layer}.bias"] * mask


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
@pytest.mark.parametrize("seen", ["adapted", "image", "both"])
def test_equations(norm, seen):
    mlp = make_mlp(mlp_norm=norm, mlp_input=seen, mlp_layers=2, mlp_width=4, mlp_input_rms=1.0).train()
    p = {name: value.detach().numpy() for name, value in mlp.named_parameters()}
    adapted, image = rows(1), rows(2)
    x = {"adapted": adapted, "image": image, "both": np.concatenate([adapted, image], 1)}[seen] * np.sqrt(D)
    for k in (0, 1):
        x = masked(p, f"hidden.{k}", x)
        if norm != "none":
            axis = 1 if norm == "layer" else 0
            x = (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + 1e-5)
        x = np.maximum(x, 0)
    actual = mlp(torch.tensor(adapted), torch.tensor(image)).detach().numpy()
    np.testing.assert_allclose(actual, masked(p, "head", x), rtol=1e-9, atol=1e-12)


def test_no_hidden_layer_is_a_linear_head():
    mlp = make_mlp(mlp_layers=0, mlp_input="image", mlp_input_rms=0.0)
    p = {name: value.detach().numpy() for name, value in mlp.named_parameters()}
    actual = mlp(torch.tensor(rows(1)), torch.tensor(rows(2))).detach().numpy()
    np.testing.assert_allclose(actual, masked(p, "head", rows(2)), rtol=1e-9)


@pytest.mark.parametrize(("norm", "coupled"), [("none", False), ("layer", False), ("group", False), ("batch", True)])
def test_only_batch_norm_couples_examples(norm, coupled):
    mlp = make_mlp(mlp_norm=norm).train()
    adapted, image = torch.tensor(rows(1)), torch.tensor(rows(2))
    whole = mlp(adapted, image)
    fewer = mlp(adapted[:3], image[:3])
    assert torch.allclose(whole[:3], fewer, rtol=1e-9) is not coupled


def test_dropout_draws_from_the_given_generator_and_only_in_training():
    mlp = make_mlp(mlp_dropout=0.5, mlp_width=64)
    adapted, image = torch.tensor(rows(1)), torch.tensor(rows(2))

    def run(seed):
        return mlp(adapted, image, torch.Generator().manual_seed(seed))

    mlp.train()
    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
    mean = torch.stack([run(seed) for seed in range(2000)]).mean(0)
    mlp.eval()
    assert torch.equal(run(0), run(1))
    assert (mean - run(0)).abs().max() < 0.1


def test_the_published_shape():
    mlp = PrivateMlp(512, 7, TrainingSettings.paper())
    shapes = [tuple(layer.weight.shape) for layer in [*mlp.hidden, mlp.head]]
    assert shapes == [(512, 512), (512, 512), (512, 512), (7, 512)]
    assert all(isinstance(norm, torch.nn.BatchNorm1d) for norm in mlp.norms)


def test_group_norm_takes_any_width():
    for width in (1, 7, 48, 512):
        mlp = PrivateMlp(D, C, TrainingSettings(mlp_norm="group", mlp_width=width))
        assert width % mlp.norms[0].num_groups == 0


def test_a_group_norm_takes_an_image_on_its_own():
    """D = 6 makes groups of one entry, which torch's own module refuses for a single image."""
    mlp = make_mlp(mlp_norm="group").train()
    adapted, image = (torch.from_numpy(rows(seed)) for seed in (1, 2))
    alone = mlp(adapted[:1], image[:1])
    np.testing.assert_allclose(alone.detach(), mlp(adapted, image)[:1].detach(), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="more than 1 value"):
        torch.nn.GroupNorm(D, D).double()(torch.zeros(1, D, dtype=torch.float64))
