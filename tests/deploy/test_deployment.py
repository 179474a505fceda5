"""A deployment over an engine that is played by a list: who is waited for, and what `listen` means."""

import json
import os
import sys
import threading
from pathlib import Path

import pytest

from protocols.transport import Patience
from securefed.deploy import deployment as deployment_module
from securefed.deploy import processes
from securefed.deploy.deployment import Deployment
from securefed.deploy.errors import DeploymentError
from securefed.deploy.plan import Plan, check_patience
from securefed.errors import ConfigError, RunFolderError
from securefed.locks import locked

SLEEP = "import time; time.sleep(60)"
LISTEN = """
import os, socket, sys, time
if os.path.exists(sys.argv[1]):
    os.unlink(sys.argv[1])
line = socket.socket(socket.AF_UNIX)
line.bind(sys.argv[1])
line.listen()
time.sleep(60)
"""


class SlowEngine:
    """Sees a site only after it was waited for, as an engine does whose server was started again."""

    def __init__(self):
        self.waited_for, self.submitted, self.started, self.unknown = [], [], [], False

    def wait(self, folder, plan, sites):
        self.waited_for = list(sites)

    def connected(self, folder, plan):
        return (*self.waited_for, "far")

    def submit(self, folder, plan, sites):
        self.submitted = list(sites)
        return "job-1"

    def start_server(self, folder, plan, variables):
        self.started.append("server")

    def admit(self, folder, plan):
        news, self.unknown = self.unknown, False
        return news

    def start_site(self, folder, plan, site, socket_path):
        self.started.append(site)

    def state(self, folder, plan, job):
        return "FINISHED:COMPLETED"


def test_submit_waits_for_the_sites_that_run_here_and_for_no_other(folder):
    plan = Plan("flare", "localhost", 8002, {"near": str(folder / "near"), "down": str(folder / "down"), "far": ""})
    engine = SlowEngine()
    processes.start_party(folder, "near", [sys.executable, "-c", SLEEP], dict(os.environ), folder)
    assert Deployment(folder, plan, engine).submit() == "job-1"
    assert engine.waited_for == ["near"]
    assert engine.submitted == ["near", "far"]
    assert (folder / "job").read_text() == "job-1\n"


def write_journal(deployment, *events):
    deployment.server.path.mkdir(exist_ok=True)
    with deployment.server.progress.open("a") as stream:
        stream.writelines(json.dumps({"event": event}) + "\n" for event in events)


@pytest.fixture
def far(folder):
    """A deployment whose only site is elsewhere, and connected."""
    return Deployment(folder, Plan("flare", "localhost", 8002, {"far": ""}), SlowEngine())


def test_a_study_that_runs_or_is_completed_is_not_submitted_again(far, monkeypatch):
    far.server.path.mkdir()
    with locked(far.server.lock), pytest.raises(DeploymentError, match=r"running already; .* status .* --watch"):
        far.submit()
    write_journal(far, "started", "failed")
    assert far.submit() == "job-1"
    far.server.run_folder = lambda: far.folder / "run"
    write_journal(far, "started", "completed")
    with pytest.raises(DeploymentError, match="the study is completed, its results are in"):
        far.submit()
    monkeypatch.setattr(deployment_module, "is_owed", lambda run: True)  # its record does not verify yet
    assert far.submit() == "job-1"


def test_a_study_is_not_submitted_to_a_server_that_was_killed(far):
    processes.start_party(far.folder, "server", [sys.executable, "-c", SLEEP], dict(os.environ), far.folder)
    assert far.submit() == "job-1"
    processes.kill_party(far.folder, "server")
    far.server.path.mkdir()
    with locked(far.server.lock), pytest.raises(DeploymentError, match=r"the server has ended; .* server, then submit"):
        far.submit()


@pytest.mark.parametrize(("state", "refused"), [("RUNNING", True), ("pending", True), ("FINISHED:ABANDONED", False)])
def test_a_job_that_has_yet_to_begin_is_not_followed_by_another(far, monkeypatch, state, refused):
    monkeypatch.setattr(SlowEngine, "state", lambda *_: state)
    far.submit()
    if refused:
        with pytest.raises(DeploymentError, match="running already"):
            far.submit()
    else:
        assert far.submit() == "job-1"
    write_journal(far, "started")  # from here on the lock says whether it is at work
    assert far.submit() == "job-1"


def test_a_study_without_any_hospital_is_not_submitted(far, monkeypatch):
    monkeypatch.setattr(SlowEngine, "connected", lambda *_: ())
    with pytest.raises(DeploymentError, match="no hospital is connected; start the server"):
        far.submit()


def test_who_watches_after_a_second_submit_waits_for_its_end(far):
    write_journal(far, "started", "failed")
    assert [line["event"] for line in far.watch()] == ["started", "failed"]
    far.submit()
    later = threading.Timer(0.3, write_journal, (far, "started", "completed"))
    later.start()
    assert [line["event"] for line in far.watch(0.01)] == ["started", "failed", "started", "completed"]
    later.join()


@pytest.mark.parametrize("damage", ["", "two", "\0\0"])
def test_a_damaged_count_of_lines_hides_no_journal(far, damage):
    far.submit()
    write_journal(far, "started", "failed")
    (far.folder / "lines_before_job").write_text(damage)
    assert [line["event"] for line in far.watch(0.01)] == ["started", "failed"]
    assert far.submit() == "job-1"
    assert (far.folder / "lines_before_job").read_text() == "2\n"
    assert not list(far.folder.glob("*.part"))


@pytest.mark.parametrize("command", ["start", "submit", "stop"])
def test_one_command_at_a_time_changes_a_deployment(far, monkeypatch, command):
    refused = []

    def wait(engine, *_):
        with pytest.raises(DeploymentError, match=r"another `deploy flare start`, .* of .* is under way"):
            getattr(far, command)()
        refused.append(command)

    monkeypatch.setattr(SlowEngine, "wait", wait)
    far.start()
    assert refused == [command]
    far.stop()


def test_who_watches_a_job_that_ends_without_a_word_is_told(far, monkeypatch):
    monkeypatch.setattr(deployment_module, "_SILENT_SECONDS", 0.05)
    write_journal(far, "started")
    far.submit()
    with pytest.raises(DeploymentError, match="ended without a word"):
        list(far.watch(0.01))


def test_who_watches_what_was_never_submitted_is_told(far):
    with pytest.raises(DeploymentError, match=r"nothing was submitted; start the study with: deploy flare submit"):
        list(far.watch(0.01))


def begin_and_fall_silent(far, monkeypatch, reason):
    """Submit a study that has begun when its engine answers no more."""

    def silent(*_):
        raise DeploymentError(reason)

    monkeypatch.setattr(deployment_module, "_SILENT_SECONDS", 0.01)
    far.submit()
    write_journal(far, "started")
    monkeypatch.setattr(SlowEngine, "state", silent)


def test_who_watches_a_study_whose_server_was_killed_is_told_how_to_go_on(far, monkeypatch):
    begin_and_fall_silent(far, monkeypatch, "connection refused")
    again = r"does not answer, and the study does not run; start it with: .* server, then go on with: .* submit"
    with locked(far.server.lock), pytest.raises(DeploymentError, match=again):  # an orphan can hold the lock
        list(far.watch(0.01))


def test_who_watches_a_study_that_runs_waits_for_a_server_that_is_slow_to_answer(far, monkeypatch):
    begin_and_fall_silent(far, monkeypatch, "flwr ls did not end within 180 s")
    processes.start_party(far.folder, "server", [sys.executable, "-c", SLEEP], dict(os.environ), far.folder)
    with locked(far.server.lock):
        later = threading.Timer(0.5, write_journal, (far, "completed"))
        later.start()
        assert [line["event"] for line in far.watch(0.01)] == ["started", "completed"]
    later.join()


def test_only_parties_that_there_are_can_be_stopped(near):
    with pytest.raises(DeploymentError, match="nears has no folder on this machine; here are: server, near"):
        near.stop(["nears"])


@pytest.mark.parametrize("named", [(), ("server", "near")])
def test_the_server_ends_when_the_sites_have_taken_leave_of_it(near, named):
    server = near.folder / "logs" / "server.pid"
    leave = (
        "import os, signal, sys, time\n"
        f"def leave(*_): os.kill(int(open({str(server)!r}).read()), 0); open('left', 'w'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, leave); open('up', 'w'); time.sleep(60)"
    )
    for party, code in (("server", SLEEP), ("near", leave)):
        processes.start_party(near.folder, party, [sys.executable, "-c", code], dict(os.environ), near.folder)
    while not (near.folder / "up").exists():
        processes.refuse_ended(near.folder, "near")
    near.stop(named)
    assert (near.folder / "left").exists()
    assert processes.running(near.folder) == ()


def test_the_state_of_a_server_that_does_not_answer_hides_nothing_else(far, monkeypatch):
    def silent(*_):
        raise DeploymentError('{"raw": "json"}')

    write_journal(far, "started")
    far.submit()
    monkeypatch.setattr(SlowEngine, "state", silent)
    status = far.status()
    assert status["progress"] == {"event": "started"}
    assert status["job"].startswith("unknown: the server does not answer; start it with: deploy flare start")


def plays_node(monkeypatch, code):
    """Have another program stand for the nodes that are started."""

    def start_party(folder, party, command, environment, directory):
        path = Path(command[-1]) / "node.sock"
        return processes.start_party(folder, party, [sys.executable, "-c", code, str(path)], environment, directory)

    monkeypatch.setattr(deployment_module, "start_party", start_party)


@pytest.fixture
def near(folder, monkeypatch):
    """A deployment of one site here, whose node is a process that listens on its socket and sleeps."""
    plays_node(monkeypatch, LISTEN)
    (folder / "near").mkdir()
    return Deployment(folder, Plan("flare", "localhost", 8002, {"near": str(folder / "near")}), SlowEngine())


def test_a_deployment_that_runs_is_not_touched_by_a_second_start(near):
    near.start()
    for party in ("server", "near"):  # an engine that is played by a list starts no process
        processes.start_party(near.folder, party, [sys.executable, "-c", SLEEP], dict(os.environ), near.folder)
    socket = near.folder / "near/node.sock"
    made = socket.stat()
    with pytest.raises(DeploymentError, match="server, near: running already; to start anew, first: deploy flare stop"):
        near.start()
    with pytest.raises(DeploymentError, match=rf"server: running already; .*: deploy flare stop {near.folder} server$"):
        near.start(["server"])
    assert socket.stat() == made
    assert near._engine.started == ["server", "near"]


def test_a_server_whose_start_was_interrupted_is_made_to_know_its_sites(far):
    processes.start_party(far.folder, "server", [sys.executable, "-c", SLEEP], dict(os.environ), far.folder)
    far._engine.unknown = True
    far.start(["server"])
    assert (far._engine.unknown, far._engine.started) == (False, [])
    with pytest.raises(DeploymentError, match="server: running already"):
        far.start(["server"])


def test_of_a_site_whose_node_was_killed_only_the_node_is_started(near):
    near.start()
    processes.start_party(near.folder, "near", [sys.executable, "-c", SLEEP], dict(os.environ), near.folder)
    (before,) = processes.running(near.folder, "near-node")
    processes.kill_party(near.folder, "near-node")
    near.start(["near", "near"])
    (after,) = processes.running(near.folder, "near-node")
    assert after != before
    assert near._engine.started == ["server", "near"]


def test_a_second_deployment_of_a_site_leaves_its_running_node_alone(near, monkeypatch, tmp_path):
    near.start()
    made = near._socket("near").stat()
    plays_node(monkeypatch, "raise SystemExit('error: in use by another node of this hospital; stop that one')")
    second = Deployment(tmp_path / "second", near.plan, SlowEngine())
    second.folder.mkdir()
    with pytest.raises(DeploymentError, match="near-node has ended: error: in use by another node"):
        second.start()
    assert near._socket("near").stat() == made
    assert deployment_module._listens(near._socket("near"), processes.running(near.folder, "near-node"))
    assert second._engine.started == ["server"]


def test_a_socket_that_a_killed_node_has_left_is_not_taken_for_one_that_listens(near):
    near.start()
    processes.kill_party(near.folder, "near-node")
    assert near._socket("near").exists()
    assert not deployment_module._listens(near._socket("near"), [os.getpid()])


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"port": 99999}, "--port: must be 1 to 65535"),
        ({"port": 0}, "--port"),
        ({"listen": -1}, "--listen"),
        ({"host": ""}, "--host: '' is no name"),
        ({"host": "../up"}, "--host"),
        ({"host": "2001:db8::1"}, "no name or IPv4 address"),
        ({"host": "fl.example.org:8002"}, "and --port"),
        ({"host": "x" * 65}, "--host"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(changes, option):
    values = {"engine": "flare", "host": "localhost", "port": 8002, "sites": {"far": ""}, **changes}
    with pytest.raises(ConfigError, match=option):
        Plan(**values).check()


def test_over_flower_the_sites_of_this_machine_need_ports_too(tmp_path):
    with pytest.raises(ConfigError, match="--port: must be 1 to 65534"):
        Plan("flower", "127.0.0.1", 65535, {"near": str(tmp_path)}).check()


def test_the_folder_of_a_site_must_be_one(tmp_path):
    with pytest.raises(RunFolderError, match="is no hospital's folder"):
        Plan("flare", "localhost", 8002, {"near": str(tmp_path / "none")}).check()


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"timeout": -5.0}, "--timeout"),
        ({"timeout": float("nan")}, "--timeout"),
        ({"timeout": float("inf")}, "--timeout"),
        ({"grace": float("nan")}, "--grace"),
        ({"grace": -1.0}, "--grace"),
        ({"quorum": 7.0}, "--quorum: must be a share of the hospitals, 0 to 1, is 7"),
        ({"quorum": float("nan")}, "--quorum"),
    ],
)
def test_waiting_times_that_cannot_be_meant_are_refused(changes, option):
    with pytest.raises(ConfigError, match=option):
        check_patience(Patience(**changes))


@pytest.mark.parametrize(("listen", "port"), [(0, 8002), (9000, 9000)])
def test_a_server_listens_where_its_port_is_forwarded_to(listen, port):
    assert Plan("flower", "127.0.0.1", 8002, {}, listen).server_port == port
