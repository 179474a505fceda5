"""Starts over Flower that fail: the cause is said, and at once."""

import json
import socket
import ssl
import threading
import time

import pytest
from cryptography import x509

from securefed.deploy import certificates, flower_run, processes
from securefed.deploy.errors import DeploymentError
from securefed.deploy.flower_engine import FlowerEngine
from securefed.deploy.plan import Plan
from tests.deploy.parties import play

SLEEP = "import time; time.sleep(60)"
KEPT_OUT = "[code: 2004] Failed to activate SuperNode.\nhttps://flower.ai/docs"
A_MINUTE_AGO = -1 / (24 * 60)


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


class Remembering:
    """A SuperLink that let a site's SuperNode in so many seconds ago and takes it for online."""

    def __init__(self, folder, ago):
        (folder / "nodes.json").write_text('{"north": "7"}')
        self.ago = ago

    def flwr(self, folder, *arguments):
        return {"nodes": [{"node-id": "7", "status": "online", "online-elapsed": self.ago}]}


def test_a_node_that_the_link_lets_in_no_second_time_is_not_online(folder, monkeypatch):
    """Stopped and started again within a minute: the link still sees the former one, and the new one ends."""
    monkeypatch.setattr(flower_run, "flwr", Remembering(folder, ago=50.0).flwr)
    play(folder, "north", f"import time; time.sleep(1); exit({KEPT_OUT!r})")
    assert flower_run.online(folder) == ()
    with pytest.raises(DeploymentError, match=rf"north was kept out: .* deploy flower start {folder} north"):
        flower_run.wait_until_online(folder, ["north"])
    assert flower_run.online(folder) == ()


def test_a_node_is_online_that_was_let_in_since_it_was_started_or_was_not_started_here(folder, monkeypatch):
    link = Remembering(folder, ago=50.0)
    monkeypatch.setattr(flower_run, "flwr", link.flwr)
    assert flower_run.online(folder) == ("north",)
    play(folder, "north", SLEEP)
    link.ago = 0.0
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
        with pytest.raises(DeploymentError, match=r"no valid certificate of .*keys: certificate has expired"):
            flower_run._wait_for_health("127.0.0.1", listener.getsockname()[1], folder, "server")
        thread.join()
    assert processes.running(folder) == ()


@pytest.mark.parametrize(
    ("host", "listen", "bind", "here", "link"),
    [
        ("192.0.2.1", 9000, "0.0.0.0", "127.0.0.1", "127.0.0.1:9000"),
        ("127.0.0.1", 0, "127.0.0.1", "127.0.0.1", "127.0.0.1:8002"),
    ],
)
def test_a_server_behind_a_firewall_is_reached_here_at_an_address_of_its_own(
    folder, monkeypatch, host, listen, bind, here, link
):
    plan = Plan("flower", host, 8002, {"near": str(folder / "near")}, listen)
    commands, asked = {}, []
    monkeypatch.setattr(flower_run, "_program", lambda name: name)
    monkeypatch.setattr(flower_run, "start_party", lambda _, party, command, *more: commands.update({party: command}))
    monkeypatch.setattr(flower_run, "_wait_for_health", lambda *arguments: asked.append(arguments[:2]))
    monkeypatch.setattr("securefed.deploy.flower_engine.register", lambda *_: None)
    FlowerEngine().make(folder, plan)
    FlowerEngine().start_server(folder, plan, {})
    FlowerEngine().start_site(folder, plan, "near", folder / "near" / "node.sock")
    assert commands["server"][1:5] == ["--host", bind, "--port", str(plan.server_port)]
    assert asked == [(here, plan.server_port)]
    assert f'address = "{link}"' in (folder / "home" / "lead" / "flower" / "config.toml").read_text()
    assert commands["near"][1:3] == ["--superlink", link]
    assert commands["near"][-1] == str(plan.server_port + 1)


def test_the_servers_certificate_is_for_its_host_and_for_its_own_machine(tmp_path):
    host = ".".join(["long" * 15] * 4)
    Plan("flower", host, 8002, {"far": ""}).check()
    certificates.make_authority_and_server(tmp_path, host)
    certificate = x509.load_pem_x509_certificate((tmp_path / "server.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [host, "localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


PLANNED = ("alder", "birch", "cedar", "hazel")


class Link:
    """Registers each key once and for all, as Flower does; can be cut off after a key was registered."""

    def __init__(self):
        self.keys, self.cut_at, self.left = [], "", []

    def flwr(self, folder, *arguments):
        if arguments[1] == "list":
            states = {**dict.fromkeys(self.left, "unregistered"), **dict.fromkeys(self.keys, "registered")}
            return {"nodes": [{"node-id": f"{key} 1", "status": status} for key, status in states.items()]}
        site = arguments[2].rpartition("/")[2].removesuffix(".pub")
        if site in self.keys:
            raise DeploymentError("flwr supernode register: Public key already in use")
        self.keys.append(site)
        if site == self.cut_at:
            raise KeyboardInterrupt
        return {"node-id": f"{site} 1"}


@pytest.fixture
def link(monkeypatch):
    link = Link()
    monkeypatch.setattr(flower_run, "flwr", link.flwr)
    return link


@pytest.mark.parametrize("site", PLANNED)
def test_a_registration_that_was_interrupted_is_gone_on_with(folder, link, site):
    link.cut_at = site
    with pytest.raises(KeyboardInterrupt):
        flower_run.register(folder, PLANNED)
    assert flower_run.register(folder, PLANNED)
    assert json.loads((folder / "nodes.json").read_text()) == {site: f"{site} 1" for site in PLANNED}
    assert not flower_run.register(folder, PLANNED)


@pytest.mark.parametrize("damage", ["", '{"alder": "al', "\0\0", "[]"])
def test_nodes_whose_file_was_damaged_are_found_again(folder, link, damage):
    flower_run.register(folder, PLANNED)
    (folder / "nodes.json").write_text(damage)
    assert flower_run.online(folder) == ()
    assert flower_run.register(folder, PLANNED)
    assert json.loads((folder / "nodes.json").read_text()) == {site: f"{site} 1" for site in PLANNED}


def test_a_link_with_more_nodes_than_sites_is_refused(folder, link):
    link.keys = [*PLANNED, "stranger"]
    with pytest.raises(DeploymentError, match=r"nodes of nobody: .*stranger 1; `init` another"):
        flower_run.register(folder, PLANNED)


def test_a_node_that_was_taken_out_is_of_no_site_and_no_stranger(folder, link):
    link.left = ["former", "other"]
    flower_run.register(folder, PLANNED)
    assert json.loads((folder / "nodes.json").read_text()) == {site: f"{site} 1" for site in PLANNED}
