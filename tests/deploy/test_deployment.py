"""A deployment over an engine that is played by a list: who is waited for, and what `listen` means."""

import os
import sys

import pytest

from securefed.deploy import processes
from securefed.deploy.deployment import Deployment, Plan

SLEEP = "import time; time.sleep(60)"


class SlowEngine:
    """Sees a site only after it was waited for, as an engine does whose server was started again."""

    def __init__(self):
        self.waited_for, self.submitted = [], []

    def wait(self, folder, plan, sites):
        self.waited_for = list(sites)

    def connected(self, folder, plan):
        return (*self.waited_for, "far")

    def submit(self, folder, plan, sites):
        self.submitted = list(sites)
        return "job-1"


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    processes.stop_parties(tmp_path)


def test_submit_waits_for_the_sites_that_run_here_and_for_no_other(folder):
    plan = Plan("flare", "localhost", 8002, {"near": str(folder / "near"), "down": str(folder / "down"), "far": ""})
    engine = SlowEngine()
    processes.start_party(folder, "near", [sys.executable, "-c", SLEEP], dict(os.environ), folder)
    assert Deployment(folder, plan, engine).submit() == "job-1"
    assert engine.waited_for == ["near"]
    assert engine.submitted == ["near", "far"]
    assert (folder / "job").read_text() == "job-1\n"


@pytest.mark.parametrize(("listen", "port"), [(0, 8002), (9000, 9000)])
def test_a_server_listens_where_its_port_is_forwarded_to(listen, port):
    assert Plan("flower", "127.0.0.1", 8002, {}, listen).server_port == port
