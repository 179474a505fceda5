"""A deployment: one folder with all that an engine and the server need, and what is started from it on this machine."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

from audit.signing_key import load_key
from protocols.transport import Patience
from securefed.deploy.errors import DeploymentError
from securefed.deploy.node_process import SOCKET_NAME
from securefed.deploy.processes import running, start_party, stop_parties
from securefed.engines.names import SERVER_FOLDER
from securefed.engines.server_folder import ServerFolder
from securefed.nodes.start import StudyStart
from securefed.study import read_approval, read_study

SERVER: Final = "server"
_FILE: Final = "deployment.json"
_ENDED: Final = ("completed", "failed")
_LISTENS_SECONDS: Final = 180.0


@dataclass(frozen=True)
class Plan:
    """What was decided when the deployment was made.

    Attributes:
        engine: flare or flower.
        host: How the sites call the server.
        port: The only port at which the sites reach the server.
        sites: {site: its folder on this machine, or "" where it is elsewhere}.
        listen: Port at which the server listens, where a firewall forwards `port` to it; 0: at `port`.
    """

    engine: str
    host: str
    port: int
    sites: Mapping[str, str]
    listen: int = 0

    @property
    def server_port(self) -> int:
        """Port at which the server listens."""
        return self.listen or self.port


class Engine(Protocol):
    """What a deployment asks of an engine's adapter (flare_engine, flower_engine)."""

    def make(self, folder: Path, plan: Plan) -> None:
        """Make certificates, keys and policies."""
        ...

    def start_server(self, folder: Path, plan: Plan, variables: Mapping[str, str]) -> None:
        """Start the server's side; `variables` go into its environment."""
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


class Deployment:
    """A deployment's folder.

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
            ConfigError: The study or an approval cannot be read.
        """
        if folder.exists() and any(folder.iterdir()):
            raise DeploymentError(f"{folder} holds something already; name a new folder")
        agreed = read_study(study)
        StudyStart(agreed, [read_approval(path) for path in approvals], load_key(key)).check()
        strangers = sorted(set(plan.sites) ^ set(agreed.roster.hospitals))
        if strangers:
            raise DeploymentError(f"not the hospitals of the study's roster: {', '.join(strangers)}")
        deployment = cls(folder, plan, engine)
        server = deployment.server
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

    def start(self, parties: Sequence[str] = ()) -> None:
        """Start the server and the sites whose folders are on this machine, or the named parties of them.

        Raises:
            DeploymentError: A party is unknown, running already, or does not come up.
        """
        local = [site for site, path in self.plan.sites.items() if path]
        chosen = parties or [SERVER, *local]
        for party in chosen:
            if party not in (SERVER, *local):
                raise DeploymentError(f"{party} has no folder on this machine; here are: {', '.join([SERVER, *local])}")
        sites = [party for party in chosen if party != SERVER]
        sockets = {site: self._start_node(site) for site in sites}
        if SERVER in chosen:
            self._engine.start_server(self.folder, self.plan, {SERVER_FOLDER: str(self.server.path)})
        for site, path in sockets.items():
            self._wait_for_node(site, path)
            self._engine.start_site(self.folder, self.plan, site, path)
        self._engine.wait(self.folder, self.plan, sites)

    def submit(self) -> str:
        """Start the study, or go on with it, with all sites that are connected; return the engine's id of the job.

        Sites that run on this machine are waited for: after a restart of the server they need a while to come back.
        """
        here = [site for site, path in self.plan.sites.items() if path and running(self.folder, site)]
        self._engine.wait(self.folder, self.plan, here)
        sites = self._engine.connected(self.folder, self.plan)
        job = self._engine.submit(self.folder, self.plan, [site for site in self.plan.sites if site in sites])
        (self.folder / "job").write_text(job + "\n", encoding="utf-8")
        return job

    def status(self) -> dict[str, Any]:
        """Return parties and processes, the engine's state of the job, and the last line of the server's journal."""
        parties = [SERVER, *self.plan.sites]
        job = self.folder / "job"
        lines = list(self.progress())
        return {
            "engine": self.plan.engine,
            "processes": {party: len(self._processes(party)) for party in parties},
            "connected": list(self._engine.connected(self.folder, self.plan)),
            "job": self._engine.state(self.folder, self.plan, job.read_text().strip()) if job.exists() else None,
            "progress": lines[-1] if lines else None,
        }

    def progress(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of the server's journal so far."""
        if self.server.progress.exists():
            for line in self.server.progress.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    yield json.loads(line)

    def watch(self, seconds: float = 0.5) -> Iterator[dict[str, Any]]:
        """Yield the journal's lines as they come, until the study has ended."""
        seen = 0
        while True:
            lines = list(self.progress())
            yield from lines[seen:]
            if lines and len(lines) > seen and lines[-1]["event"] in _ENDED:
                return
            seen = len(lines)
            time.sleep(seconds)

    def stop(self, parties: Sequence[str] = ()) -> None:
        """End all processes on this machine, or those of the named parties."""
        for party in parties:
            for name in (party, _node(party)):
                stop_parties(self.folder, name)
        if not parties:
            stop_parties(self.folder)

    def _processes(self, party: str) -> tuple[int, ...]:
        return (*running(self.folder, party), *running(self.folder, _node(party)))

    def _start_node(self, site: str) -> Path:
        """Start the process of a site's node; return the socket on which it is going to listen."""
        home = Path(self.plan.sites[site])
        path = home / SOCKET_NAME
        path.unlink(missing_ok=True)
        root = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-m", "cli", "deploy", "node", str(home)]
        start_party(self.folder, _node(site), command, environment, self.folder)
        return path

    def _wait_for_node(self, site: str, path: Path) -> None:
        deadline = time.monotonic() + _LISTENS_SECONDS
        while not path.exists():
            if time.monotonic() > deadline or not running(self.folder, _node(site)):
                log = self.folder / "logs" / f"{_node(site)}.log"
                said = log.read_text(encoding="utf-8").strip().splitlines()
                raise DeploymentError(f"the node of {site} does not start: {said[-1] if said else log}")
            time.sleep(0.1)


def _node(party: str) -> str:
    return f"{party}-node"
