"""A Flower deployment: SuperLink and SuperNodes with TLS and registered keys, and an app that is three lines a side."""

import http.client
import json
import math
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from audit.durable import write_whole
from securefed.deploy.certificates import make_authority_and_server, make_node_key
from securefed.deploy.errors import DeploymentError
from securefed.deploy.processes import age, is_alive, log_of, refuse_ended, start_party, stop_parties
from securefed.engines.names import FLOWER_NODES, SITE_SOCKET

LINK: Final = "superlink"
_CONNECTION: Final = "deployment"
_ANSWERS_SECONDS: Final = 180.0
"""A command of Flower's takes two seconds, and a minute on a machine that has other things to do."""
_KEPT_OUT: Final = "Failed to activate SuperNode"
"""What Flower's SuperLink answers a SuperNode whose key it takes for online already."""
_LAST_LINES: Final = 10
"""Lines in which a SuperNode that ends says why."""


def make_keys(folder: Path, sites: Sequence[str], host: str) -> None:
    """Make the authority, the server's certificate and one key a site under `keys`, and the app under `app`.

    Raises:
        DeploymentError: Keys are there already.
    """
    keys = folder / "keys"
    if keys.exists():
        raise DeploymentError(f"{keys} exists already; new keys would shut out everybody who has one")
    make_authority_and_server(keys, host)
    for site in sites:
        make_node_key(keys, site)


def write_app(folder: Path, server_app: str, client_app: str) -> Path:
    """Write the app that `flwr run` takes and return its folder.

    Args:
        folder: Folder of the deployment.
        server_app: Expression of the ServerApp, `module:function()`.
        client_app: Expression of the ClientApp.
    """
    app = folder / "app"
    shutil.rmtree(app, ignore_errors=True)
    package = app / "securefed_app"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    for name, source in (("server_app", server_app), ("client_app", client_app)):
        module, _, make = source.partition(":")
        # Flower wants `app` assigned in this very module.
        (package / f"{name}.py").write_text(f"import {module}\n\napp = {module}.{make}\n", encoding="utf-8")
    (app / "pyproject.toml").write_text(_PYPROJECT, encoding="utf-8")
    return app


_PYPROJECT: Final = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "securefed-app"
version = "1.0.0"
description = "Delivers the frames of SecureFed, which is installed at every party"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "securefed"

[tool.flwr.app.components]
serverapp = "securefed_app.server_app:app"
clientapp = "securefed_app.client_app:app"

[tool.flwr.app.config]
"""


def start_link(folder: Path, host: str, port: int, extra: Mapping[str, str], party: str = LINK, bind: str = "") -> None:
    """Start the SuperLink; it keeps what it knows in `link.db`, so that it can be killed and started again.

    Args:
        folder: Folder of the deployment.
        host: How processes of this machine call it.
        port: Where it listens.
        extra: What it finds in its environment beside.
        party: The name of its processes.
        bind: Address at which it listens; `host` unless given.

    Raises:
        DeploymentError: It does not answer within a minute, has ended, or its certificate is not valid.
    """
    keys = folder / "keys"
    tls = [
        "--ssl-ca-certfile",
        keys / "ca.crt",
        "--ssl-certfile",
        keys / "server.crt",
        "--ssl-keyfile",
        keys / "server.key",
    ]
    command = [_program("flower-superlink"), "--host", bind or host, "--port", str(port), *map(str, tls)]
    command += ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
    command += ["--database", str(folder / "link.db")]
    home = folder / "home" / "lead" / "flower"
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{_CONNECTION}"\n\n[superlink.{_CONNECTION}]\naddress = "{host}:{port}"\n'
        f"root-certificates = {json.dumps(str(keys / 'ca.crt'))}\n",
        encoding="utf-8",
    )
    nodes = {FLOWER_NODES: str(folder / "nodes.json")}
    start_party(folder, party, command, environment(folder, party, {**nodes, **extra}), folder)
    _wait_for_health(host, port, folder, party)


def register(folder: Path, sites: Sequence[str]) -> bool:
    """Register the public keys of sites that have no node yet; return whether there were such sites.

    `nodes.json`, {site: id of its node}, is written after each. A node that it lacks was registered when the command
    was interrupted. Flower registers a key once and for all, and tells of a node all but its key; but keys are
    registered one by one in the order of `sites`, and Flower lists nodes as they were registered: the nodes without a
    site are those of the first sites without a node.

    Raises:
        DeploymentError: The SuperLink does not answer, refuses a key, or has more nodes than there are sites.
    """
    nodes = _nodes(folder)
    lacking = [site for site in sites if site not in nodes]
    if not lacking:
        return False
    listed = flwr(folder, "supernode", "list", _CONNECTION).get("nodes", [])
    strays = [str(node["node-id"]) for node in listed if node["status"] != "unregistered"]
    strays = [node for node in strays if node not in nodes.values()]
    if len(strays) > len(lacking):
        raise DeploymentError(
            f"the SuperLink has nodes of nobody: {', '.join(strays)}; `init` another deployment of the study, and let "
            "no other keys be registered there"
        )
    for site, stray in zip_longest(lacking, strays):
        if stray is None:
            answer = flwr(folder, "supernode", "register", str(folder / "keys" / f"{site}.pub"), _CONNECTION)
        nodes[site] = stray or str(answer["node-id"])
        write_whole(folder / "nodes.json", [json.dumps(nodes).encode()])
    return True


def _nodes(folder: Path) -> dict[str, str]:
    """Return {site: id of its node} as far as it is known; of a file that cannot be read, nothing."""
    try:
        nodes = json.loads((folder / "nodes.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return nodes if isinstance(nodes, dict) else {}


def start_node(folder: Path, site: str, link: str, port: int, site_socket: Path, extra: Mapping[str, str]) -> None:
    """Start a site's SuperNode.

    Args:
        folder: Folder of the deployment on this machine.
        site: Name of the site.
        link: host:port of the SuperLink.
        port: Port of the SuperNode's own interface on 127.0.0.1.
        site_socket: Where the site's node listens.
        extra: What its processes find in their environment beside.
    """
    keys = folder / "keys"
    command = [_program("flower-supernode"), "--superlink", link, "--root-certificates", str(keys / "ca.crt")]
    command += ["--auth-supernode-private-key", str(keys / f"{site}.key"), "--host", "127.0.0.1", "--port", str(port)]
    variables = {SITE_SOCKET: str(site_socket), **extra}
    start_party(folder, site, command, environment(folder, site, variables), folder)


def wait_until_online(folder: Path, sites: Sequence[str], seconds: float = 120.0) -> None:
    """Wait until the SuperNodes of all sites are online, each of them as it was started last.

    Raises:
        DeploymentError: They are not within `seconds`, or one has ended.
    """
    deadline = time.monotonic() + seconds
    while missing := [site for site in sites if site not in online(folder)]:
        for site in missing:
            _refuse_ended_node(folder, site)
        if time.monotonic() > deadline:
            raise DeploymentError(f"not online: {', '.join(missing)}; look into {folder / 'logs'}")
        time.sleep(0.5)


def _refuse_ended_node(folder: Path, site: str) -> None:
    if not is_alive(folder, site) and log_of(folder, site).exists():
        said = log_of(folder, site).read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        if any(_KEPT_OUT in line for line in said):
            raise DeploymentError(
                f"{site} was kept out: for about a minute after a SuperNode was killed or cut off, Flower takes it for "
                f"online and lets it in no second time. In a minute: deploy flower start {folder} {site}"
            )
    refuse_ended(folder, site)


def online(folder: Path) -> tuple[str, ...]:
    """Return the registered sites that the SuperLink sees online; none while it does not answer.

    A SuperNode that was killed it sees for another minute: one that was started here counts if it runs and was let in
    since it was started.
    """
    try:
        listed = flwr(folder, "supernode", "list", _CONNECTION).get("nodes", [])
    except DeploymentError:
        return ()
    there = {str(node["node-id"]): float(node["online-elapsed"]) for node in listed if node["status"] == "online"}
    return tuple(site for site, node in _nodes(folder).items() if there.get(node, math.inf) < age(folder, site))


def submit(folder: Path) -> str:
    """Run the app; return Flower's id of the run."""
    answer = flwr(folder, "run", str(folder / "app"), _CONNECTION)
    if not answer.get("success"):
        raise DeploymentError(f"Flower refuses the run: {json.dumps(answer)[:1000]}")
    return str(answer["run-id"])


def run_state(folder: Path, run_id: str) -> str:
    """Return Flower's word for the state of a run, such as running or finished:completed."""
    return str(flwr(folder, "ls", _CONNECTION, "--run-id", run_id)["runs"][0]["status"])


def abort(folder: Path, run_id: str) -> None:
    """End a run."""
    flwr(folder, "stop", run_id, _CONNECTION)


def flwr(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run one command of Flower's own and return its answer; its exit code says nothing, its answer does.

    Raises:
        DeploymentError: Flower is not installed, does not end, or answers nothing that can be read.
    """
    command = [_program("flwr"), *arguments, "--format", "json"]
    try:
        result = subprocess.run(
            command,
            env=environment(folder, "lead"),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_ANSWERS_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeploymentError(f"flwr {arguments[0]} did not end within {_ANSWERS_SECONDS:.0f} s") from error
    printed = result.stdout
    try:
        answer = json.loads(printed[printed.index("{") :])
    except ValueError as error:
        raise DeploymentError(f"flwr {' '.join(arguments[:2])}: {(printed + result.stderr).strip()[-1500:]}") from error
    if not isinstance(answer, dict) or answer.get("success") is False:
        raise DeploymentError(f"flwr {' '.join(arguments[:2])}: {printed.strip()[-1500:]}")
    return answer


def environment(folder: Path, party: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of Flower's processes: no telemetry, no update check, a home folder of their own."""
    home = folder / "home" / party
    (home / "flower").mkdir(parents=True, mode=0o700, exist_ok=True)
    root = str(Path(__file__).resolve().parents[2])
    inherited = dict(os.environ)
    return {
        **inherited,
        "HOME": str(home),
        "FLWR_HOME": str(home / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",  # seconds before it looks for the next message's process again
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [inherited.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
        **(extra or {}),
    }


def _program(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        raise DeploymentError("Flower is not installed; install the extra: pip install 'securefed[flower]'")
    return found


def _wait_for_health(host: str, port: int, folder: Path, party: str) -> None:
    deadline = time.monotonic() + 60
    trust = ssl.create_default_context(cafile=str(folder / "keys" / "ca.crt"))
    while time.monotonic() < deadline:
        line = http.client.HTTPSConnection(host, port, timeout=2, context=trust)
        try:
            line.request("GET", "/health")
            if line.getresponse().status == http.HTTPStatus.OK:
                return
        except ssl.SSLCertVerificationError as error:
            refuse_ended(folder, party)
            stop_parties(folder, party)
            raise DeploymentError(
                f"what answers at {host}:{port} has no valid certificate of {folder / 'keys'}: {error.verify_message}. "
                "Another server has that port, or the certificates need to be made anew (docs/engines.md)"
            ) from error
        except OSError:
            refuse_ended(folder, party)
            time.sleep(0.2)
        finally:
            line.close()
    raise DeploymentError(f"the SuperLink does not answer at {host}:{port}; look into {folder / 'logs'}")
