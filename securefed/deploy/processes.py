"""Processes of a deployment on this machine: started apart from the terminal, found again and ended with certainty.

Every process of a party carries `SECUREFED_PARTY=<folder of the deployment>:<party>` in its environment, and so does
whatever it starts. A party is ended by that mark and not by process groups, since engines put jobs into groups of their
own, and a killed parent leaves orphans. Linux only: the mark is read from /proc.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from securefed.deploy.errors import DeploymentError

MARK: Final = "SECUREFED_PARTY"
_PROC: Final = Path("/proc")
_PATIENCE_SECONDS: Final = 10.0


def start_party(
    folder: Path, party: str, command: Sequence[str], environment: Mapping[str, str], directory: Path
) -> int:
    """Start a party's command in the background; its output is appended to `logs/<party>.log`. Returns its pid.

    Raises:
        DeploymentError: It is running already, this is no Linux, or /proc does not show the new process.
    """
    if running(folder, party):
        raise DeploymentError(f"{party} is running already; stop it first: deploy ... stop")
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{party}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            env={**environment, MARK: _mark(folder, party)},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children.append(process)
    _await_mark(process, folder, party)
    return process.pid


def _await_mark(process: "subprocess.Popen[bytes]", folder: Path, party: str) -> None:
    """Return once the process can be found by its mark, or has ended.

    `Popen` returns as soon as the kernel has closed the files of the forked process, which in `execve` comes shortly
    before the new environment can be read.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    wanted = f"{MARK}={_mark(folder, party)}".encode()
    while process.poll() is None and not _is_marked(process.pid, wanted, exact=True):
        if time.monotonic() > deadline:
            raise DeploymentError(f"{party} was started as process {process.pid} but does not show its mark in /proc")
        time.sleep(0.001)


_children: list["subprocess.Popen[bytes]"] = []
"""Started by this process: they are reaped where it ends them, and are nobody's concern once it has gone."""


def running(folder: Path, party: str | None = None) -> tuple[int, ...]:
    """Return the ids of all live processes of a party, or of all parties of a deployment."""
    if not (_PROC / "self" / "environ").exists():
        raise DeploymentError("processes of a deployment can only be started and stopped on Linux (it needs /proc)")
    wanted = f"{MARK}={_mark(folder, party or '')}".encode()
    return tuple(pid for pid in _own_processes() if _is_marked(pid, wanted, exact=party is not None))


def kill_party(folder: Path, party: str) -> None:
    """End a party as a power cut does: SIGKILL to every process of it."""
    while pids := running(folder, party):
        _signal(pids, signal.SIGKILL)
    _reap()


def stop_parties(folder: Path, party: str | None = None) -> None:
    """End a party or all of them: SIGTERM, and SIGKILL for what is left after ten seconds.

    Raises:
        DeploymentError: Something cannot be ended.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while pids := running(folder, party):
            _signal(pids, number)
            _reap()
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        else:
            _reap()
            return
    raise DeploymentError(f"processes {running(folder, party)} cannot be ended; end them by hand")


def _mark(folder: Path, party: str) -> str:
    return f"{folder.resolve()}:{party}"


def _own_processes() -> list[int]:
    return [int(path.name) for path in _PROC.iterdir() if path.name.isdigit()]


def _is_marked(pid: int, wanted: bytes, *, exact: bool) -> bool:
    try:
        variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        state = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False  # it has ended, or is another user's
    if state == "Z":
        return False
    return any(variable == wanted if exact else variable.startswith(wanted) for variable in variables)


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _reap() -> None:
    _children[:] = [process for process in _children if process.poll() is None]
