"""Features on disk, so that no image is encoded twice.

One folder a key (encoder digest, kind of input, precision), in it any number of files that are written once and
never changed. A file is in the safetensors format and has `digests` uint8[n, 32] (SHA-256 of each input),
`features` float32[n, D] and `checksums` uint8[n, 16] (first half of SHA-256 over key, digest and feature). Writers
only ever add files under names of their own, so runs side by side need no lock.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from clients.encoders.card import write_atomically
from clients.encoders.errors import FeatureCacheError

_VERSION = "securefed/features/v2"
"""Of what images are read as: another one where the same file would be shown to the encoder differently."""
_CHECKSUM_BYTES = 16


@dataclass(frozen=True)
class CachedRows:
    """What a look into the cache gave: features by digest (hex), and how many entries or files were damaged."""

    rows: dict[str, NDArray[np.float32]]
    damaged: int


class _Entries(NamedTuple):
    """What is in one file: digests (hex), features float32[n, D], and which entries are intact bool[n]."""

    names: list[str]
    features: NDArray[np.float32]
    intact: NDArray[np.bool_]


class FeatureCache:
    """The cached features of one encoder, one kind of input and one precision.

    Args:
        cache_dir: Folder of all caches.
        description: What the features depend on besides the input; its canonical JSON is hashed into the key.
        width: D, the width of a feature.
    """

    def __init__(self, cache_dir: Path, description: Mapping[str, str], width: int) -> None:
        canonical = json.dumps([_VERSION, dict(description), width], sort_keys=True)
        self.key = hashlib.sha256(canonical.encode()).hexdigest()
        self.folder = cache_dir / "features" / self.key[:40]
        self.width = width
        self._description = dict(description)

    def read(self, digests: Iterable[str]) -> CachedRows:
        """Return the cached features of some inputs.

        Files without any of them are passed over. In all others damaged entries, and entries that belong to another
        key, are removed and counted; so are files that are damaged as a whole.

        Args:
            digests: SHA-256 (hex) of the inputs.

        Raises:
            FeatureCacheError: A damaged file cannot be removed.
        """
        wanted = set(digests)
        found: dict[str, NDArray[np.float32]] = {}
        damaged = 0
        for path in sorted(self.folder.glob("*.safetensors")):
            entries = self._entries(path, wanted)
            if entries is None:
                damaged += 1
                self._remove(path)
                continue
            names, features, intact = entries
            if not intact.all():
                damaged += int((~intact).sum())
                kept = {name: features[i] for i, name in enumerate(names) if intact[i]}
                self.add(kept)
                self._remove(path)
            for i, name in enumerate(names):
                if intact[i] and name in wanted:
                    found.setdefault(name, features[i])
        return CachedRows(found, damaged)

    def add(self, rows: Mapping[str, NDArray[np.float32]]) -> None:
        """Write the features of some inputs as one new file.

        Args:
            rows: SHA-256 (hex) of an input to float32[D].

        Raises:
            FeatureCacheError: The folder cannot be written.
        """
        if not rows:
            return
        names = sorted(rows)
        features = np.stack([rows[name] for name in names]).astype(np.float32)
        digests = np.stack([np.frombuffer(bytes.fromhex(name), dtype=np.uint8) for name in names])
        checksums = np.stack([self._checksum(digests[i], features[i]) for i in range(len(names))])
        content = safetensors.numpy.save(
            {"digests": digests, "features": features, "checksums": checksums}, metadata={"key": self.key}
        )
        description = self.folder / "description.json"
        if not description.exists():
            write_atomically(description, json.dumps(self._description, indent=1, sort_keys=True).encode())
        write_atomically(self.folder / f"{uuid.uuid4().hex}.safetensors", content)

    def _entries(self, path: Path, wanted: AbstractSet[str]) -> _Entries | None:
        """Return digests, features and which of them are intact; None where the file as a whole is not.

        Nothing is returned of a file that has none of the wanted ones: the features are not even read then.
        """
        nothing = _Entries([], np.empty((0, self.width), np.float32), np.empty(0, np.bool_))
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                digests = file.get_tensor("digests")
                names = [row.tobytes().hex() for row in digests]
                if digests.shape == (len(names), 32) and digests.dtype == np.uint8 and wanted.isdisjoint(names):
                    return nothing
                features, checksums = file.get_tensor("features"), file.get_tensor("checksums")
        except FileNotFoundError:  # another run has just removed it as damaged
            return nothing
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None
        shapes = ((len(digests), 32), (len(digests), self.width), (len(digests), _CHECKSUM_BYTES))
        if (digests.shape, features.shape, checksums.shape) != shapes:
            return None
        if digests.dtype != np.uint8 or features.dtype != np.float32 or checksums.dtype != np.uint8:
            return None
        expected = [self._checksum(digests[i], features[i]) for i in range(len(digests))]
        intact = np.array([np.array_equal(checksums[i], expected[i]) for i in range(len(digests))], dtype=np.bool_)
        return _Entries(names, features, intact)

    def _checksum(self, digest: NDArray[np.uint8], feature: NDArray[np.float32]) -> NDArray[np.uint8]:
        content = self.key.encode() + digest.tobytes() + feature.astype("<f4").tobytes()
        return np.frombuffer(hashlib.sha256(content).digest()[:_CHECKSUM_BYTES], dtype=np.uint8)

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise FeatureCacheError(self.folder, error.strerror or str(error)) from error
