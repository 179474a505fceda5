"""A deployment: one folder with all that an engine and the server need, and what is started from it on this machine."""

import json
import os
import shutil
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, Protocol, Self, TypeVar

from audit.durable import write_whole
from audit.signing_key import load_key
from protocols.transport import Patience
from securefed.deploy.errors import DeploymentError
from securefed.deploy.node_process import SOCKET_NAME
from securefed.deploy.plan import Plan, check_patience
from securefed.deploy.processes import is_alive, log_of, refuse_ended, running, start_party, stop_parties
from securefed.engines.names import SERVER_FOLDER
from securefed.engines.server_folder import ServerFolder
from securefed.locks import locked
from securefed.nodes.owed import is_owed
from securefed.nodes.start import StudyStart
from securefed.study import read_approval, read_study

P = ParamSpec("P")
T = TypeVar("T")

SERVER: Final = "server"
_LOCK: Final = ".lock"
_FILE: Final = "deployment.json"
_BEFORE_JOB: Final = "lines_before_job"
"""File that holds how many lines the journal had when the last job was submitted."""
_ENDED: Final = ("completed", "failed")
_CREDENTIALS: Final = struct.Struct("3i")
"""Process, user and group at the other end of a Unix socket, as Linux tells them."""
_UNKNOWN: Final = "unknown"
_LISTENS_SECONDS: Final = 180.0
_SILENT_SECONDS: Final = 30.0
"""How long the journal may say nothing before the engine is asked whether the job is still there."""


class Engine(Protocol):
    """What a deployment asks of an engine's adapter (flare_engine, flower_engine)."""

    def make(self, folder: Path, plan: Plan) -> None:
        """Make certificates, keys and policies."""
        ...

    def start_server(self, folder: Path, plan: Plan, variables: Mapping[str, str]) -> None:
        """Start the server's side; `variables` go into its environment."""
        ...

    def admit(self, folder: Path, plan: Plan) -> bool:
        """Have a server whose start was interrupted know all sites; return whether one was news to it."""
        ...

    def start_site(self, folder: Path, plan: Plan, site: str, socket_path: Path) -> None:
        """Start a site's side, which delivers to the node behind the socket."""
        ...

    def wait(self, folder: Path, plan: Plan, sites: Sequence[str]) -> None:
        """Wait until the sites are connected; raises DeploymentError where they are not in time."""
        ...

    def submit(self, folder: Path, plan: Plan, sites: Sequence[str]) -> str:
        """Start the study at the server and the given sites; return the engine's id of the job."""
        ...

    def connected(self, folder: Path, plan: Plan) -> tuple[str, ...]:
        """Return the sites that the engine sees as connected."""
        ...

    def state(self, folder: Path, plan: Plan, job: str) -> str:
        """Return the engine's word for a job's state."""
        ...


def _alone(command: Callable[Concatenate["Deployment", P], T]) -> Callable[Concatenate["Deployment", P], T]:
    """Have a command refuse where another one changes the deployment: two starts would end each other's processes."""

    @wraps(command)
    def alone(self: "Deployment", /, *arguments: P.args, **named: P.kwargs) -> T:
        with locked(self.folder / _LOCK) as held:
            if not held:
                raise DeploymentError(
                    f"another `deploy {self.plan.engine} start`, `submit` or `stop` of {self.folder} is under way; "
                    "wait until it has ended, or end it"
                )
            return command(self, *arguments, **named)

    return alone


class Deployment:
    """A deployment's folder; `start`, `submit` and `stop` run one at a time.

    Args:
        folder: The folder.
        plan: Its plan.
        engine: The engine's adapter.
    """

    def __init__(self, folder: Path, plan: Plan, engine: Engine) -> None:
        self.folder, self.plan, self._engine = folder.absolute(), plan, engine
        self.server = ServerFolder(self.folder / SERVER)

    @classmethod
    def make(
        cls, folder: Path, plan: Plan, engine: Engine, study: Path, approvals: Sequence[Path], key: Path, wait: Patience
    ) -> Self:
        """Make a deployment of an approved study.

        Raises:
            DeploymentError: An approval is missing, the key is another one, the folder is in use, the engine refuses.
            ConfigError: The study or an approval cannot be read, or a setting cannot be meant.
            RunFolderError: A site's folder is none.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DeploymentError(f"{folder} holds something already; name a new folder")
        plan.check()
        check_patience(wait)
        agreed = read_study(study)
        StudyStart(agreed, [read_approval(path) for path in approvals], load_key(key)).check()
        strangers = sorted(set(plan.sites) ^ set(agreed.roster.hospitals))
        if strangers:
            raise DeploymentError(f"not the hospitals of the study's roster: {', '.join(strangers)}")
        deployment = cls(folder, plan, engine)
        server = deployment.server
        with _whole_or_empty(folder):
            server.approvals.mkdir(parents=True, mode=0o700)
            folder.chmod(0o700)
            shutil.copyfile(study, server.study)
            shutil.copy(key, server.key)
            for path in approvals:
                approval = read_approval(path)
                (server.approvals / f"{approval.hospital}.json").write_bytes(approval.encode())
            server.patience.write_text(json.dumps(asdict(wait)) + "\n", encoding="utf-8")
            engine.make(deployment.folder, plan)
            (folder / _FILE).write_text(json.dumps(asdict(plan), indent=1) + "\n", encoding="utf-8")
        return deployment

    @staticmethod
    def read_plan(folder: Path) -> Plan:
        """Return the plan of a folder; raises DeploymentError where there is none."""
        try:
            return Plan(**json.loads((folder / _FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DeploymentError(f"{folder} is no deployment; make one with: deploy ENGINE init") from error

    @_alone
    def start(self, parties: Sequence[str] = ()) -> None:
        """Start the server and the sites whose folders are on this machine, or the named parties of them.

        What runs already is left as it is: of a site whose node was killed, only the node is started; of a server whose
        start was interrupted, the rest is done. What a killed command has left behind is ended.

        Raises:
            DeploymentError: A party is unknown, all of them are running already, one does not come up, or another
                command is under way.
        """
        chosen = self._here(parties)
        sites = [party for party in chosen if party != SERVER]
        missing = {name for name in (*chosen, *map(_node, sites)) if not is_alive(self.folder, name)}
        runs = SERVER not in missing and is_alive(self.folder, SERVER)
        admitted = runs and self._engine.admit(self.folder, self.plan)
        if not missing and not admitted:
            stop = " ".join([self._call("stop"), *dict.fromkeys(parties)])
            raise DeploymentError(f"{', '.join(chosen)}: running already; to start anew, first: {stop}")
        nodes = {site: self._start_node(site) for site in sites if _node(site) in missing}
        if SERVER in missing:
            self._engine.start_server(self.folder, self.plan, {SERVER_FOLDER: str(self.server.path)})
        for site in sites:
            if site in nodes:
                self._wait_for_node(site, nodes[site])
            if site in missing:
                self._engine.start_site(self.folder, self.plan, site, self._socket(site))
        self._engine.wait(self.folder, self.plan, sites)

    @_alone
    def submit(self) -> str:
        """Start the study, or go on with it, with all sites that are connected; return the engine's id of the job.

        Sites that run on this machine are waited for: after a restart of the server they need a while to come back.

        Raises:
            DeploymentError: The server has ended, the study runs, or is completed, lacks no countersignature and owes
                nobody the model, or no hospital is connected.
            EvidenceError, RunFolderError: The record of a completed study is damaged.
        """
        if log_of(self.folder, SERVER).exists() and not is_alive(self.folder, SERVER):
            raise DeploymentError(f"the server has ended; start it with: {self._call('start')} {SERVER}, then submit")
        before = list(self.progress())
        if self.server.is_in_use() or self._is_on_its_way(len(before)):
            raise DeploymentError(f"the study is running already; follow it with: {self._call('status')} --watch")
        if before and before[-1]["event"] == "completed":
            run = self.server.run_folder()
            if not is_owed(run):
                raise DeploymentError(f"the study is completed, its results are in {run}; another run is another study")
        here = [site for site, path in self.plan.sites.items() if path and is_alive(self.folder, site)]
        self._engine.wait(self.folder, self.plan, here)
        sites = self._engine.connected(self.folder, self.plan)
        if not sites:
            raise DeploymentError(
                f"no hospital is connected; start the server and the hospitals, then look with: {self._call('status')}"
            )
        job = self._engine.submit(self.folder, self.plan, [site for site in self.plan.sites if site in sites])
        write_whole(self.folder / _BEFORE_JOB, [f"{len(before)}\n".encode()])
        (self.folder / "job").write_text(job + "\n", encoding="utf-8")
        return job

    def status(self) -> dict[str, Any]:
        """Return parties and processes, the engine's state of the job, and the last line of the server's journal."""
        parties = [SERVER, *self.plan.sites]
        lines = list(self.progress())
        return {
            "engine": self.plan.engine,
            "processes": {party: len(self._processes(party)) for party in parties},
            "connected": list(self._engine.connected(self.folder, self.plan)),
            "job": self._job_state(),
            "progress": lines[-1] if lines else None,
        }

    def progress(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of the server's journal so far."""
        return self.server.journal()

    def watch(self, seconds: float = 0.5) -> Iterator[dict[str, Any]]:
        """Yield the journal's lines as they come, until the study, as it was last submitted, has ended.

        Raises:
            DeploymentError: Nothing was submitted, the job has ended and left no word of it, or its server has ended.
        """
        seen, asked = 0, time.monotonic()
        earlier, over = self._lines_before_job(), ""
        while True:
            lines = list(self.progress())
            yield from lines[seen:]
            if len(lines) > earlier and lines[-1]["event"] in _ENDED:
                return
            if not lines and not (self.folder / "job").exists():
                over = f"nothing was submitted; start the study with: {self._call('submit')}"
            if over:
                raise DeploymentError(over)
            if len(lines) > seen:
                asked = time.monotonic()
            elif time.monotonic() - asked > _SILENT_SECONDS:
                over = self._why_over()
                asked = time.monotonic()
            seen = len(lines)
            time.sleep(seconds)

    @_alone
    def stop(self, parties: Sequence[str] = ()) -> None:
        """End all processes on this machine, or those of the named parties; raises DeploymentError as `start` does.

        The server ends last: a site that could not take its leave of it would be kept out as if it were still there.
        """
        if not parties:
            stop_parties(self.folder, spared=SERVER)
            stop_parties(self.folder)
            return
        for party in sorted(self._here(parties), key=lambda party: party == SERVER):
            for name in (party, _node(party)):
                stop_parties(self.folder, name)

    def _here(self, parties: Sequence[str]) -> tuple[str, ...]:
        """Return the named parties, or all of this machine; raises DeploymentError where one is not of them."""
        local = [SERVER, *(site for site, path in self.plan.sites.items() if path)]
        for party in parties:
            if party not in local:
                raise DeploymentError(f"{party} has no folder on this machine; here are: {', '.join(local)}")
        return tuple(dict.fromkeys(parties)) or tuple(local)

    def _why_over(self) -> str:
        """Return why no line will come into the journal any more, and what to do; "" where one may."""
        state = (self._job_state() or _UNKNOWN).lower()
        if not state.startswith(("finished", _UNKNOWN)):
            return ""
        if self.server.is_in_use() and is_alive(self.folder, SERVER):
            return ""
        if state.startswith("finished"):
            return f"the job has ended without a word; look into {self.folder / 'logs'}, then submit"
        again = f"start it with: {self._call('start')} {SERVER}, then go on with: {self._call('submit')}"
        return f"the server does not answer, and the study does not run; {again}"

    def _lines_before_job(self) -> int:
        try:
            return int((self.folder / _BEFORE_JOB).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there, or damaged: all that the journal has counts
            return 0

    def _is_on_its_way(self, lines: int) -> bool:
        """Return whether the last job has yet to write into the journal: engines take their time to start one."""
        state = self._job_state() if lines == self._lines_before_job() else None
        return state is not None and not state.lower().startswith(("finished", _UNKNOWN))

    def _job_state(self) -> str | None:
        """Return the engine's word for the last job's state; None where there is no job."""
        job = self.folder / "job"
        if not job.exists():
            return None
        try:
            return self._engine.state(self.folder, self.plan, job.read_text(encoding="utf-8").strip())
        except DeploymentError:
            return f"{_UNKNOWN}: the server does not answer; start it with: {self._call('start')} {SERVER}"

    def _call(self, verb: str) -> str:
        return f"deploy {self.plan.engine} {verb} {self.folder}"

    def _processes(self, party: str) -> tuple[int, ...]:
        return (*running(self.folder, party), *running(self.folder, _node(party)))

    def _start_node(self, site: str) -> Path:
        """Start the process of a site's node; return the socket on which it is going to listen."""
        path = self._socket(site)
        root = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-m", "cli", "deploy", "node", str(path.parent)]
        start_party(self.folder, _node(site), command, environment, self.folder)
        return path

    def _socket(self, site: str) -> Path:
        return Path(self.plan.sites[site]) / SOCKET_NAME

    def _wait_for_node(self, site: str, path: Path) -> None:
        deadline = time.monotonic() + _LISTENS_SECONDS
        while not _listens(path, running(self.folder, _node(site))):
            refuse_ended(self.folder, _node(site))
            if time.monotonic() > deadline:
                raise DeploymentError(f"the node of {site} does not listen on {path}; look into {self.folder / 'logs'}")
            time.sleep(0.1)


def _node(party: str) -> str:
    return f"{party}-node"


def _listens(path: Path, pids: Sequence[int]) -> bool:
    """Return whether one of the processes listens on a socket: it may be left over, or another deployment's."""
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(str(path))
        except OSError:
            return False
        listener, _, _ = _CREDENTIALS.unpack(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return listener in pids


@contextmanager
def _whole_or_empty(folder: Path) -> Iterator[None]:
    """Make a folder in a block, and leave it as it was, absent or empty, where that fails."""
    existed = folder.exists()
    try:
        yield
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if existed:
            folder.mkdir(exist_ok=True)
        if isinstance(error, OSError):
            raise DeploymentError(f"{folder} cannot be made ({error}); name a writable place") from error
        raise
