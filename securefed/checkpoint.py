"""Checkpoints: the folder holds all that is needed to go on as if nothing had happened.

A checkpoint is a folder of its own, written whole before one small file points to it; the former is deleted after
that. A crash at any instant leaves the pointer at a complete checkpoint; what it does not point to is never read, and
is written anew. The pointer has the digest of each file, and each file its own: one that is damaged, or that came from
elsewhere, is refused. (Nothing signs them: whoever rewrites the whole checkpoint is not noticed.) What belongs to a
hospital lies in a file per site that only its owner can read: in a deployment it never leaves the hospital.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securefed.compression import ChannelState
from securefed.errors import RunFolderError
from securefed.run_folder import Arrays, RunFolder

Vector = NDArray[np.float32]
Digests = dict[str, str]

_POINTER = "latest.json"


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


class Checkpoints:
    """The checkpoints of a running simulation, each written beside the work of its round.

    A short round would wait for what it has to write: rounds share a checkpoint then. The last finished round has one
    all the same when the run is left (`leave`), unless the process is killed: that loses the rounds since the last one,
    and `--resume` makes them again.

    The files of a snapshot are written while its round is still validated, and old ones are deleted while the next one
    trains. Nothing of it is a checkpoint before `finish` has waited for it and pointed to it.

    Args:
        folder: The run.
        rounds: Its last round, which has a checkpoint in any case.
        every: Seconds that pass at least from one checkpoint to the next; 0 for one after every round.
    """

    def __init__(self, folder: RunFolder, rounds: int, every: float = 0.0) -> None:
        self._folder = folder
        self._rounds = rounds
        self._every = every
        self._thread = ThreadPoolExecutor(1)
        self._written_at = time.monotonic()
        self._begun: tuple[Snapshot, Future[None]] | None = None
        self._deleting: Future[None] | None = None
        self._unwritten: Checkpoint | None = None

    def begin(self, snapshot: Snapshot, channel: ChannelState) -> None:
        """Begin to write the files of a round's snapshot and of the state of its sums, where a checkpoint is due."""
        due = snapshot.number >= self._rounds or time.monotonic() - self._written_at >= self._every
        write = partial(_write_snapshot, self._folder, snapshot, "round", channel)
        self._begun = (snapshot, self._thread.submit(write)) if due else None

    def finish(self, checkpoint: Checkpoint) -> bool:
        """Make a round final if its snapshot was begun, else keep it in mind; return whether it is written.

        Raises:
            Exception: What went wrong in writing files, or in deleting older ones.
        """
        self._unwritten = checkpoint
        if self._begun is None or self._begun[0] is not checkpoint.current:
            return False
        if self._deleting is not None:
            self._deleting.result()
        self._begun[1].result()
        old = _complete(self._folder, checkpoint)
        self._deleting = self._thread.submit(_delete, old)
        self._unwritten, self._written_at = None, time.monotonic()
        return True

    def leave(self) -> Checkpoint | None:
        """Write the checkpoint of the last finished round and return it; None where it is written already.

        Raises:
            RunFolderError: It cannot be written.
        """
        unwritten, self._unwritten = self._unwritten, None
        if unwritten is not None:
            self.close()
            save_checkpoint(self._folder, unwritten)
        return unwritten

    def close(self) -> None:
        """Wait until nothing is written or deleted any more."""
        self._thread.shutdown()


def save_checkpoint(folder: RunFolder, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and delete what it replaces.

    Args:
        folder: The run.
        checkpoint: Where it stands.
    """
    _write_snapshot(folder, checkpoint.current, "round", checkpoint.channel)
    _delete(_complete(folder, checkpoint))


def load_checkpoint(folder: RunFolder) -> Checkpoint | None:
    """Return the last complete checkpoint, or None where no round was finished."""
    pointer, kept = _pointer(folder)
    if kept is None:
        return None
    try:
        number, best_round, sites = int(kept["round"]), kept["best_round"], list(kept["sites"])
        digests = dict(kept["digests"])
        current = _read_snapshot(folder, "round", number, sites, digests)
        best = None if best_round is None else _read_snapshot(folder, "best", int(best_round), sites, digests)
        channel = _read_channel(folder, folder.checkpoint / _name("round", current), sites, digests)
        return Checkpoint(current, best, float(kept["best_mean"]), dict(kept["seconds"]), channel)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(pointer, error) from error


def delete_checkpoint(folder: RunFolder) -> None:
    """Remove the checkpoint of a finished run."""
    if folder.checkpoint.exists():
        shutil.rmtree(folder.checkpoint)


def _complete(folder: RunFolder, checkpoint: Checkpoint) -> list[Path]:
    """Point to a checkpoint whose present snapshot is on disk; return what nothing points to any more."""
    if checkpoint.best is not None:
        _write_snapshot(folder, checkpoint.best, "best")
    kept = {
        "round": checkpoint.current.number,
        "best_round": checkpoint.best.number if checkpoint.best else None,
        "best_mean": checkpoint.best_mean,
        "seconds": checkpoint.seconds,
        "sites": sorted(checkpoint.current.private),
        "digests": {
            **_digests(folder, _name("round", checkpoint.current)),
            **(_digests(folder, _name("best", checkpoint.best)) if checkpoint.best else {}),
        },
    }
    folder.write_json(folder.checkpoint / _POINTER, kept)
    names = _pointed(folder)
    return [path for path in folder.checkpoint.iterdir() if path.is_dir() and path.name not in names]


def _name(kind: str, snapshot: Snapshot) -> str:
    return f"{kind}-{snapshot.number:06d}"


def _pointer(folder: RunFolder) -> tuple[Path, dict[str, Any] | None]:
    """Return the file that points to the last complete checkpoint, and what it says; None where there is none."""
    pointer = folder.checkpoint / _POINTER
    if not pointer.exists():
        return pointer, None
    try:
        kept = json.loads(pointer.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(pointer, error) from error
    return pointer, kept


def _pointed(folder: RunFolder) -> set[str]:
    """Return the names of the folders of the last complete checkpoint."""
    pointer, kept = _pointer(folder)
    if kept is None:
        return set()
    try:
        best = kept["best_round"]
        return {f"round-{kept['round']:06d}"} | ({f"best-{best:06d}"} if best is not None else set())
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(pointer, error) from error


def _damaged(pointer: Path, error: Exception) -> RunFolderError:
    return RunFolderError(pointer, f"is damaged ({error}); start a new run")


def _write_snapshot(folder: RunFolder, snapshot: Snapshot, kind: str, channel: ChannelState | None = None) -> None:
    path, pointed = folder.checkpoint / _name(kind, snapshot), _pointed(folder)
    if path.name in pointed:
        return
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700, parents=True)
    if kind == "best" and _name("round", snapshot) in pointed:  # it was the present one until now
        with suppress(OSError):  # a file system without second names
            _name_again(folder.checkpoint / _name("round", snapshot), path, len(snapshot.private))
            return
    _write(folder, _global_file(path), {"vector": snapshot.vector})
    for index, site in enumerate(sorted(snapshot.private)):
        _write(folder, _site_file(path, index), snapshot.private[site], site)
    if channel is not None and channel.public:
        _write(folder, path / "channel.safetensors", channel.public)
        for index, site in enumerate(sorted(channel.private)):
            _write(folder, _channel_file(path, index), channel.private[site], site)


def _write(folder: RunFolder, path: Path, arrays: Arrays, site: str = "") -> None:
    """Write arrays with their digest; those of a site are its owner's alone."""
    folder.write_arrays(path, arrays, {"sha256": _digest(arrays, site)}, private=bool(site))


def _read(folder: RunFolder, path: Path, digests: Digests, site: str = "") -> Arrays:
    """Read what `_write` wrote; raises RunFolderError where it is not that, or another site's."""
    arrays = folder.read_arrays(path)
    if {folder.read_metadata(path).get("sha256"), digests.get(_key(path))} != {_digest(arrays, site)}:
        raise RunFolderError(path, "was changed after it was written: start a new run, or restore the file")
    return arrays


def _digests(folder: RunFolder, name: str) -> Digests:
    """Return {file: the digest that was written with it} of a snapshot."""
    paths = sorted((folder.checkpoint / name).glob("*.safetensors"))
    return {_key(path): folder.read_metadata(path).get("sha256", "") for path in paths}


def _key(path: Path) -> str:
    """What the pointer calls a file of a snapshot."""
    return f"{path.parent.name}/{path.name}"


def _digest(arrays: Arrays, site: str) -> str:
    """SHA-256 (hex) of the site, names, types, shapes and bytes."""
    found = hashlib.sha256(f"{site}\n".encode())
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _name_again(written: Path, path: Path, sites: int) -> None:
    """Give the files of a snapshot that is on disk a second name each."""
    os.link(_global_file(written), _global_file(path))
    for index in range(sites):
        os.link(_site_file(written, index), _site_file(path, index))


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        shutil.rmtree(path)


def _read_snapshot(folder: RunFolder, kind: str, number: int, sites: list[str], digests: Digests) -> Snapshot:
    path = folder.checkpoint / f"{kind}-{number:06d}"
    vector = _read(folder, _global_file(path), digests)["vector"]
    private = {site: _read(folder, _site_file(path, index), digests, site) for index, site in enumerate(sites)}
    return Snapshot(number, vector, private)


def _global_file(path: Path) -> Path:
    return path / "global.safetensors"


def _site_file(path: Path, index: int) -> Path:
    return path / f"site-{index:04d}.safetensors"


def _read_channel(folder: RunFolder, path: Path, sites: list[str], digests: Digests) -> ChannelState:
    public = path / "channel.safetensors"
    if _key(public) not in digests:
        return ChannelState()
    private = {site: _read(folder, _channel_file(path, index), digests, site) for index, site in enumerate(sites)}
    return ChannelState(_read(folder, public, digests), private)


def _channel_file(path: Path, index: int) -> Path:
    return path / f"site-{index:04d}-channel.safetensors"
