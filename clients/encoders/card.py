"""What is known of an encoder without loading it, remembered beside the feature cache."""

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from clients.encoders.errors import FeatureCacheError

_VERSION = 1
_ABANDONED_SECONDS = 3600.0
"""After it a part of a file is one that a kill has left."""


@dataclass(frozen=True)
class EncoderCard:
    """What is needed of an encoder when all its features are cached.

    Attributes:
        digest: SHA-256 (hex) of weights, configuration and preprocessing.
        embed_dim: Width of its features.
        logit_scale: Factor of the cosines in its softmax.
    """

    digest: str
    embed_dim: int
    logit_scale: float


def files_key(model: str, files: Iterable[Path]) -> str:
    """Return the SHA-256 (hex) that names the state of an encoder's files without reading them.

    Covers open_clip's name and version, and path, size, modification time (ns) and inode of every file.
    """
    states = []
    for file in sorted(path.resolve() for path in files):
        state = file.stat()
        states.append([str(file), state.st_size, state.st_mtime_ns, state.st_ino])
    versions = {name: importlib.metadata.version(name) for name in ("open_clip_torch", "timm")}
    content = json.dumps([_VERSION, model, versions, states], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def read_card(cache_dir: Path, key: str) -> EncoderCard | None:
    """Return the remembered card of an encoder; None where there is none or it is damaged."""
    try:
        content = json.loads((cache_dir / "encoders" / f"{key}.json").read_text(encoding="utf-8"))
        card = EncoderCard(str(content["digest"]), int(content["embed_dim"]), float(content["logit_scale"]))
        intact = content["checksum"] == _checksum(key, card)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return card if intact and math.isfinite(card.logit_scale) else None


def write_card(cache_dir: Path, key: str, card: EncoderCard) -> None:
    """Remember the card of an encoder; raises FeatureCacheError where the folder cannot be written."""
    content = {**asdict(card), "checksum": _checksum(key, card)}
    write_atomically(cache_dir / "encoders" / f"{key}.json", json.dumps(content, indent=1).encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees a part of it, creating its folder; old parts that a kill left are removed.

    Raises:
        FeatureCacheError: The system refuses.
    """
    temporary = path.parent / f".{uuid.uuid4().hex}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_parts(path.parent)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise FeatureCacheError(path.parent, error.strerror or str(error)) from error


def _remove_parts(folder: Path) -> None:
    """Remove what writers that were killed have left: features may be in it, and nobody writes a file for so long."""
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                part.unlink()


def _checksum(key: str, card: EncoderCard) -> str:
    return hashlib.sha256(json.dumps([key, asdict(card)], sort_keys=True).encode()).hexdigest()
