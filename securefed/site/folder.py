"""A hospital's folder: everything that never leaves it, readable by its owner only."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from audit.data_name import DATA_KEY
from audit.durable import write_whole
from audit.signing_key import create_key
from securefed.deploy.errors import DeploymentError
from securefed.errors import RunFolderError
from securefed.identity import check_hospital, write_public
from securefed.locks import locked
from securefed.site.settings import SiteSettings

_PRIVATE: Final = 0o077


class SiteFolder:
    """Paths of a hospital's folder.

    Attributes:
        settings: site.toml.
        key: The identity key; 0600.
        public: What the lead gets of it.
        study: The study as this hospital has it.
        approval: Its approval of that study.
        data: Fingerprint of the data at the time of approval.
        data_key: Key of the digest that others are told in place of it.
        features: Cache of the features of its images.
        state: The node's state between messages in the approved study, without secrets of a round.
        heads: Tree heads that it has countersigned, one file a run.
        runs: What it keeps of finished runs: models, MLP, metrics, plots, model card.
        ledger: The privacy budget over all runs.
        privacy: For every private study a private log of what was charged, and the last release.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = path / "site.toml"
        self.key = path / "identity.key"
        self.public = path / "identity.pub"
        self.study = path / "study.toml"
        self.approval = path / "approval.json"
        self.data = path / "data.json"
        self.data_key = path / DATA_KEY
        self.features = path / "features"
        self.state = path / "state.safetensors"
        self.heads = path / "heads"
        self.runs = path / "runs"
        self.ledger = path / "ledger.sqlite"
        self.privacy = path / "privacy"

    @classmethod
    def create(cls, path: Path, settings: SiteSettings) -> "SiteFolder":
        """Make a folder with a new identity key; where that fails, nothing is left in it.

        Raises:
            ConfigError: The name cannot be a hospital's.
            RunFolderError: It holds something already, or cannot be made.
            KeyFileError: The key cannot be made.
        """
        check_hospital(settings.site.name)
        folder = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            held = any(path.iterdir())
        except OSError as error:
            raise RunFolderError(path, f"cannot be made ({error.strerror}); name a writable place") from error
        if held:
            cut_off = "" if folder.public.exists() else " (or delete it, if a `site init` that was cut off has left it)"
            raise RunFolderError(path, f"holds something already; name a new folder for this hospital{cut_off}")
        try:
            folder._fill(settings)
        except BaseException as error:
            folder._empty()
            if isinstance(error, OSError):
                raise RunFolderError(path, f"cannot be made ({error.strerror}); name a writable place") from error
            raise
        return folder

    def _fill(self, settings: SiteSettings) -> None:
        """Make what a new folder has; its public key last."""
        self.path.chmod(0o700)
        for part in (self.features, self.heads, self.runs):
            part.mkdir(mode=0o700)
        self.write(self.settings, settings.encode())
        write_public(settings.site.name, create_key(self.key), self.public)

    def _empty(self) -> None:
        """Remove what `_fill` has made."""
        for part in (self.features, self.heads, self.runs):
            shutil.rmtree(part, ignore_errors=True)
        for path in (self.settings, self.key, self.public):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: Path) -> "SiteFolder":
        """Return a folder that `create` made.

        Raises:
            RunFolderError: There is none, or others may read in it.
        """
        folder = cls(path)
        if not folder.settings.is_file():
            raise RunFolderError(path, "is no hospital's folder (site.toml is missing); make one with `site init`")
        exposed = folder.exposed()
        if exposed:
            raise RunFolderError(exposed[0], "may be read by others; close it with chmod go-rwx")
        return folder

    def exposed(self) -> list[Path]:
        """Return what others than the owner may read or write; the public key is for everybody."""
        private = [self.path, self.key, self.data_key, self.data, self.features, self.heads, self.runs, self.state]
        private += [self.ledger, self.privacy, *sorted(self.path.glob("state-*.safetensors"))]
        return [path for path in private if path.exists() and stat.S_IMODE(path.stat().st_mode) & _PRIVATE]

    def state_of(self, study: str) -> Path:
        """Return where the node's state in a study (digest, hex) lies while another study is approved."""
        return self.path / f"state-{study[:32]}.safetensors"

    def heads_of(self, run_id: str) -> Path:
        """Return the heads file of a run.

        Raises:
            RunFolderError: The id could not be a file's name.
        """
        if not run_id or run_id.startswith(".") or "/" in run_id or "\\" in run_id or len(run_id) > 200:
            raise RunFolderError(self.heads, f"{run_id!r} cannot be a run's id")
        return self.heads / f"{run_id}.jsonl"

    def write(self, path: Path, content: bytes) -> None:
        """Write a file of this folder, readable by its owner only: whole, or not at all.

        Raises:
            RunFolderError: The disk refuses.
        """
        try:
            write_whole(path, [content], 0o600)
        except OSError as error:
            raise RunFolderError(path, f"cannot be written ({error.strerror}); free space on this disk") from error

    @contextmanager
    def alone(self, wait: float = 10.0) -> Iterator[None]:
        """Hold the folder: two nodes of one hospital could answer one message twice.

        Args:
            wait: Seconds to wait for another process to let go.

        Raises:
            DeploymentError: Another process holds it, or nothing can be written there.
        """
        lock = self.path / ".lock"
        if not os.access(lock if lock.exists() else self.path, os.W_OK):
            raise DeploymentError(f"{self.path} cannot be written; a node keeps its state there")
        with locked(lock, wait) as held:
            if not held:
                raise DeploymentError(f"{self.path} is in use by another node of this hospital; stop that one")
            yield
