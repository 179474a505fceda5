"""Whose data a deployment's record covers: the keyed digests that hospitals state, and one digest over all.

The record begins with the one digest over the hospitals that are there. A hospital that comes later, or calls other
data its own than before, is in the record by an event of its own. `data_digests.json` in the run folder holds what each
hospital said last, so that a server that takes the run up again notices too.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

from securefed.errors import RunFolderError
from securefed.run_folder import RunFolder

_FILE: Final = "data_digests.json"


class DataDigests:
    """What each hospital of a run called its data when it said so last.

    Args:
        folder: The run folder.

    Attributes:
        known: {hospital: keyed digest of its data, hex}; {} before any was kept.

    Raises:
        RunFolderError: The file of an earlier process is damaged.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._file = folder, folder.path / _FILE
        self.known: dict[str, str] = {}
        if self._file.exists():
            for name, digest in folder.read_json(self._file).items():
                if not isinstance(digest, str):
                    raise RunFolderError(self._file, "is damaged; put a copy of it back")
                self.known[name] = digest

    def news(self, said: Mapping[str, str]) -> dict[str, str]:
        """Return what of it was not known, {hospital: digest}."""
        return {name: digest for name, digest in sorted(said.items()) if self.known.get(name) != digest}

    def keep(self, said: Mapping[str, str]) -> None:
        """Remember what hospitals say, once the log has it.

        Raises:
            RunFolderError: The disk refuses.
        """
        if self.news(said):
            self.known |= said
            self._folder.write_json(self._file, self.known)


def one_digest(said: Mapping[str, str]) -> str:
    """Return the SHA-256 (hex) over hospitals and what each calls its data; it tells nothing without their keys."""
    text = "".join(f"{name} {said[name]}\n" for name in sorted(said))
    return hashlib.sha256(text.encode()).hexdigest()
