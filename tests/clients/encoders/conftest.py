"""A small CLIP with batch norm in open_clip's folder layout, and a small folder of images."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clients.data import ImageDataset, load_dataset
from clients.encoders import EncodeOptions

CONFIGURATION = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {
            "timm_model_name": "test_efficientnet",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 32,
        },
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


def random_clip(seed: int) -> torch.nn.Module:
    """Return the small CLIP with random weights and batch-norm statistics that are not those of its input."""
    architecture = CONFIGURATION["model_cfg"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.model.CLIP(
            embed_dim=architecture["embed_dim"],
            vision_cfg=architecture["vision_cfg"],
            text_cfg=architecture["text_cfg"],
        )
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    return model


@pytest.fixture(scope="session")
def make_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a small CLIP of a seed and return its folder."""

    def make(seed: int = 0) -> Path:
        folder = tmp_path_factory.mktemp(f"clip-{seed}-")
        (folder / "open_clip_config.json").write_text(json.dumps(CONFIGURATION))
        save_file(random_clip(seed).state_dict(), folder / "open_clip_model.safetensors")
        return folder

    return make


@pytest.fixture(scope="session")
def encoder_folder(make_encoder: Callable[..., Path]) -> Path:
    return make_encoder(0)


@pytest.fixture
def encoder(encoder_folder: Path) -> str:
    return f"local-dir:{encoder_folder}"


@pytest.fixture
def options(tmp_path: Path) -> EncodeOptions:
    """Cache in a folder of the test's own, on the CPU, in batches of 4, decoding in this process."""
    return EncodeOptions(cache_dir=tmp_path / "cache", device="cpu", batch_size=4, workers=0)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two sites, two classes, 22 images."""
    root = tmp_path / "cohort"
    rng = np.random.default_rng(0)
    for site, label, count in (
        ("north", "big_cat", 8),
        ("north", "dog", 6),
        ("south", "big_cat", 5),
        ("south", "dog", 3),
    ):
        (root / site / label).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / site / label / f"{index}.png")
    return root


@pytest.fixture
def dataset(image_folder: Path) -> ImageDataset:
    return load_dataset(str(image_folder))[0]
