"""A FLARE project: certificates and startup kits of the server, the sites and the lead, made by `nvflare provision`."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from securefed.deploy.errors import DeploymentError

PROJECT: Final = "securefed"
LEAD: Final = "lead@study.org"
_HERE: Final = "127.0.0.1"
_SITE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")


def provision(folder: Path, sites: Sequence[str], host: str, port: int, listen: int = 0) -> Path:
    """Make the certificate authority and all kits; return the folder `kits`, one kit a party.

    Args:
        folder: Folder of the deployment; holds the authority's key in `authority` afterwards.
        sites: Names of the sites, as in the roster.
        host: Name under which the sites reach the server; also the server's name in FLARE.
        port: TCP port at which the sites reach the server, the only one that must be open.
        listen: Port at which the server listens, where `port` is forwarded to it by a firewall; 0: at `port`.

    Raises:
        DeploymentError: FLARE is not installed, refuses a name, or kits are there already.
    """
    for site in sites:
        if not _SITE_NAME.fullmatch(site) or site == host:
            raise DeploymentError(f"FLARE takes letters, digits, dashes and underscores in the name of a site: {site}")
    kits, authority = folder / "kits", folder / "authority"
    if kits.exists():
        raise DeploymentError(f"{kits} exists already; new certificates would shut out everybody who has a kit")
    authority.mkdir(parents=True, mode=0o700, exist_ok=True)
    # JSON is YAML: no other writer is needed.
    (authority / "project.yml").write_text(json.dumps(_project(sites, host, port, listen), indent=1), encoding="utf-8")
    nvflare(folder, "provision", "-p", "project.yml", "-w", "workspace", directory=authority)
    shutil.move(authority / "workspace" / PROJECT / "prod_00", kits)
    for path in kits.rglob("*"):
        path.chmod(0o700 if path.is_dir() or path.suffix == ".sh" else 0o600)
    return kits


def _project(sites: Sequence[str], host: str, port: int, listen: int) -> dict[str, Any]:
    server: dict[str, Any] = {"name": host, "type": "server", "org": "coordinator", "fed_learn_port": listen or port}
    lead: dict[str, Any] = {"name": LEAD, "type": "admin", "org": "coordinator", "role": "lead"}
    if listen:  # `host` is a firewall's, which need not forward what comes from behind it
        server["host_names"] = [_HERE]
        lead["connect_to"] = {"host": _HERE, "port": listen}
    target = {"connect_to": {"host": host, "port": port}}
    clients = [{"name": site, "type": "client", "org": site.replace("-", "_"), **target} for site in sites]
    builder = "nvflare.lighter.impl."
    return {
        "api_version": 3,
        "name": PROJECT,
        "description": "secure aggregation between hospitals",
        "participants": [{**server, "connection_security": "mtls"}, *clients, lead],
        "builders": [
            {"path": builder + "workspace.WorkspaceBuilder"},
            {"path": builder + "static_file.StaticFileBuilder", "args": {"config_folder": "config", "scheme": "tcp"}},
            {"path": builder + "cert.CertBuilder"},
            {"path": builder + "signature.SignatureBuilder"},
        ],
    }


def environment(folder: Path, party: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of FLARE's processes: this Python and this package first, a home folder of their own."""
    home = folder / "home" / party
    home.mkdir(parents=True, mode=0o700, exist_ok=True)
    root = str(Path(__file__).resolve().parents[2])
    inherited = dict(os.environ)
    paths = [root, *filter(None, [inherited.get("PYTHONPATH")])]
    return {
        **inherited,
        "HOME": str(home),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        **(extra or {}),
    }


def nvflare(folder: Path, *arguments: str, directory: Path | None = None, seconds: float = 180.0) -> str:
    """Run one command of FLARE's own and return what it printed.

    Raises:
        DeploymentError: FLARE is not installed, fails or does not end.
    """
    program = shutil.which("nvflare", path=environment(folder, "lead")["PATH"])
    if program is None:
        raise DeploymentError("NVIDIA FLARE is not installed; install the extra: pip install 'securefed[flare]'")
    try:
        result = subprocess.run(
            [program, *arguments],
            env=environment(folder, "lead"),
            cwd=directory or folder,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeploymentError(f"nvflare {arguments[0]} did not end within {seconds:.0f} s") from error
    if result.returncode:
        said = (result.stdout + result.stderr).strip()[-1500:]
        raise DeploymentError(f"nvflare {' '.join(arguments[:3])} failed: {said}")
    return result.stdout
