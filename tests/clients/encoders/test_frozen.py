"""A frozen encoder stays frozen, whatever is called on it."""

import gc
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import Compose, Normalize, ToTensor

from clients.encoders import prepare_features
from clients.encoders.frozen import FrozenEncoder
from clients.encoders.loading import choose_compute, load_encoder
from clients.encoders.spec import parse_encoder
from tests.assets import mobilenet_lit


def load(name):
    return load_encoder(parse_encoder(name), choose_compute("cpu", "auto"))


def pixels(count=4, side=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, side, side, 3), generator=generator, dtype=torch.uint8)


def state(encoder):
    return {name: tensor.clone() for name, tensor in encoder._model.state_dict().items()}


def unchanged(encoder, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in encoder._model.state_dict().items())


def test_the_bare_model_is_ruined_by_one_forward_in_train_mode(encoder):
    # What the wrapper is there for: open_clip returns models in train mode.
    bare = open_clip.create_model(encoder)
    bare.eval()
    scaled = load(encoder).scaled
    with torch.no_grad():
        expected = bare.encode_image(scaled(pixels()))
        bare.train()
        bare.encode_image(scaled(pixels(seed=1)))
        bare.eval()
        assert not torch.allclose(bare.encode_image(scaled(pixels())), expected, atol=1e-3)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_images_reach_the_model_bit_by_bit_as_open_clip_preprocesses_them(encoder, device):
    _, _, preprocess = open_clip.create_model_and_transforms(
        encoder, image_mean=(0.48145466, 0.4578275, 0.40821073), image_std=(0.26862954, 0.26130258, 0.27577711)
    )
    made = load(encoder)
    frozen = FrozenEncoder(made._model, made._tokenize, preprocess, made.card, torch.device(device), "fp32")
    generator = np.random.default_rng(0)
    images = [
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for height, width in ((32, 32), (57, 41), (20, 90))
    ]
    resized = np.stack([frozen.resize(image) for image in images])
    assert resized.dtype == np.uint8
    found = frozen.scaled(torch.from_numpy(resized))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found.cpu(), torch.stack([preprocess(image) for image in images]))


def test_preprocessing_that_ends_otherwise_is_refused(encoder):
    frozen = load(encoder)
    other = Compose([ToTensor(), Normalize(0.5, 0.5), torch.nn.Identity()])
    with pytest.raises(TypeError, match="ToTensor and Normalize"):
        FrozenEncoder(frozen._model, frozen._tokenize, other, frozen.card, frozen.device, "fp32")


def test_a_training_run_that_calls_train_on_everything_reachable_changes_nothing(encoder):
    frozen = load(encoder)
    expected = frozen.encode_images(pixels())
    texts = frozen.encode_texts(["a picture of a dog"])
    before = state(frozen)
    head = nn.Linear(16, 2)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for step in range(3):
        for thing in gc.get_objects():
            if issubclass(type(thing), nn.Module):
                thing.train()
        frozen._model.train(mode=True)
        loss = head(frozen.encode_images(pixels(seed=step))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not any(module.training for module in frozen._model.modules())
    assert unchanged(frozen, before)
    assert torch.equal(frozen.encode_images(pixels()), expected)
    assert torch.equal(frozen.encode_texts(["a picture of a dog"]), texts)


def test_even_a_flag_set_by_hand_does_not_survive_the_next_call(encoder):
    frozen = load(encoder)
    expected = frozen.encode_images(pixels())
    before = state(frozen)
    for module in frozen._model.modules():
        module.training = True
    assert torch.equal(frozen.encode_images(pixels()), expected)
    nn.Module.train(frozen._model)
    assert torch.equal(frozen.encode_images(pixels()), expected)
    assert unchanged(frozen, before)


def test_a_module_that_contains_it_cannot_put_it_in_train_mode(encoder):
    frozen = load(encoder)
    holder = nn.Module()
    holder.tower = frozen._model
    holder.train()
    assert holder.training
    assert not any(module.training for module in frozen._model.modules())
    assert frozen._model.train() is frozen._model


def test_nothing_takes_a_gradient(encoder):
    frozen = load(encoder)
    assert not any(parameter.requires_grad for parameter in frozen._model.parameters())
    images = frozen.scaled(pixels()).requires_grad_()
    assert not frozen.features(images).requires_grad


def test_features_have_norm_one_and_lie_on_the_cpu(encoder):
    frozen = load(encoder)
    for features in (frozen.encode_images(pixels()), frozen.encode_texts(["a", "b"])):
        assert features.shape[1] == frozen.card.embed_dim == 16
        assert features.dtype == torch.float32
        np.testing.assert_allclose(features.norm(dim=1), 1, atol=1e-6)


def test_half_precision_needs_a_gpu():
    from clients.encoders import InvalidEncoderError

    with pytest.raises(InvalidEncoderError, match="CUDA"):
        choose_compute("cpu", "bf16")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidEncoderError, match="--device cpu"):
            choose_compute("cuda", "auto")


@pytest.mark.parametrize(("natively", "precision"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_that_emulates_bf16_encodes_in_fp16(monkeypatch, tf32, natively, precision):
    """Torch counts emulation as support, on a T4 or V100: it is several times as slow."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or natively
    )
    assert choose_compute("auto", "auto").precision == precision
    assert tf32() == (False, False)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_precisions_agree_on_a_gpu(encoder, precision):
    on_cpu = load(encoder).encode_images(pixels())
    on_gpu = load_encoder(parse_encoder(encoder), choose_compute("cuda", precision)).encode_images(pixels())
    assert torch.nn.functional.cosine_similarity(on_cpu, on_gpu).min() > 0.995


@pytest.mark.gpu
def test_batches_that_a_gpu_encodes_ahead_are_those_of_the_processor(dataset, encoder, options):
    """22 images in batches of 4, handed out in their order while the next ones are encoded."""
    bundles = [
        prepare_features(dataset, encoder, replace(options, device=device, precision="fp32", cache_dir=cache))
        for device, cache in (("cpu", options.cache_dir / "cpu"), ("cuda", options.cache_dir / "cuda"))
    ]
    for here, there in zip(bundles[0].sites, bundles[1].sites, strict=True):
        assert here.train.paths == there.train.paths
        np.testing.assert_allclose(there.train.features, here.train.features, rtol=0, atol=1e-4)


@pytest.mark.shared_data
def test_the_real_encoder_stays_frozen():
    frozen = load(f"local-dir:{mobilenet_lit()}")
    expected = frozen.encode_images(pixels(2, 224))
    frozen._model.train()
    frozen.encode_images(pixels(2, 224, seed=1))
    assert torch.equal(frozen.encode_images(pixels(2, 224)), expected)
    assert frozen.card.embed_dim == 512
    assert frozen.card.logit_scale == pytest.approx(100, rel=1e-5)
