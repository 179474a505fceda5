"""What is put between the parts of a deployment to measure it: a TCP proxy that counts bytes, and gates before nodes.

The proxy stands between the sites' engine and the server, and counts what passes on sockets, TLS included. A gate
stands between a site's engine and its node, counts the frames that pass, and can cut a party's power at a named stage.
"""

import asyncio
import bisect
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from protocols.wire import decode_frame
from securefed.config import STAGES
from securefed.engines.guard import Guarded
from securefed.engines.local_socket import SiteServer, call
from securefed.nodes.numbering import training_round

_CHUNK = 1 << 16
_ANSWER_SECONDS = 3600.0


class CountingProxy:
    """Passes TCP connections on and remembers when how many bytes went which way.

    Args:
        listen: Port on 127.0.0.1 that the sites know.
        target: Port on 127.0.0.1 at which the server listens.
    """

    def __init__(self, listen: int, target: int) -> None:
        self._listen, self._target = listen, target
        self._passed: dict[str, tuple[list[float], list[int]]] = {"up": ([], [0]), "down": ([], [0])}
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError(f"the proxy cannot listen on port {self._listen}")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def bytes(self, way: str, after: float = 0.0, until: float = float("inf")) -> int:
        """Return the bytes that went `up` (to the server) or `down` in after < time <= until (seconds since 1970)."""
        times, totals = self._passed[way]
        return totals[bisect.bisect_right(times, until)] - totals[bisect.bisect_right(times, after)]

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run())
        self._loop.close()

    async def _run(self) -> None:
        self._stopped = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            with contextlib.suppress(asyncio.CancelledError):  # the end of the trial
                await self._join(reader, writer)
            tasks.discard(task)

        server = await asyncio.start_server(connect, "127.0.0.1", self._listen)
        self._ready.set()
        await self._stopped.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the server is gone: a reset is the nearest to the refusal that there were without a proxy
            line = writer.get_extra_info("socket")
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return
        self.connections += 1
        try:
            await asyncio.gather(
                self._carry(reader, far_writer, "up"), self._carry(far_reader, writer, "down"), return_exceptions=True
            )
        finally:
            writer.close()
            far_writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        times, totals = self._passed[way]
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                totals.append(totals[-1] + len(chunk))
                times.append(time.time())
                writer.write(chunk)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()


@dataclass(frozen=True)
class Passed:
    """One request that went through a gate.

    Attributes:
        site: The site.
        stage: Stage of the protocol, or of the messages beside the rounds.
        round: Round of training; None beside the rounds.
        came, left: When the request came and the reply left, seconds since 1970.
        down, up: Bytes of request and reply.
    """

    site: str
    stage: str
    round: int | None
    came: float
    left: float
    down: int
    up: int


@dataclass
class Gates:
    """The gates of all sites.

    Attributes:
        passed: Everything that was answered.
        all_came: ((site, stage, round), when the request came), answered or not.
        on_request: Called with (site, stage, round) before a request is passed on; it may end the site.
    """

    passed: list[Passed] = field(default_factory=list)
    all_came: list[tuple[tuple[str, str, int | None], float]] = field(default_factory=list)
    on_request: Callable[[str, str, int | None], None] = lambda _site, _stage, _round: None
    _servers: list[SiteServer] = field(default_factory=list)

    def open(self, site: str, path: Path, node: Path) -> None:
        """Listen at `path` and pass on to the node at the socket `node`."""
        server = SiteServer(path, Guarded(lambda: _Gate(self, site, node)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._servers.append(server)

    def close(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Gate:
    def __init__(self, gates: Gates, site: str, node: Path) -> None:
        self._gates, self._site, self._node = gates, site, node

    def answer(self, stage: str, data: bytes) -> bytes:
        number = training_round(decode_frame(data, len(data))[0].round) if stage in STAGES else None
        came = time.time()
        self._gates.all_came.append(((self._site, stage, number), came))
        self._gates.on_request(self._site, stage, number)
        reply = call(self._node, stage, data, _ANSWER_SECONDS)
        self._gates.passed.append(Passed(self._site, stage, number, came, time.time(), len(data), len(reply)))
        return reply
