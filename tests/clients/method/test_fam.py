"""The FAM, against its equations written in numpy."""

import numpy as np
import pytest
import torch

from clients.method.fam import FeatureAdaptationModule
from clients.method.settings import TrainingSettings

D = 6


def make_fam(form):
    settings = TrainingSettings(fam_form=form)
    return FeatureAdaptationModule(D, settings, torch.Generator().manual_seed(3)).double()


def unit_rows(count=4):
    rows = np.random.default_rng(0).normal(size=(count, D))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("form", ["published", "residual"])
def test_equations(form):
    fam = make_fam(form)
    with torch.no_grad():
        fam.first.threshold[1] = fam.second.threshold[2] = 10.0  # one row of each layer off
    p = {name: value.detach().numpy() for name, value in fam.named_parameters()}
    image = unit_rows()

    def masked(layer, x):
        mask = np.abs(p[f"{layer}.weight"]).mean(1) >= p[f"{layer}.threshold"]
        return x @ (p[f"{layer}.weight"] * mask[:, None]).T + p[f"{layer}.bias"] * mask

    hidden = masked("first", image)
    hidden = (hidden - hidden.mean(1, keepdims=True)) / np.sqrt(hidden.var(1, keepdims=True) + 1e-5)
    logits = masked("second", np.clip(hidden, 0, 6))
    attention = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = attention * image if form == "published" else image + D * attention * image
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(fam.attention(torch.tensor(image)).detach().numpy(), attention, rtol=1e-9)
    np.testing.assert_allclose(fam(torch.tensor(image)).detach().numpy(), expected, rtol=1e-9)


def test_the_norm_is_the_reference_codes_instance_norm():
    x = torch.tensor(unit_rows())
    ours = torch.nn.functional.layer_norm(x, x.shape[-1:])
    with pytest.warns(UserWarning, match="input's size"):
        theirs = torch.nn.InstanceNorm1d(D)(x)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12)


@pytest.mark.parametrize("form", ["published", "residual"])
def test_rows_do_not_see_each_other(form):
    fam, image = make_fam(form), torch.tensor(unit_rows())
    np.testing.assert_allclose(fam(image[:1]).detach().numpy(), fam(image)[:1].detach().numpy(), rtol=1e-12)


def test_a_layer_that_is_wholly_off_leaves_the_feature_as_it_is():
    fam, image = make_fam("published"), torch.tensor(unit_rows())
    with torch.no_grad():
        fam.second.threshold.fill_(10.0)
    np.testing.assert_allclose(fam(image).detach().numpy(), image.numpy(), rtol=1e-12)
