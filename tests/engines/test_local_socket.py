"""The door between an engine's short-lived processes and a site's node."""

import socket
import threading

import pytest

from securefed.engines.guard import Guarded
from securefed.engines.local_socket import SiteServer, call, deliver
from securefed.engines.names import NO_REPLY, SITE_SOCKET


class Echo:
    def answer(self, stage, data):
        return stage.encode() + b":" + data


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "node.sock"
    with SiteServer(path, Guarded(Echo)) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield path
        server.shutdown()


def say(path, data):
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        try:
            line.sendall(data)
            line.shutdown(socket.SHUT_WR)
            return line.recv(100)
        except (BrokenPipeError, ConnectionResetError):
            return b""  # the node hung up with bytes unread


def test_requests_of_any_size_come_back(path):
    for size in (0, 1, 3_000_000):
        assert call(path, "ShareKeys", bytes(size), 30) == b"ShareKeys:" + bytes(size)


def test_many_at_once_get_their_own(path):
    replies = {}

    def ask(number):
        replies[number] = call(path, "ShareKeys", b"%d" % number * 50_000, 30)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == {number: b"ShareKeys:" + b"%d" % number * 50_000 for number in range(8)}


def test_nonsense_ends_its_own_line_only(path):
    assert say(path, b"GET / HTTP/1.1\r\n\r\n") == b""
    assert say(path, b"\x01") == b""
    assert say(path, b"\x01\x00" + b"\xff" * 8) == b""
    assert say(path, b"\x01\x00" + bytes(8) + b"\xff") == b""
    assert say(path, b"\x01\x00" + bytes(8) + b"a and more") == b""
    assert call(path, "ShareKeys", b"!", 30) == b"ShareKeys:!"


def test_only_what_a_killed_node_has_left_is_replaced(path, tmp_path):
    with pytest.raises(OSError, match="another node listens there"):
        SiteServer(path, Guarded(Echo))
    assert call(path, "ShareKeys", b"!", 30) == b"ShareKeys:!"
    key = tmp_path / "identity.key"
    key.write_bytes(b"k" * 32)
    with pytest.raises(OSError, match="no socket"):
        SiteServer(key, Guarded(Echo))
    assert key.read_bytes() == b"k" * 32
    left = tmp_path / "left.sock"
    SiteServer(left, Guarded(Echo)).server_close()
    SiteServer(left, Guarded(Echo)).server_close()


def test_a_length_alone_takes_no_memory(path):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        line.sendall(b"\x05\x00" + (1 << 31).to_bytes(8, "little") + b"Hello" + bytes(1000))
        assert call(path, "ShareKeys", b"!", 30) == b"ShareKeys:!"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_others_than_owner_and_group_cannot_connect(path):
    assert path.stat().st_mode & 0o007 == 0


def test_nobody_there_is_an_error_of_the_caller(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        call(tmp_path / "none.sock", "ShareKeys", b"", 1)


@pytest.mark.parametrize("stage", ["ShareKeys", "Hello"])
def test_a_node_that_is_not_there_gives_no_reply_and_no_refusal(tmp_path, monkeypatch, caplog, stage):
    monkeypatch.setenv(SITE_SOCKET, str(tmp_path / "none.sock"))
    assert deliver(stage, b"") == NO_REPLY
    assert "the site's node does not answer: FileNotFoundError" in caplog.text


def test_a_node_that_is_there_is_delivered_to(path, monkeypatch):
    monkeypatch.setenv(SITE_SOCKET, str(path))
    assert deliver("Hello", b"!") == b"Hello:!"


def test_lines_are_limited_in_number_and_one_too_many_is_served_when_another_ends(path):
    began = threading.active_count()
    idle = [socket.socket(socket.AF_UNIX) for _ in range(80)]
    for line in idle:
        line.connect(str(path))
    reply = {}
    late = threading.Thread(target=lambda: reply.update(late=call(path, "ShareKeys", b"late", 30)))
    late.start()
    late.join(0.5)
    assert late.is_alive()
    assert threading.active_count() - began <= 64 + 1
    for line in idle:
        line.close()
    late.join(30)
    assert reply == {"late": b"ShareKeys:late"}
