import math
import os
import signal
import sys
import time

import pytest

from securefed.deploy import processes
from securefed.deploy.errors import DeploymentError

ORPHANS = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print("up", flush=True)
time.sleep(60)
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    for pid in processes.running(tmp_path):
        os.kill(pid, signal.SIGKILL)
    processes.stop_parties(tmp_path)  # nothing is left to stop, and all are waited for


def start(folder, party, code):
    processes.start_party(folder, party, [sys.executable, "-c", code], dict(os.environ), folder)
    log = folder / "logs" / f"{party}.log"
    deadline = time.monotonic() + 30
    while "up" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_party_is_ended_with_the_orphans_that_it_leaves(folder):
    start(folder, "north", ORPHANS)
    start(folder, "south", ORPHANS)
    assert len(processes.running(folder, "north")) == 2
    parent = min(processes.running(folder, "north"))
    os.kill(parent, signal.SIGKILL)
    processes.kill_party(folder, "north")
    assert processes.running(folder, "north") == ()
    assert len(processes.running(folder, "south")) == len(processes.running(folder)) == 2
    processes.stop_parties(folder)
    assert processes.running(folder) == ()


def test_who_ignores_a_request_is_ended_by_force(folder, monkeypatch):
    monkeypatch.setattr(processes, "_PATIENCE_SECONDS", 0.5)
    start(folder, "north", STUBBORN)
    processes.stop_parties(folder, "north")
    assert processes.running(folder) == ()


LEAVING = """
import pathlib, signal, sys, time
def leave(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(0.5)
    pathlib.Path("left").touch()
    sys.exit()
signal.signal(signal.SIGTERM, leave)
print("up", flush=True)
time.sleep(60)
"""
"""As Flower's SuperNode: a second SIGTERM ends it in the middle of its leave."""


def test_who_takes_leave_is_not_asked_twice(folder):
    start(folder, "north", LEAVING)
    processes.stop_parties(folder)
    assert (folder / "left").exists()


def test_one_party_is_spared(folder):
    start(folder, "server", ORPHANS)
    start(folder, "north", ORPHANS)
    processes.stop_parties(folder, spared="server")
    assert processes.running(folder, "north") == ()
    assert len(processes.running(folder, "server")) == 2


def test_the_age_of_a_party_is_that_of_its_command_while_it_runs(folder):
    assert processes.age(folder, "north") == math.inf
    start(folder, "north", ORPHANS)
    assert 0 < processes.age(folder, "north") < 60
    processes.kill_party(folder, "north")
    assert processes.age(folder, "north") == 0
    processes.stop_parties(folder, "north")
    assert processes.age(folder, "north") == math.inf


def test_a_party_is_not_started_twice(folder):
    start(folder, "north", ORPHANS)
    with pytest.raises(DeploymentError, match="running already"):
        processes.start_party(folder, "north", ["true"], {}, folder)


def test_what_a_killed_command_has_left_keeps_it_from_no_new_start(folder):
    start(folder, "north", ORPHANS)
    parent = int((folder / "logs" / "north.pid").read_text())
    (orphan,) = set(processes.running(folder, "north")) - {parent}
    os.kill(parent, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while processes.is_alive(folder, "north"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert processes.running(folder, "north") == (orphan,)
    new = processes.start_party(folder, "north", ["/bin/sleep", "60"], dict(os.environ), folder)
    assert processes.running(folder, "north") == (new,)
    assert processes.is_alive(folder, "north")


def test_of_a_command_that_has_ended_the_last_word_is_told(folder):
    processes.start_party(folder, "north", [sys.executable, "-c", "exit('a\\nport 8002 is taken\\n')"], {}, folder)
    deadline = time.monotonic() + 30
    while processes.is_alive(folder, "north"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(DeploymentError, match=r"north has ended: port 8002 is taken \(all that it said: .*north\.log"):
        processes.refuse_ended(folder, "north")


def test_names_that_begin_alike_are_told_apart(folder):
    start(folder, "north", ORPHANS)
    assert processes.running(folder, "nor") == ()
    assert processes.running(folder.parent) == ()


def test_a_party_is_found_as_soon_as_it_was_started(folder):
    for number in range(50):
        pid = processes.start_party(folder, f"site-{number}", ["/bin/sleep", "60"], dict(os.environ), folder)
        assert processes.running(folder, f"site-{number}") == (pid,)
