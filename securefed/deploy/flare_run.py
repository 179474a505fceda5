"""A FLARE deployment at work: start parties, submit a job that carries no code, look at it, stop everything."""

import json
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from securefed.deploy.errors import DeploymentError
from securefed.deploy.flare_policy import CONTROLLER, EXECUTOR, harden_site
from securefed.deploy.flare_project import LEAD, environment, nvflare
from securefed.deploy.processes import last_words, log_of, refuse_ended, start_party
from securefed.engines.names import SITE_SOCKET

_COMMAND: Final = ("/usr/bin/env", "bash")
_FEWEST_ALIVE: Final = 1
"""Sites below which FLARE ends a job by itself, about 90 s after it saw them go (`_job_policy_violated`). How many are
enough is the study's to say and not the engine's: a round that lacks hospitals is aborted by its own rule, which names
them, and at a study's end fewer than a sum needs can still sign the record and take the model. FLARE takes the number
for its scheduler too, which leaves out whichever site it cannot reach when the job begins; `Deployment.submit` names
those sites only that are connected, so that this is a site that was lost in between."""


def start_kit(folder: Path, party: str, kit: Path, extra: Mapping[str, str]) -> int:
    """Start the server's or a site's kit in the background; it does not start itself again when it is killed.

    Args:
        folder: Folder of the deployment on this machine.
        party: Name of the party.
        kit: Its startup kit, with its own policies in place (flare_policy).
        extra: What its processes find in their environment.
    """
    command = [*_COMMAND, str(kit / "startup" / "sub_start.sh"), "--once"]
    return start_party(folder, party, command, environment(folder, party, extra), kit)


def refuse_split_paths(kit: Path) -> None:
    """Refuse paths that FLARE, which splits a job's command line as a shell would, takes for something else.

    Args:
        kit: A kit, or the folder in which kits will be.

    Raises:
        DeploymentError: The kit's path or that of this Python is such a one; names it.
    """
    for path, move in ((str(kit.absolute()), "move the folder"), (sys.executable, "make the environment elsewhere")):
        try:
            kept = shlex.split(path, comments=True) == [path]
        except ValueError:  # a quote that nothing closes
            kept = False
        if not kept:
            raise DeploymentError(f"{path}: FLARE runs no job under a path with a space, quote, backslash or #; {move}")


def run_kit(kit: Path, socket_path: Path) -> int:
    """Write a site's own policies into its kit and run it in the foreground; return its exit code.

    Args:
        kit: The site's startup kit.
        socket_path: Where the site's node listens.

    Raises:
        DeploymentError: The folder is no kit, or FLARE would split its path.
    """
    kit = kit.absolute()
    if not ((kit / "startup" / "sub_start.sh").is_file() and (kit / "local").is_dir()):
        raise DeploymentError(f"{kit} is no startup kit; name the folder that the lead has sent (kits/NAME)")
    refuse_split_paths(kit)
    harden_site(kit)
    variables = environment(kit, "engine", {SITE_SOCKET: str(socket_path.absolute())})
    return subprocess.call([*_COMMAND, str(kit / "startup" / "sub_start.sh"), "--once"], env=variables, cwd=kit)


def connected(folder: Path, kits: Path) -> tuple[str, ...]:
    """Return the sites that the server knows as connected; empty while the server does not answer."""
    try:
        answer = _ask(folder, kits, "system", "status")
    except DeploymentError:
        return ()
    return tuple(sorted(client["client_name"] for client in _find(answer, "clients")))


def refuse_taken(port: int) -> None:
    """Raise DeploymentError where something listens at a port of this machine: FLARE would try again for ever."""
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            line.bind(("", port))
        except OSError as error:
            raise DeploymentError(f"cannot listen at port {port} ({error.strerror}); end what listens there") from error


def wait_until_answering(folder: Path, kits: Path, party: str, seconds: float = 60.0) -> None:
    """Wait until the server answers the lead.

    Raises:
        DeploymentError: It does not within `seconds`, or has ended.
    """
    deadline = time.monotonic() + seconds
    while True:
        refuse_ended(folder, party)
        try:
            _ask(folder, kits, "job", "list")
        except DeploymentError as error:
            if time.monotonic() > deadline:
                said = f"{last_words(folder, party)} (all that it said: {log_of(folder, party)})"
                raise DeploymentError(f"{party} does not answer: {said}") from error
        else:
            return


def wait_until_connected(folder: Path, kits: Path, sites: Sequence[str], seconds: float = 120.0) -> None:
    """Wait until all sites are connected.

    Raises:
        DeploymentError: They are not within `seconds`, or one has ended.
    """
    deadline = time.monotonic() + seconds
    while missing := set(sites) - set(connected(folder, kits)):
        for site in sorted(missing):
            refuse_ended(folder, site)
        if time.monotonic() > deadline:
            raise DeploymentError(f"not connected: {', '.join(sorted(missing))}; look into {folder / 'logs'}")
        time.sleep(0.5)


def write_job(path: Path, sites: Sequence[str], *, server_class: str, site_class: str) -> None:
    """Write a job's folder: names of classes, no code, no argument.

    Args:
        path: The folder to write.
        sites: Sites that take part.
        server_class: Class of the server's object.
        site_class: Class of the sites' objects.
    """
    shutil.rmtree(path, ignore_errors=True)
    configuration = path / "app" / "config"
    configuration.mkdir(parents=True)
    threads = {"max_inbound_call_threads": 100, "max_outbound_call_threads": 100}
    shared = {"collab_obj_ids": [], "props": {}, **threads}
    filters: dict[str, list[str]] = {"task_data_filters": [], "task_result_filters": []}
    executor = {"path": EXECUTOR, "args": {"client_obj_id": "site", **shared}}
    controller = {"id": "controller", "path": CONTROLLER, "args": {"server_obj_id": "server", **shared}}
    contents: dict[str, dict[str, Any]] = {
        "config_fed_server.json": {
            "format_version": 2,
            "workflows": [controller],
            "components": [{"id": "server", "path": server_class, "args": {}}],
            **filters,
        },
        "config_fed_client.json": {
            "format_version": 2,
            "executors": [{"tasks": ["*"], "executor": executor}],
            "components": [{"id": "site", "path": site_class, "args": {}}],
            **filters,
        },
    }
    for name, content in contents.items():
        (configuration / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    meta = {
        "name": "securefed",
        "resource_spec": {},
        "min_clients": _FEWEST_ALIVE,
        "deploy_map": {"app": ["server", *sites]},
    }
    (path / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def submit(folder: Path, kits: Path, job: Path) -> str:
    """Submit a job as the lead; return FLARE's id of it."""
    answer = _ask(folder, kits, "job", "submit", "-j", str(job))
    return str(_find(answer, "job_id"))


def abort(folder: Path, kits: Path, job_id: str) -> None:
    """End a job at all parties."""
    _ask(folder, kits, "job", "abort", job_id, "--force")


def job_state(folder: Path, kits: Path, job_id: str) -> str:
    """Return FLARE's word for the state of a job, such as RUNNING or FINISHED:COMPLETED."""
    return str(_find(_ask(folder, kits, "job", "meta", job_id)["data"], "status"))


def _ask(folder: Path, kits: Path, *arguments: str) -> Any:
    printed = nvflare(folder, "--format", "json", *arguments, "--startup-kit", str(kits / LEAD))
    try:
        return json.loads(printed[printed.index("{") :])
    except ValueError as error:
        raise DeploymentError(f"FLARE answered something that cannot be read: {printed[-500:]}") from error


def _find(answer: Any, key: str) -> Any:
    """Return the value of a key, wherever it stands in the answer."""
    if isinstance(answer, dict):
        if key in answer:
            return answer[key]
        answer = list(answer.values())
    if isinstance(answer, list):
        for part in answer:
            try:
                return _find(part, key)
            except DeploymentError:
                continue
    raise DeploymentError(f"FLARE's answer has no {key}")
