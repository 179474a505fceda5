"""Processes of a deployment on this machine: started apart from the terminal, found again and ended with certainty.

Every process of a party carries `SECUREFED_PARTY=<folder of the deployment>:<party>` in its environment, and so does
whatever it starts. A party is ended by that mark and not by process groups, since engines put jobs into groups of their
own, and a killed parent leaves orphans. Linux only: the mark is read from /proc.
"""

import math
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

    Orphans of a command of the party that has ended are ended first: they would hold its ports and locks.

    Raises:
        DeploymentError: It is running already, this is no Linux, or /proc does not show the new process.
    """
    if is_alive(folder, party):
        raise DeploymentError(f"{party} is running already; stop it first: deploy ... stop")
    stop_parties(folder, party)
    path = log_of(folder, party)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as log:
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
    part = _pid_file(folder, party).with_suffix(".part")
    part.write_text(f"{process.pid}\n", encoding="utf-8")
    part.replace(_pid_file(folder, party))
    _await_mark(process, folder, party)
    return process.pid


def is_alive(folder: Path, party: str) -> bool:
    """Return whether the command that a party was started with runs; what that has started in turn can outlive it."""
    pids, path = running(folder, party), _pid_file(folder, party)
    started = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    return int(started) in pids if started.isdigit() else bool(pids)


def age(folder: Path, party: str) -> float:
    """Return the seconds since a party's command was started here.

    0 where it has ended by itself; inf where it was never started here, or stopped since.
    """
    path = _pid_file(folder, party)
    if not path.exists():
        return math.inf
    if not is_alive(folder, party):
        return 0.0
    started = path.read_text(encoding="utf-8").strip()
    try:
        fields = (_PROC / started / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:  # it ends this very moment
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_START]) / os.sysconf("SC_CLK_TCK")


def refuse_ended(folder: Path, party: str) -> None:
    """Raise DeploymentError, with the last line of its log, where the command of a party has ended."""
    if not is_alive(folder, party):
        said = last_words(folder, party)
        raise DeploymentError(f"{party} has ended: {said} (all that it said: {log_of(folder, party)})")


def last_words(folder: Path, party: str) -> str:
    """Return the last line of a party's log, its last 500 characters at most."""
    path = log_of(folder, party)
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    return next((line.strip()[-500:] for line in reversed(lines) if line.strip()), "it has left no word")


def log_of(folder: Path, party: str) -> Path:
    """Return the file with all that a party's processes print."""
    return folder / "logs" / f"{party}.log"


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


_START = 19
"""Place of the start, in ticks since the machine was booted, among the fields of /proc/PID/stat after the command."""

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


def stop_parties(folder: Path, party: str | None = None, *, spared: str = "") -> None:
    """End a party, or all of them but one: SIGTERM, and SIGKILL for what is left after ten seconds.

    Each process gets either once: a second SIGTERM would end one that takes its leave.

    Raises:
        DeploymentError: Something cannot be ended.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline, told = time.monotonic() + _PATIENCE_SECONDS, set[int]()
        while pids := sorted(set(running(folder, party)) - set(running(folder, spared) if spared else ())):
            _signal([pid for pid in pids if pid not in told], number)
            told.update(pids)
            _reap()
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        else:
            _reap()
            ended = [_pid_file(folder, party)] if party else (folder / "logs").glob("*.pid")
            for path in ended:
                if path != _pid_file(folder, spared):
                    path.unlink(missing_ok=True)
            return
    raise DeploymentError(f"processes {running(folder, party)} cannot be ended; end them by hand")


def _pid_file(folder: Path, party: str) -> Path:
    return folder / "logs" / f"{party}.pid"


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
