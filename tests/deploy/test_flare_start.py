"""Starts over FLARE that fail, and where the lead's kit calls: no FLARE is needed."""

import json
import os
import signal
import socket
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from securefed.deploy import flare_engine, flare_run, processes
from securefed.deploy.errors import DeploymentError
from securefed.deploy.flare_engine import FlareEngine
from securefed.deploy.flare_project import _project
from securefed.deploy.flare_run import run_kit
from securefed.deploy.plan import Plan
from tests.deploy.parties import play

SLEEP = "import time; time.sleep(60)"
LISTENS = "import socket, time; s = socket.create_server(('', 0)); print('port', s.getsockname()[1]); time.sleep(60)"
LEAVES_A_LISTENER = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-u", "-c", {LISTENS!r}], start_new_session=True)
time.sleep(60)
"""
RETRIES = "import time; print('Retrying in 10 seconds', flush=True); time.sleep(60)"


def silent(*arguments):
    raise DeploymentError("Failed to connect")


def test_a_server_that_ends_at_once_is_not_waited_for(folder, monkeypatch):
    monkeypatch.setattr(flare_run, "_ask", silent)
    play(folder, "server", "exit('no certificate')")
    began = time.monotonic()
    with pytest.raises(DeploymentError, match="server has ended: no certificate"):
        flare_run.wait_until_answering(folder, folder / "kits", "server")
    assert time.monotonic() - began < 30


def test_a_server_that_tries_for_ever_is_named_with_its_last_words(folder, monkeypatch):
    monkeypatch.setattr(flare_run, "_ask", silent)
    play(folder, "server", RETRIES)
    with pytest.raises(DeploymentError, match=r"server does not answer: Retrying in 10 seconds .*server\.log"):
        flare_run.wait_until_answering(folder, folder / "kits", "server", seconds=3)


def test_a_server_that_answers_is_waited_for_no_longer(folder, monkeypatch):
    answers = iter([silent, lambda *arguments: {"data": []}])
    monkeypatch.setattr(flare_run, "_ask", lambda *arguments: next(answers)(*arguments))
    play(folder, "server", SLEEP)
    flare_run.wait_until_answering(folder, folder / "kits", "server")


def test_a_port_that_is_taken_is_named_before_anything_starts(folder):
    with socket.create_server(("", 0)) as line:
        plan = Plan("flare", "fl.example.org", 8002, {}, line.getsockname()[1])
        with pytest.raises(DeploymentError, match=f"port {plan.listen} .*; end what listens there"):
            FlareEngine().start_server(folder, plan, {})
    assert not processes.running(folder)


@pytest.mark.parametrize("name", ["a b", "d'Azur", 'the "north"', "no#1", "a\\b"])
def test_a_path_that_flare_would_split_is_refused_before_anything_starts(name, tmp_path):
    spaced = tmp_path / name / "kit"
    (spaced / "startup").mkdir(parents=True)
    (spaced / "startup" / "sub_start.sh").touch()
    (spaced / "local").mkdir()
    plan = Plan("flare", "fl.example.org", 8002, {}, 8002)
    for start in (
        lambda: FlareEngine().make(tmp_path / name, plan),
        lambda: FlareEngine().start_server(tmp_path / name, plan, {}),
        lambda: FlareEngine().start_site(tmp_path / name, plan, "north", tmp_path / "node.sock"),
        lambda: run_kit(spaced, tmp_path / "node.sock"),
    ):
        with pytest.raises(DeploymentError, match="FLARE runs no job under a path with a space"):
            start()
    assert sorted(path.name for path in (tmp_path / name).rglob("*")) == ["kit", "local", "startup", "sub_start.sh"]


def test_a_python_whose_path_flare_would_split_is_refused_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/srv/l'hopital/bin/python")
    with pytest.raises(DeploymentError, match=r"hopital/bin/python: FLARE runs no job .*environment elsewhere"):
        FlareEngine().make(tmp_path, Plan("flare", "fl.example.org", 8002, {}, 8002))


def test_what_a_killed_server_has_left_does_not_hold_its_port(folder, monkeypatch):
    play(folder, "server", LEAVES_A_LISTENER)
    log = folder / "logs" / "server.log"
    while "port" not in log.read_text():
        time.sleep(0.05)
    port = int(log.read_text().split()[1])
    os.kill(int((folder / "logs" / "server.pid").read_text()), signal.SIGKILL)
    until = time.monotonic() + 30
    while processes.is_alive(folder, "server") and time.monotonic() < until:  # a signal takes its time
        time.sleep(0.01)
    assert not processes.is_alive(folder, "server")
    assert processes.running(folder, "server")
    done = []
    for name in ("harden_server", "start_kit", "wait_until_answering"):
        monkeypatch.setattr(flare_engine, name, lambda *arguments, name=name: done.append(name))
    FlareEngine().start_server(folder, Plan("flare", "fl.example.org", 8002, {}, port), {})
    assert done == ["harden_server", "start_kit", "wait_until_answering"]


@pytest.mark.parametrize(
    ("listen", "host", "port"), [(0, None, None), (9000, "127.0.0.1", 9000), (8002, "127.0.0.1", 8002)]
)
def test_behind_a_firewall_the_lead_calls_the_server_and_not_the_firewall(listen, host, port):
    server, near, lead = _project(["near"], "fl.example.org", 8002, listen)["participants"]
    assert near["connect_to"] == {"host": "fl.example.org", "port": 8002}
    assert server["fed_learn_port"] == (listen or 8002)
    assert lead.get("connect_to", {"host": None, "port": None}) == {"host": host, "port": port}
    assert host in server.get("host_names", [None])


SITES = ("alder", "birch", "cedar", "hazel")


@pytest.fixture
def meta(tmp_path):
    """What FLARE is told of a job of four sites."""
    flare_run.write_job(tmp_path / "job", SITES, server_class="package.Server", site_class="package.Site")
    return json.loads((tmp_path / "job" / "meta.json").read_text())


def test_a_job_is_for_all_sites_that_are_named_and_needs_none_of_them_to_live(meta):
    assert meta["deploy_map"] == {"app": ["server", *SITES]}
    assert (meta["min_clients"], "mandatory_clients" in meta) == (1, False)


@pytest.mark.parametrize(("dead", "ends"), [((), False), (SITES[3:], False), (SITES[1:], False), (SITES, True)])
def test_flare_ends_no_job_because_of_a_site_that_was_lost(engines, meta, dead, ends):
    engines.require_engine("nvflare")
    from nvflare.apis.fl_constant import FLContextKey
    from nvflare.apis.impl.wf_comm_server import WFCommServer

    context = SimpleNamespace(get_prop={FLContextKey.JOB_META: meta}.get)
    monitor = SimpleNamespace(
        _engine=SimpleNamespace(
            new_context=lambda: nullcontext(context), get_clients=lambda: [SimpleNamespace(name=site) for site in SITES]
        ),
        get_client_disconnect_time=lambda site: float(site in dead),
        log_error=lambda *_: None,
    )
    assert WFCommServer._job_policy_violated(monitor) is ends
