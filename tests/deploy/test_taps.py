"""The instruments of benchmarks/deployment.py: bytes on sockets are counted exactly, frames too, and power cuts hit."""

import socket
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from deployment_taps import CountingProxy, Gates

from protocols import FixedPointCodec
from protocols.simulator import SimulatedFederation
from securefed.engines.guard import Guarded
from securefed.engines.local_socket import SiteServer, call
from securefed.nodes.control import ControlStage, encode_request


@pytest.fixture
def echo():
    """A server that answers every connection's bytes twice; yields its port."""

    def serve():
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line:
                while data := line.recv(1 << 16):
                    line.sendall(data + data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def exchange(port, data):
    with socket.create_connection(("127.0.0.1", port)) as line:
        answered = bytearray()
        reader = threading.Thread(target=lambda: answered.extend(_all(line)))
        reader.start()
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        reader.join()
        return bytes(answered)


def _all(line):
    found = b""
    while part := line.recv(1 << 16):
        found += part
    return found


def test_every_byte_each_way_is_counted_and_none_is_changed(echo, engines):
    port, data = engines.free_port(), bytes(range(256)) * 4000
    with CountingProxy(port, echo) as proxy:
        assert len(exchange(port, data)) == 2 * len(data)
        between = time.time()
        time.sleep(0.01)
        assert exchange(port, b"one more") == b"one moreone more"
        assert (proxy.bytes("up"), proxy.bytes("down")) == (len(data) + 8, 2 * len(data) + 16)
        assert (proxy.bytes("up", until=between), proxy.bytes("down", after=between)) == (len(data), 16)
        assert proxy.connections == 2


def test_a_proxy_before_a_server_that_is_gone_hangs_up(engines):
    port = engines.free_port()
    with CountingProxy(port, engines.free_port()) as proxy, socket.create_connection(("127.0.0.1", port)) as line:
        with pytest.raises(ConnectionResetError):
            line.recv(1)
        assert proxy.connections == 0


class Counted:
    def answer(self, stage, data):
        return b"r" * 7


def test_a_gate_counts_frames_and_can_cut_a_site_off(tmp_path):
    cohort = SimulatedFederation(4, FixedPointCodec([20], [0.5], 16))
    frame = cohort.server(3, b"model").requests("AdvertiseKeys")["site-000"]
    hello = encode_request(ControlStage.CLOSE_ROUND, {"round": 3, "opened": True, "survivors": [], "best": 0})
    gates = Gates()
    with SiteServer(tmp_path / "n", Guarded(Counted)) as node:
        threading.Thread(target=node.serve_forever, daemon=True).start()
        gates.open("site-000", tmp_path / "g", tmp_path / "n")
        try:
            assert call(tmp_path / "g", "AdvertiseKeys", frame, 10) == b"r" * 7
            call(tmp_path / "g", "CloseRound", hello, 10)
            killed = []

            def kill(site, stage, number):
                killed.append((site, stage, number))
                node.shutdown()
                node.server_close()
                (tmp_path / "n").unlink()

            gates.on_request = kill
            reply = call(tmp_path / "g", "AdvertiseKeys", frame, 10)
        finally:
            gates.close()
    assert reply != b"r" * 7
    assert killed == [("site-000", "AdvertiseKeys", 3)]
    assert [(p.stage, p.round, p.down, p.up) for p in gates.passed] == [
        ("AdvertiseKeys", 3, len(frame), 7),
        ("CloseRound", None, len(hello), 7),
    ]
    assert len(gates.all_came) == 3
