"""Commands called in this process, and images for them."""

import sys

import numpy as np
import pytest
from PIL import Image

from cli import cli
from securefed.commands.failure import run_with_one_line_errors


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run a command in this process, in a folder of its own; return (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECUREFED_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["securefed", *map(str, arguments)])
        code = run_with_one_line_errors(cli)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def images(tmp_path):
    """Four sites, two classes that differ by brightness, six images each."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    for site in ("a", "b", "c", "d"):
        for label, level in (("bright", 180), ("dark", 60)):
            folder = root / site / label
            folder.mkdir(parents=True)
            for index in range(10):
                pixels = np.clip(rng.normal(level, 25, (40, 40, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root
