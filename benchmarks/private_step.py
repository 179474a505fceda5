"""What a private step costs beside a plain one: both in one run, on FAM and MLP as they are by default.

A private step draws its noise, clips every image's gradient by ghost clipping and moves the parameters; a plain one is
forward, backward and AdamW, both through autograd. Ratios are medians over alternating blocks, so that a busy machine
slows both.

    python benchmarks/private_step.py

writes docs/results/private-step.md and .json.
"""

import argparse
import dataclasses
import json
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from clients.method.parts import build_model
from clients.method.settings import TrainingSettings
from clients.method.training import make_optimizer, train_epochs
from clients.privacy.clipping import GhostClipping, Group
from clients.privacy.randomness import Randomness

WIDTH, CLASSES, BATCH = 512, 7, 32
STEPS = 10
DEFAULT = dataclasses.replace(TrainingSettings.default(), prior_adjustment=0.0, feature_dropout=0.0, mlp_dropout=0.0)
SHAPES = {
    "FAM 512, MLP 512 (default)": DEFAULT,
    "FAM 64, linear head (private)": TrainingSettings.private(),
}


class Both:
    """The two kinds of step on one model and one batch of random features."""

    def __init__(self, settings: TrainingSettings, device: str) -> None:
        rng = np.random.default_rng(0)
        text, rows = (rng.normal(size=(n, WIDTH)).astype(np.float32) for n in (CLASSES, BATCH * STEPS))
        text, rows = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (text, rows))
        self.model = build_model(text, 100.0, settings, "fedmedclip", "a", 0, device)
        assert self.model is not None
        self.settings = settings
        self.features = torch.from_numpy(rows).to(device)
        self.labels = torch.from_numpy(rng.integers(0, CLASSES, len(rows))).to(device)
        self.source = Randomness.of_the_system()
        self.device = device
        self.parameters = tuple(self.model.parameters())

    def plain(self) -> None:
        """Take STEPS plain steps."""
        optimizer = make_optimizer(self.model, self.settings, 1)
        generator = torch.Generator(self.device)
        train_epochs(self.model, optimizer, self.features, self.labels, None, self.settings, generator)

    def private(self) -> None:
        """Take STEPS private steps."""
        for module in self.model.modules():  # the plain steps gave the masked layers memory of their own
            if hasattr(module, "_memory"):
                module._memory = None  # noqa: SLF001
        ghost = GhostClipping(self.model.train(), [Group(self.parameters, 1.0)])
        for start in range(0, len(self.labels), BATCH):
            batch = slice(start, start + BATCH)
            summed = ghost(self.model.example_losses, self.features[batch], self.labels[batch])
            with torch.no_grad():
                for parameter, gradient in zip(self.parameters, summed.gradients[0], strict=True):
                    noise = self.source.gaussian(parameter.numel()).to(self.device).view(parameter.shape)
                    parameter.sub_(1e-6 * (gradient + noise) / BATCH)
        ghost.close()

    def seconds(self, which: str) -> float:
        """Return the seconds of one step of a kind."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        getattr(self, which)()
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
        both = Both(settings, arguments.device)
        both.private(), both.plain()
        pairs = [(both.seconds("plain"), both.seconds("private")) for _ in range(arguments.blocks)]
        results[name] = {
            "parameters": sum(p.numel() for p in both.parameters),
            "plain_ms": 1e3 * statistics.median(plain for plain, _ in pairs),
            "private_ms": 1e3 * statistics.median(private for _, private in pairs),
            "ratio": statistics.median(private / plain for plain, private in pairs),
        }
        print(name, results[name], flush=True)
    rows = "\n".join(
        f"| {name} | {row['parameters']:,} | {row['plain_ms']:.1f} | {row['private_ms']:.1f} | {row['ratio']:.2f} |"
        for name, row in results.items()
    )
    versions = {"python": platform.python_version(), "torch": torch.__version__, "opacus": version("opacus")}
    text = f"""# What a private step costs

Batch of {BATCH}, width {WIDTH}, {CLASSES} classes, one thread, device {arguments.device}; medians over
{arguments.blocks} alternating blocks of {STEPS} steps in one process. The private step holds ghost clipping, noise for
every parameter and the update; the plain one forward, backward and AdamW, both through autograd.

| trained | parameters | plain ms | private ms | ratio |
|---|---|---|---|---|
{rows}

Made by `python benchmarks/private_step.py` with {", ".join(f"{name} {value}" for name, value in versions.items())}.
"""
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "private-step.md").write_text(text, encoding="utf-8")
    content = {"versions": versions, "device": arguments.device, "results": results}
    (arguments.out / "private-step.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
