"""Which source code runs: versions and, in a checkout, commit."""

import importlib.metadata
import platform
import subprocess
import tomllib
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]


def source_of() -> dict[str, Any]:
    """Return {commit: hex, modified: whether tracked files differ from it}; nothing outside of a git checkout."""
    if not (_ROOT / ".git").exists():
        return {}
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    if not commit or changes is None:
        return {}
    return {"commit": commit, "modified": bool(changes)}


def version_of() -> str:
    """Return the version of SecureFed: of the installed package, or of the checkout that runs."""
    try:
        return importlib.metadata.version("securefed")
    except importlib.metadata.PackageNotFoundError:
        project = _ROOT / "pyproject.toml"
        if not project.is_file():
            return "not installed"
        return f"{tomllib.loads(project.read_text(encoding='utf-8'))['project']['version']} (checkout)"


def software_versions() -> dict[str, str]:
    """Return the versions of what can change a result."""
    names = ("torch", "open_clip_torch", "numpy", "cryptography", "scikit-learn")
    found = {"python": platform.python_version(), "securefed": version_of()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _git(*arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(_ROOT), *arguments]
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
