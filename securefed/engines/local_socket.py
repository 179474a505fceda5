"""A site's node behind a Unix socket: what an engine starts at a hospital delivers to it and holds nothing.

The node lives in a process of the hospital's own, started by its administrator: models, features and the protocol's
secrets stay there, are loaded once and outlive the engine's jobs. What an engine starts, and whatever code it was
handed, can only deliver (stage, bytes) and take the reply. Run as another user than the engine's, the node's files are
out of its reach altogether.

A request is the length of the stage's name (2 bytes), that of the data (8 bytes, little-endian), both, then the end of
the stream; the reply is the bytes up to the end of the stream.
"""

import errno
import logging
import os
import socket
import socketserver
import stat
import struct
import threading
from pathlib import Path
from typing import Any, Final

from securefed.engines.guard import Guarded
from securefed.engines.names import NO_REPLY, SITE_SOCKET

_HEAD: Final = struct.Struct("<HQ")
_MOST_STAGE: Final = 64
_MOST_DATA: Final = 1 << 31
_STALLED_SECONDS: Final = 60.0
_LONGEST_ANSWER_SECONDS: Final = 3600.0
_MOST_LINES: Final = 64
"""Requests at a time; an engine has one or two under way."""

_log = logging.getLogger("securefed.site")


class SiteServer(socketserver.ThreadingUnixStreamServer):
    """Answers on a socket that only its owner (and the owner's group, where the folder lets it in) can reach.

    Args:
        path: The socket; a left-over one is replaced. At most 107 bytes, as Unix has it.
        node: The site's node.

    Raises:
        OSError: Something else than a socket is there, or a socket on which somebody answers; or it cannot be made.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: Path, node: Guarded) -> None:
        _clear(path)
        self.node = node
        self._places = threading.BoundedSemaphore(_MOST_LINES)
        super().__init__(str(path), _Request)
        path.chmod(0o660)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a line in a thread of its own; one too many waits until another has ended."""
        self._places.acquire()
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve it and give up its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()


def _clear(path: Path) -> None:
    """Delete the socket that a node which was killed has left, and nothing else; raises OSError."""
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise FileExistsError(errno.EEXIST, "is there and is no socket; name another path", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(1)
        try:
            line.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, "another node listens there; stop it, or name another path", str(path))


class _Request(socketserver.BaseRequestHandler):
    server: SiteServer

    def handle(self) -> None:
        line: socket.socket = self.request
        line.settimeout(_STALLED_SECONDS)
        try:
            stage_bytes, data_bytes = _HEAD.unpack(_receive(line, _HEAD.size))
            if stage_bytes > _MOST_STAGE or data_bytes > _MOST_DATA:
                return
            stage = _receive(line, stage_bytes).decode("ascii")
            data = _receive(line, data_bytes)
            if line.recv(1):
                return
            line.settimeout(None)
            line.sendall(self.server.node.answer(stage, data))
        except (OSError, ValueError):
            return  # it hung up or spoke nonsense; the next one is served


def deliver(stage: str, data: bytes) -> bytes:
    """Return the reply of the node that this site's administrator has named in the environment, or NO_REPLY."""
    try:
        return call(Path(os.environ[SITE_SOCKET]), stage, data, _LONGEST_ANSWER_SECONDS)
    except Exception as error:  # noqa: BLE001 (engines would send its text to the server)
        _log.warning("the site's node does not answer: %s", type(error).__name__)
        return NO_REPLY


def call(path: Path, stage: str, data: bytes, seconds: float) -> bytes:
    """Deliver one request to a site's node and return its reply.

    Raises:
        OSError: The node does not listen, hung up, or took longer than `seconds`.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(seconds)
        line.connect(str(path))
        name = stage.encode("ascii")
        line.sendall(_HEAD.pack(len(name), len(data)) + name)
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        reply = bytearray()
        while part := line.recv(1 << 20):
            reply += part
    if not reply:
        raise ConnectionResetError("the node hung up")
    return bytes(reply)


def _receive(line: socket.socket, size: int) -> bytes:
    received = bytearray()  # grows with what comes: a size alone costs its sender nothing
    while len(received) < size:
        part = line.recv(min(size - len(received), 1 << 20))
        if not part:
            raise ConnectionResetError("cut short")
        received += part
    return bytes(received)
