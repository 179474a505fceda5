"""A transport of each kind to four toy sites: in this process, and over each engine with certificates on loopback."""

import importlib.util
import os
import socket
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from engine_toys import ADDRESS, SITES, RelayedTransport, ToyNode

from protocols import InProcessTransport
from securefed.deploy import flare_policy, flare_run, flower_run, processes
from securefed.deploy.flare_policy import harden_server, harden_site
from securefed.deploy.flare_project import provision
from securefed.engines.guard import Guarded
from securefed.engines.names import SITE_SOCKET

ROOT = Path(__file__).resolve().parents[2]
TOY_PATH = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
FLARE_CLASSES = {"server_class": "engine_toys_flare.ToyServer", "site_class": flare_policy.SITE_CLASS}


def require_engine(package):
    """Skip where an engine is not installed; fail where CI=true."""
    if importlib.util.find_spec(package) is None:
        reason = f"{package} is not installed (an extra; docs/dependencies.md)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_node(folder, site):
    """Start a toy site's node; its processes count as the site's own."""
    path = folder / f"{site}.sock"
    command = [sys.executable, str(Path(__file__).parent / "engine_toys.py"), site, str(path)]
    environment = {**os.environ, "PYTHONPATH": TOY_PATH["PYTHONPATH"]}
    processes.start_party(folder, f"{site}-node", command, environment, folder)
    return path


class ToyFlare:
    """Server and four sites of FLARE, provisioned with mutual TLS; one job relays to the test."""

    def __init__(self, folder):
        self.folder = folder
        self.kits = provision(folder, SITES, "localhost", free_port())
        self.environment = {**TOY_PATH, ADDRESS: str(folder / "relay")}
        harden_server(self.kits / "localhost", folder / "storage", FLARE_CLASSES["server_class"])
        for site in SITES:
            harden_site(self.kits / site, FLARE_CLASSES["site_class"])

    def start(self):
        flare_run.start_kit(self.folder, "localhost", self.kits / "localhost", self.environment)
        for site in SITES:
            self.start_site(site)
        flare_run.wait_until_connected(self.folder, self.kits, SITES)

    def start_site(self, site):
        variables = {**self.environment, SITE_SOCKET: str(start_node(self.folder, site))}
        flare_run.start_kit(self.folder, site, self.kits / site, variables)

    def kill_site(self, site):
        for party in (site, f"{site}-node"):
            processes.kill_party(self.folder, party)

    def transport(self):
        transport = RelayedTransport(self.folder / "relay")
        flare_run.write_job(self.folder / "job", SITES, **FLARE_CLASSES)
        flare_run.submit(self.folder, self.kits, self.folder / "job")
        transport.wait(90)
        return transport

    def stop(self):
        processes.stop_parties(self.folder)


def running(package, engine, folder):
    """Start an engine; whatever it has started is ended afterwards."""
    require_engine(package)
    started = engine(folder)
    try:
        started.start()
        yield started
    finally:
        started.stop()


def joined(engine):
    """Reach the sites of an engine by one job."""
    transport = engine.transport()
    yield transport
    transport.close()


@pytest.fixture(scope="session")
def toy_flare(tmp_path_factory):
    yield from running("nvflare", ToyFlare, tmp_path_factory.mktemp("flare"))


@pytest.fixture(scope="session")
def over_flare(toy_flare):
    yield from joined(toy_flare)


@pytest.fixture
def in_process():
    """New sites for every test: half a round's secrets must not outlive it in this process."""
    return InProcessTransport({site: Guarded(lambda site=site: ToyNode(site)) for site in SITES})


class ToyFlower:
    """SuperLink and four SuperNodes with TLS and registered keys; the sites' nodes are processes of their own."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.environment = {**TOY_PATH, ADDRESS: str(folder / "relay")}
        flower_run.make_keys(folder, SITES, "127.0.0.1")
        flower_run.write_app(folder, "engine_toys_flower:server_app()", "securefed.engines.flower:make_client_app()")

    def start(self):
        flower_run.start_link(self.folder, "127.0.0.1", self.port, self.environment)
        flower_run.register(self.folder, SITES)
        for site in SITES:
            socket_path = start_node(self.folder, site)
            link = f"127.0.0.1:{self.port}"
            flower_run.start_node(self.folder, site, link, free_port(), socket_path, self.environment)
        flower_run.wait_until_online(self.folder, SITES)

    def transport(self):
        transport = RelayedTransport(self.folder / "relay")
        flower_run.submit(self.folder)
        transport.wait(120)
        return transport

    def stop(self):
        processes.stop_parties(self.folder)


@pytest.fixture(scope="session")
def toy_flower(tmp_path_factory):
    yield from running("flwr", ToyFlower, tmp_path_factory.mktemp("flower"))


@pytest.fixture(scope="session")
def over_flower(toy_flower):
    yield from joined(toy_flower)
