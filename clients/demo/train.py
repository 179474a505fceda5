"""Train the demo's encoder from nothing: `python -m clients.demo.train FOLDER` (about ten minutes on one core)."""

import argparse
import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from clients.demo.randomness import Stream
from clients.demo.world import SCENE_PIXELS, SUBJECTS, Scene, draw_scene

WEIGHTS = "open_clip_model.safetensors"
CONFIGURATION = "open_clip_config.json"
RECORD = "training.json"

_PICTURES = 1000
"""On which `world_accuracy` is measured."""

MODEL: dict[str, Any] = {
    "embed_dim": 512,
    "vision_cfg": {
        "timm_model_name": "test_resnet",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": SCENE_PIXELS,
    },
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2},
}
"""Most weights are the vocabulary of CLIP's tokenizer, which open_clip brings along: hence the narrow text tower."""

PREPROCESSING: dict[str, Any] = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


_FIRST_SCALE, _LAST_SCALE = 1.0 / 0.07, 100.0
"""Factor on the cosines at the start and from two thirds of the steps on: those that CLIP begins and ends with."""


@dataclass(frozen=True)
class EncoderTraining:
    """How the encoder is trained.

    Attributes:
        seed: Seed of the weights and of the world's pictures.
        steps: Steps of AdamW.
        batch_size: New pictures a step; none is seen twice.
        learning_rate: Highest learning rate; rises over the first twentieth of the steps, then falls as a cosine.
        weight_decay: AdamW's, on matrices.
        hardness: Of the world; reached after two thirds of the steps, from 0 at the start.
    """

    seed: int = 0
    steps: int = 2600
    batch_size: int = 48
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    hardness: float = 1.0


def build_model(seed: int) -> Any:
    """Return an untrained model; the seed determines its weights, torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.model.CLIP(**MODEL)


def draw_batch(purpose: str, seed: int, first: int, count: int, hardness: float) -> list[Scene]:
    """Return `count` scenes of the world, numbers `first` and following of those for this purpose."""
    return [draw_scene(Stream(seed, purpose, first + index), hardness) for index in range(count)]


def as_input(pictures: list[NDArray[np.uint8]]) -> Tensor:
    """Return pictures uint8[S, S, 3] as the model's input float32[B, 3, S, S] in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return (stacked.float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)


def truth_of(scenes: list[Scene]) -> Tensor:
    """Return float32[B, B]: 1 where the sentence of a column is true of the picture of a row, else 0."""
    return torch.tensor([[float(said.claims <= seen.facts) for said in scenes] for seen in scenes])


def contrastive_loss(image_features: Tensor, text_features: Tensor, scale: Tensor, truth: Tensor) -> Tensor:
    """Return CLIP's symmetric loss, in which every true pair of a batch counts as right and not only the diagonal.

    Args:
        image_features: float32[B, D] of unit length.
        text_features: float32[B, D] of unit length.
        scale: Factor on the cosines.
        truth: float32[B, B] as of `truth_of`; with the identity this is the loss of CLIP.

    Paper: J. Yang et al., "Unified Contrastive Learning in Image-Text-Label Space", CVPR 2022, equations 2 to 4.
    """
    logits = scale * image_features @ text_features.T
    texts = truth / truth.sum(dim=1, keepdim=True)
    images = truth.T / truth.T.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, texts) + F.cross_entropy(logits.T, images)) / 2.0


def train(settings: EncoderTraining, report: bool = True) -> Any:
    """Train a new model and return it in eval mode.

    Args:
        settings: How.
        report: Whether to write progress to stderr.
    """
    model = build_model(settings.seed).to(memory_format=torch.channels_last)
    tokenizer = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])
    model.logit_scale.requires_grad_(False)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [weight for weight in trained if weight.ndim >= 2]
    vectors = [weight for weight in trained if weight.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        eps=1e-6,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps, pct_start=0.05, cycle_momentum=False
    )
    batch_size = settings.batch_size
    model.train()
    started = time.monotonic()
    for step in range(settings.steps):
        progress = min(1.0, 1.5 * step / settings.steps)
        model.logit_scale.data.fill_(np.log(_FIRST_SCALE) + (np.log(_LAST_SCALE) - np.log(_FIRST_SCALE)) * progress)
        hardness = settings.hardness * progress
        scenes = draw_batch("train", settings.seed, step * batch_size, batch_size, hardness)
        image_features = model.encode_image(as_input([scene.picture for scene in scenes]), normalize=True)
        text_features = model.encode_text(tokenizer([scene.sentence for scene in scenes]), normalize=True)
        loss = contrastive_loss(image_features, text_features, model.logit_scale.exp(), truth_of(scenes))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        if report and step % 50 == 0:
            seconds = time.monotonic() - started
            sys.stderr.write(f"step {step} of {settings.steps}: loss {loss.item():.3f}, {seconds:.0f} s\n")
    model.eval()
    return model


def save(model: Any, folder: Path, settings: EncoderTraining, seconds: float) -> None:
    """Write configuration, weights (half precision) and the record of their training.

    Args:
        model: A trained model; it gets the rounded weights too.
        folder: Where to; made if it is not there.
        settings: How it was trained.
        seconds: How long that took.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(state, folder / WEIGHTS)
    model.load_state_dict(state)
    _write(folder / CONFIGURATION, {"model_cfg": MODEL, "preprocess_cfg": PREPROCESSING})
    record = {
        "settings": asdict(settings),
        "weights_sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        "world_accuracy": round(world_accuracy(model, settings), 4),
        "seconds": round(seconds),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
    }
    _write(folder / RECORD, record)


@torch.no_grad()
def world_accuracy(model: Any, settings: EncoderTraining) -> float:
    """Return the zero-shot accuracy on new pictures of the world: which of SUBJECTS, by "a picture of a NAME"."""
    tokenizer = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])
    prompts = [f"a picture of a {subject.names[0]}" for subject in SUBJECTS]
    text_features = model.encode_text(tokenizer(prompts), normalize=True)
    scenes = draw_batch("held out", settings.seed, 0, _PICTURES, settings.hardness)
    images = as_input([scene.picture for scene in scenes])
    found = (model.encode_image(images, normalize=True) @ text_features.T).argmax(dim=1)
    right = [SUBJECTS[index].names[0] in scene.facts for index, scene in zip(found.tolist(), scenes, strict=True)]
    return sum(right) / _PICTURES


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Train an encoder and write it into a folder."""
    parser = argparse.ArgumentParser(description="Train the demo's encoder from nothing and write it into a folder.")
    parser.add_argument("folder", type=Path, help="folder to write, in the local layout of open_clip")
    for name, value in asdict(EncoderTraining()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"default {value}")
    arguments = vars(parser.parse_args())
    folder = arguments.pop("folder")
    settings = EncoderTraining(**arguments)
    torch.set_num_threads(1)
    started = time.monotonic()
    model = train(settings)
    save(model, folder, settings, time.monotonic() - started)


if __name__ == "__main__":
    main()
