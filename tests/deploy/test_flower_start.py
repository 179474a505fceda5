"""Starts over Flower that fail: the cause is said, and at once."""

import os
import socket
import ssl
import sys
import threading
import time

import pytest

from securefed.deploy import certificates, flower_run, processes
from securefed.deploy.errors import DeploymentError

SLEEP = "import time; time.sleep(60)"
A_MINUTE_AGO = -1 / (24 * 60)


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    processes.stop_parties(tmp_path)


def play(folder, party, code):
    processes.start_party(folder, party, [sys.executable, "-c", code], dict(os.environ), folder)


def free_port():
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return line.getsockname()[1]


def test_a_server_that_ends_at_once_is_not_waited_for(folder):
    certificates.make_authority_and_server(folder / "keys", "127.0.0.1")
    play(folder, "server", "exit('Address already in use')")
    began = time.monotonic()
    with pytest.raises(DeploymentError, match="server has ended: Address already in use"):
        flower_run._wait_for_health("127.0.0.1", free_port(), folder, "server")
    assert time.monotonic() - began < 30


def test_a_site_that_ends_at_once_is_not_waited_for(folder, monkeypatch):
    monkeypatch.setattr(flower_run, "online", lambda folder: ())
    play(folder, "north", "exit('port 8003 is taken')")
    with pytest.raises(DeploymentError, match="north has ended: port 8003 is taken"):
        flower_run.wait_until_online(folder, ["north"])


def test_a_certificate_that_has_expired_is_named(folder, monkeypatch):
    monkeypatch.setattr(certificates, "VALID_DAYS", A_MINUTE_AGO)
    certificates.make_authority_and_server(folder / "keys", "127.0.0.1")
    play(folder, "server", SLEEP)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "keys" / "server.crt", folder / "keys" / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            line, _ = listener.accept()
            try:
                context.wrap_socket(line, server_side=True).close()
            except OSError:
                line.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DeploymentError, match=r"no valid certificate of .*keys: certificate has expired; how"):
            flower_run._wait_for_health("127.0.0.1", listener.getsockname()[1], folder, "server")
        thread.join()
    assert processes.running(folder) == ()
