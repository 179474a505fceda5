"""Checkpoints: after every round the folder holds all that is needed to go on as if nothing had happened.

A checkpoint is a folder of its own, written whole before one small file points to it; the former is deleted after
that. A crash at any instant leaves the pointer at a complete checkpoint. What belongs to a hospital lies in a file per
site that only its owner can read: in a deployment it never leaves the hospital.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securefed.compression import ChannelState
from securefed.errors import RunFolderError
from securefed.run_folder import Arrays, RunFolder

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Snapshot:
    """The model of one round: the global vector float32[d] and each site's private arrays."""

    number: int
    vector: Vector
    private: Mapping[str, Arrays]


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stands after a finished round.

    Attributes:
        current: The model after the round.
        best: The model that the selection rule prefers so far, where one was scored.
        best_mean: Its mean score.
        seconds: {phase: seconds spent so far}.
        channel: What the sums need to go on: the public state of the encoding and each site's error feedback.
    """

    current: Snapshot
    best: Snapshot | None
    best_mean: float
    seconds: dict[str, float]
    channel: ChannelState = field(default_factory=ChannelState)


def save_checkpoint(folder: RunFolder, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and delete what it replaces."""
    folder.checkpoint.mkdir(mode=0o700, exist_ok=True)
    _write_snapshot(folder, checkpoint.current, "round", checkpoint.channel)
    if checkpoint.best is not None:
        _write_snapshot(folder, checkpoint.best, "best")
    kept = {
        "round": checkpoint.current.number,
        "best_round": checkpoint.best.number if checkpoint.best else None,
        "best_mean": checkpoint.best_mean,
        "seconds": checkpoint.seconds,
        "sites": sorted(checkpoint.current.private),
    }
    folder.write_json(folder.checkpoint / "latest.json", kept)
    names = {_name("round", checkpoint.current)} | ({_name("best", checkpoint.best)} if checkpoint.best else set())
    for path in folder.checkpoint.iterdir():
        if path.is_dir() and path.name not in names:
            shutil.rmtree(path)


def load_checkpoint(folder: RunFolder) -> Checkpoint | None:
    """Return the last complete checkpoint, or None where no round was finished."""
    pointer = folder.checkpoint / "latest.json"
    if not pointer.exists():
        return None
    try:
        kept = json.loads(pointer.read_text(encoding="utf-8"))
        number, best_round, sites = int(kept["round"]), kept["best_round"], list(kept["sites"])
        current = _read_snapshot(folder, "round", number, sites)
        best = None if best_round is None else _read_snapshot(folder, "best", int(best_round), sites)
        channel = _read_channel(folder, folder.checkpoint / _name("round", current), sites)
        return Checkpoint(current, best, float(kept["best_mean"]), dict(kept["seconds"]), channel)
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(pointer, f"is damaged ({error}); start a new run") from error


def delete_checkpoint(folder: RunFolder) -> None:
    """Remove the checkpoint of a finished run."""
    if folder.checkpoint.exists():
        shutil.rmtree(folder.checkpoint)


def _name(kind: str, snapshot: Snapshot) -> str:
    return f"{kind}-{snapshot.number:06d}"


def _write_snapshot(folder: RunFolder, snapshot: Snapshot, kind: str, channel: ChannelState | None = None) -> None:
    path = folder.checkpoint / _name(kind, snapshot)
    if (path / "complete").exists():
        return
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    folder.write_arrays(path / "global.safetensors", {"vector": snapshot.vector}, {})
    for index, site in enumerate(sorted(snapshot.private)):
        folder.write_arrays(_site_file(path, index), snapshot.private[site], {"site": site}, private=True)
    if channel is not None and channel.public:
        folder.write_arrays(path / "channel.safetensors", channel.public, {})
        for index, site in enumerate(sorted(channel.private)):
            folder.write_arrays(_channel_file(path, index), channel.private[site], {"site": site}, private=True)
    (path / "complete").touch()


def _read_snapshot(folder: RunFolder, kind: str, number: int, sites: list[str]) -> Snapshot:
    path = folder.checkpoint / f"{kind}-{number:06d}"
    vector = folder.read_arrays(path / "global.safetensors")["vector"]
    private = {site: folder.read_arrays(_site_file(path, index)) for index, site in enumerate(sites)}
    return Snapshot(number, vector, private)


def _site_file(path: Path, index: int) -> Path:
    return path / f"site-{index:04d}.safetensors"


def _read_channel(folder: RunFolder, path: Path, sites: list[str]) -> ChannelState:
    if not (path / "channel.safetensors").exists():
        return ChannelState()
    private = {site: folder.read_arrays(_channel_file(path, index)) for index, site in enumerate(sites)}
    return ChannelState(folder.read_arrays(path / "channel.safetensors"), private)


def _channel_file(path: Path, index: int) -> Path:
    return path / f"site-{index:04d}-channel.safetensors"
