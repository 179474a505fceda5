"""What a private step costs beside a plain one: all in one run, on FAM and MLP as they are by default and in private.

A private step clips every image's gradient, draws its noise and moves the parameters with momentum; it is measured as
the hospitals take it and with Opacus' ghost clipping in the place of theirs. A plain step is forward, backward and
AdamW, as the hospitals take it (lean) and through autograd. Ratios are medians over blocks in which all of them take
turns, so that a busy machine slows all.

    python benchmarks/private_step.py

writes docs/results/private-step.md and .json.
"""

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from clients.method.lean.trainer import LeanTrainer
from clients.method.parts import build_model
from clients.method.settings import TrainingSettings
from clients.method.training import make_optimizer, train_epochs
from clients.privacy.clipping import Group
from clients.privacy.descent import NoisyDescent
from clients.privacy.randomness import Randomness
from clients.privacy.settings import PrivacySettings
from clients.privacy.step import LeanClipping
from tests.clients.privacy.opacus_clipping import GhostClipping
from tests.clients.privacy.slow_clipping import example_losses

WIDTH, CLASSES, BATCH = 512, 7, 32
STEPS = 10
DEFAULT = dataclasses.replace(TrainingSettings.default(), prior_adjustment=0.0, feature_dropout=0.0, mlp_dropout=0.0)
SHAPES = {
    "FAM 512, MLP 512 (default)": DEFAULT,
    "FAM 64, linear head (private)": TrainingSettings.private(),
}
KINDS = ("plain", "plain through autograd", "private", "private through Opacus")


class Steps:
    """All kinds of step, each on a model of its own, on one batch of random features."""

    def __init__(self, settings: TrainingSettings, device: str) -> None:
        rng = np.random.default_rng(0)
        text, rows = (rng.normal(size=(n, WIDTH)).astype(np.float32) for n in (CLASSES, BATCH * STEPS))
        text, rows = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (text, rows))
        self.settings, self.device = settings, device
        self.features = torch.from_numpy(rows).to(device)
        self.labels = torch.from_numpy(rng.integers(0, CLASSES, len(rows))).to(device)
        self.source = Randomness.of_the_system()
        self.models = {kind: build_model(text, 100.0, settings, "fedmedclip", "a", 0, device).train() for kind in KINDS}
        self.trainer = LeanTrainer(self.models["plain"])
        self.clipping = LeanClipping(self.models["private"], self.groups("private"))
        privacy = PrivacySettings(
            sampling_rate=1.0, clip_norms=(1.0,), noise_multipliers=(1.0,), normaliser=float(BATCH)
        )
        self.descents = {
            kind: NoisyDescent(privacy, settings, list(self.models[kind].named_parameters())) for kind in KINDS[2:]
        }

    def groups(self, kind: str) -> list[Group]:
        """Return everything that is trained as one group."""
        return [Group(tuple(self.models[kind].parameters()), 1.0)]

    def take(self, kind: str) -> None:
        """Take STEPS steps of a kind."""
        generator = torch.Generator(self.device)
        if kind == "plain":
            self.trainer.train(self.features, self.labels, None, 1, generator)
        elif kind == "plain through autograd":
            model = self.models[kind]
            optimizer = make_optimizer(model, self.settings, 1)
            train_epochs(model, optimizer, self.features, self.labels, None, self.settings, generator)
        elif kind == "private":
            self.private(kind, self.clipping)
        else:
            model = self.models[kind]
            ghost = GhostClipping(model, self.groups(kind))
            self.private(kind, lambda x, y: ghost(example_losses(model), x, y))
            ghost.close()

    def private(self, kind: str, clipped) -> None:
        """Take STEPS private steps with a way to make the clipped sum."""
        groups = self.groups(kind)
        for start in range(0, len(self.labels), BATCH):
            batch = slice(start, start + BATCH)
            summed = clipped(self.features[batch], self.labels[batch])
            if summed.zeroed:
                raise RuntimeError("the model has left the numbers: what is measured is no training")
            self.descents[kind].step(groups, summed.gradients, {}, 1, self.source)

    def seconds(self, kind: str) -> float:
        """Return the seconds of one step of a kind."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        self.take(kind)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / STEPS


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for name, settings in SHAPES.items():
        steps = Steps(settings, arguments.device)
        for kind in KINDS:
            steps.take(kind)
        blocks = [{kind: steps.seconds(kind) for kind in KINDS} for _ in range(arguments.blocks)]
        results[name] = {
            "parameters": sum(p.numel() for p in steps.models["private"].parameters()),
            "milliseconds": {kind: 1e3 * statistics.median(block[kind] for block in blocks) for kind in KINDS},
            "ratio": statistics.median(block["private"] / block["plain"] for block in blocks),
            "ratio_to_autograd": statistics.median(
                block["private"] / block["plain through autograd"] for block in blocks
            ),
        }
        print(name, results[name], flush=True)
    rows = "\n".join(
        f"| {name} | {row['parameters']:,} | "
        + " | ".join(f"{row['milliseconds'][kind]:.2f}" for kind in KINDS)
        + f" | {row['ratio']:.2f} | {row['ratio_to_autograd']:.2f} |"
        for name, row in results.items()
    )
    versions = {"python": platform.python_version(), "torch": torch.__version__, "opacus": version("opacus")}
    text = f"""# What a private step costs

Batch of {BATCH}, width {WIDTH}, {CLASSES} classes, one thread, device {arguments.device}; medians over
{arguments.blocks} blocks of {STEPS} steps of each kind in turn, in one process; milliseconds. A private step holds the
clipped sum, noise for every parameter and SGD with momentum; a plain one forward, backward and AdamW.

| trained | parameters | {" | ".join(KINDS)} | private / plain | private / plain through autograd |
|---|---|---|---|---|---|---|---|
{rows}

Made by `python benchmarks/private_step.py` with {", ".join(f"{name} {value}" for name, value in versions.items())}.
"""
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "private-step.md").write_text(text, encoding="utf-8")
    content = {"versions": versions, "device": arguments.device, "results": results}
    (arguments.out / "private-step.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
