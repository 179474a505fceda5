"""A study on loopback, whole: hospitals that approve it, server and sites as processes, a proxy and gates between."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from deployment_taps import CountingProxy, Gates

from audit.accounting import Adjacency
from audit.ledger import Budget, BudgetLine, Ledger, Policy
from protocols.transport import Patience
from securefed.deploy.deployment import SERVER, Deployment, Engine
from securefed.deploy.flare_engine import FlareEngine
from securefed.deploy.flower_engine import FlowerEngine
from securefed.deploy.plan import Plan
from securefed.deploy.processes import kill_party, running
from securefed.errors import SecureFedError
from securefed.study import read_study

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
ENGINES: Mapping[str, Callable[[], Engine]] = {"flare": FlareEngine, "flower": FlowerEngine}
HOSTS = {"flare": "localhost", "flower": "127.0.0.1"}


def securefed(*arguments: object, folder: Path = ROOT, code: int = 0) -> str:
    """Run a command of SecureFed in a process of its own and return what it prints."""
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    result = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if result.returncode != code:
        said = (result.stdout + result.stderr)[-3000:]
        raise RuntimeError(f"securefed {' '.join(command[2:5])} ended with {result.returncode}: {said}")
    return result.stdout


@dataclass(frozen=True)
class Source:
    """What is trained on.

    Attributes:
        data: A folder with metadata.csv and one folder a site.
        encoder: Name of the encoder.
        cache: Feature cache of the runs in one process.
        seed: Seed of all runs.
    """

    data: Path
    encoder: str
    cache: Path
    seed: int

    def rows(self) -> list[dict[str, str]]:
        """Return the manifest's rows."""
        with (self.data / "metadata.csv").open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def sites(self) -> list[str]:
        """Return the names of the sites."""
        return sorted({row["site"] for row in self.rows()})

    def in_one_process(self, output: Path, rounds: int, select: str, drops: Sequence[str] = ()) -> str:
        """Return the digest of the model of the same study in one process, with the same losses."""
        shutil.rmtree(output, ignore_errors=True)
        lost = [word for drop in drops for word in ("--drop", drop)]
        securefed("simulate", "--data", self.data, "--encoder", self.encoder, "--cache-dir", self.cache,
                      "--rounds", rounds, "--seed", self.seed, "--device", "cpu", "--workers", 1,
                      "--set", f"federation.select={select}", *lost, "--output", output, "--quiet")  # fmt: skip
        return str(json.loads((output / "summary.json").read_text())["fam_sha256"])


class Hospitals:
    """Hospitals that have approved a study, each with nothing but its own images; made once, copied for each trial."""

    def __init__(
        self, folder: Path, source: Source, rounds: int, select: str, *settings: str, budget: float = 0.0
    ) -> None:
        self.folder, self.source, self.sites, self._budget = folder, source, source.sites(), budget
        if not self._is_made():
            shutil.rmtree(folder, ignore_errors=True)
            self._make(rounds, [f"federation.select={select}", *settings])

    def _is_made(self) -> bool:
        """Return whether there is a study already, and one of this version."""
        try:
            read_study(self.folder / "study.toml")
        except SecureFedError:
            return False
        return True

    def _make(self, rounds: int, settings: Sequence[str]) -> None:
        rows = self.source.rows()
        encoder = ("--encoder", self.source.encoder)
        for site in self.sites:
            own = self.folder.parent / "images" / site
            if not own.exists():
                own.mkdir(parents=True)
                (own / site).symlink_to(self.source.data / site)
                with (own / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
                    writer = csv.DictWriter(stream, list(rows[0]))
                    writer.writeheader()
                    writer.writerows(row for row in rows if row["site"] == site)
            self.folder.mkdir(parents=True, exist_ok=True)
            securefed("site", "init", self.folder / site, "--name", site, "--data", own, *encoder, "--device", "cpu")
            features = self.folder.parent / "features" / site
            if features.exists():
                shutil.copytree(features, self.folder / site / "features", dirs_exist_ok=True)
        securefed("keys", "new", "server", "--folder", self.folder)
        publics = [self.folder / site / "identity.pub" for site in self.sites]
        roster = self.folder / "roster.json"
        securefed("keys", "roster", roster, "--server", self.folder / "server.pub", *publics)
        classes = [word for label in sorted({row["label"] for row in rows}) for word in ("--class", label)]
        study = self.folder / "part.toml"
        said = securefed("study", "init", study, "--roster", roster, "--name", "acceptance", *classes, *encoder,
                         "--rounds", rounds, "--seed", self.source.seed,
                         *(word for setting in settings for word in ("--set", setting)))  # fmt: skip
        for site in self.sites:
            if self._budget:
                set_budget(self.folder / site, site, self._budget)
            approval = self.folder / f"{site}.approval.json"
            securefed("site", "approve", self.folder / site, study, "--digest", said.split()[-1], "--output", approval)
            shutil.copytree(self.folder / site / "features", self.folder.parent / "features" / site, dirs_exist_ok=True)
        study.rename(self.folder / "study.toml")

    def copy(self, folder: Path) -> dict[str, Path]:
        """Return {site: a fresh copy of its folder}."""
        for site in self.sites:
            shutil.copytree(self.folder / site, folder / site)
        return {site: folder / site for site in self.sites}


class GatedEngine:
    """An engine whose sites call the server through the proxy, as from elsewhere, and deliver to gates before nodes."""

    def __init__(self, engine: Engine, gates: Gates, folder: Path) -> None:
        self._engine, self._gates, self._folder = engine, gates, folder
        self._open: dict[str, Path] = {}

    def start_site(self, folder: Path, plan: Plan, site: str, socket_path: Path) -> None:
        """Start a site's side, which delivers to its gate and calls the port that sites elsewhere know."""
        if site not in self._open:
            self._open[site] = self._folder / f"{len(self._open)}.sock"
            self._gates.open(site, self._open[site], socket_path)
        self._engine.start_site(folder, replace(plan, listen=0), site, self._open[site])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class Trial:
    """A deployment at work.

    Attributes:
        deployment: The deployment.
        proxy: Counts the bytes between sites and server.
        gates: Between engine and nodes.
        sites: {site: its folder}.
    """

    def __init__(self, deployment: Deployment, proxy: CountingProxy, gates: Gates, sites: Mapping[str, Path]) -> None:
        self.deployment, self.proxy, self.gates, self.sites = deployment, proxy, gates, sites

    @property
    def run_folder(self) -> Path:
        """The server's run folder."""
        return self.deployment.server.run_folder()

    def start_all(self) -> float:
        """Start every party and submit; return the seconds."""
        begin = time.monotonic()
        self.deployment.start()
        self.deployment.submit()
        return time.monotonic() - begin

    def kill(self, party: str) -> None:
        """Cut a party's power: SIGKILL to all of its processes, its node included."""
        kill_party(self.deployment.folder, party)
        if party != SERVER:
            kill_party(self.deployment.folder, f"{party}-node")

    def wait_for(self, words: Sequence[str], seconds: float, count: int = 1) -> list[dict[str, Any]]:
        """Wait until the journal has `count` events of the named kinds; return all of its lines."""
        deadline = time.monotonic() + seconds
        while True:
            lines = list(self.deployment.progress())
            if sum(line["event"] in words for line in lines) >= count:
                return lines
            if time.monotonic() > deadline:
                raise RuntimeError(f"no {words} within {seconds:.0f} s: {lines[-3:]}")
            time.sleep(0.1)

    def summary(self) -> dict[str, Any]:
        """Return summary.json of the server's run folder; a RuntimeError says why there is none."""
        failed = [line["reason"] for line in self.deployment.progress() if line["event"] == "failed"]
        if failed and not (self.run_folder / "summary.json").exists():
            raise RuntimeError(f"the study failed: {failed[-1]} (see {self.deployment.folder / 'logs'})")
        return dict(json.loads((self.run_folder / "summary.json").read_text()))

    def verify(self, roster: Path) -> str:
        """Verify the record against the roster and the heads that the hospitals kept; return what passed."""
        said = securefed("audit", "verify", self.run_folder, *self._evidence(roster))
        return ", ".join(line.split()[1] for line in said.splitlines() if line.startswith("PASS"))

    def report(self, roster: Path, form: str, output: Path) -> Path:
        """Write the report of the run to a folder of its own, beside the signed one, and return it."""
        securefed("audit", "report", self.run_folder, "--format", form, "--output", output, *self._evidence(roster))
        return output / f"report.{form}"

    def _evidence(self, roster: Path) -> list[object]:
        name = f"{self.run_folder.name}.jsonl"
        heads = [word for folder in self.sites.values() for word in ("--heads", folder / "heads" / name)]
        return ["--roster", roster, *heads]


@contextmanager
def deployed(
    engine: str, folder: Path, hospitals: Hospitals, wait: Patience, change: Callable[[Path], None] = lambda _: None
) -> Iterator[Trial]:
    """Make a deployment with a proxy and gates, and leave no process behind.

    Args:
        engine: flare or flower.
        folder: Where to; short, since it holds Unix sockets.
        hospitals: Who takes part.
        wait: How long exchanges wait.
        change: Called with the deployment's folder once it is made.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sites = hospitals.copy(folder / "sites")
    port, listen = free_ports(len(sites) + 1), free_ports(1)
    plan = Plan(engine, HOSTS[engine], port, {site: str(path) for site, path in sites.items()}, listen)
    gates = Gates()
    approvals = [hospitals.folder / f"{site}.approval.json" for site in sites]
    made = Deployment.make(
        folder / "d", plan, GatedEngine(ENGINES[engine](), gates, folder), hospitals.folder / "study.toml", approvals,
        hospitals.folder / "server.key", wait,
    )  # fmt: skip
    change(made.folder)
    with ExitStack() as stack:
        stack.callback(_nothing_left, made)
        stack.callback(gates.close)
        yield Trial(made, stack.enter_context(CountingProxy(port, listen)), gates, sites)


def _nothing_left(deployment: Deployment) -> None:
    deployment.stop()
    if left := running(deployment.folder):
        raise RuntimeError(f"processes are left: {left}")


def free_ports(count: int) -> int:
    """Return the first of `count` consecutive free ports."""
    while True:
        with ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            start = int(first.getsockname()[1])
            try:
                for port in range(start + 1, start + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                continue
            return start


def set_budget(folder: Path, site: str, epsilon: float) -> None:
    """Give a hospital a ledger with a budget at image level."""
    signer = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    path = folder / "ledger.sqlite"
    with Ledger(path) as ledger:
        budget = Budget(epsilon, 1e-5, Adjacency.ADD_OR_REMOVE_ONE, signer)
        ledger.install(Policy({BudgetLine(site, "image"): budget}))
    path.chmod(0o600)


def charges(folder: Path) -> list[str]:
    """Return the states of all charges in a hospital's ledger, one a release."""
    with Ledger.existing(folder / "ledger.sqlite") as ledger:
        return [str(spent.state) for spent in ledger.charges()]
