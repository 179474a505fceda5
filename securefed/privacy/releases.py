"""What a hospital has made of a release that it has paid for, kept until the round is final.

A run that is interrupted between a hospital's training and the end of the round takes the same update again: sending
the same bits twice costs nothing, whereas training again with fresh noise would be a second release.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securefed.run_folder import Arrays, RunFolder

Vector = NDArray[np.float32]

_UPDATE = "update"
_PRIVATE = "private/"


class ReleaseStore:
    """The last release of each site, in the site's own folder.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def save(self, site: str, release_id: str, update: Vector, private: Arrays) -> None:
        """Keep an update float32[d] and the private state that belongs to it, in place of the site's last release."""
        arrays = {_UPDATE: update, **{_PRIVATE + name: array for name, array in private.items()}}
        names = [np.frombuffer(release_id.encode(), dtype=np.uint8)]
        self._folder.write_arrays(self._path(site), {**arrays, "release_id": names[0]}, {"site": site}, private=True)

    def load(self, site: str, release_id: str) -> tuple[Vector, Arrays] | None:
        """Return update and private state of this very release, None where the site has no such release."""
        if not self._path(site).exists():
            return None
        arrays = self._folder.read_arrays(self._path(site))
        if arrays["release_id"].tobytes().decode() != release_id:
            return None
        private = {name.removeprefix(_PRIVATE): array for name, array in arrays.items() if name.startswith(_PRIVATE)}
        return arrays[_UPDATE], private

    def discard(self, sites: tuple[str, ...]) -> None:
        """Delete all releases: the run has ended."""
        for site in sites:
            self._path(site).unlink(missing_ok=True)

    def _path(self, site: str) -> Path:
        return self._folder.site(site) / "release.safetensors"
