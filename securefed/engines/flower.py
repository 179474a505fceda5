"""Flower 1.41 or 1.42 (Message API): the transport in a ServerApp, and a ClientApp that only delivers.

A SuperNode starts a process for every message, so that the ClientApp holds nothing: it hands (stage, bytes) to the
site's node behind a Unix socket (local_socket.py) and carries the reply back. Frames travel as arrays of bytes, which
Flower cuts into chunks; the masked vectors would be slow otherwise.
"""

import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from securefed.engines.exchange import EngineTransport, Lost
from securefed.engines.guard import refusal
from securefed.engines.local_socket import deliver
from securefed.engines.names import FLOWER_NODES

_ACTION: Final = "query.answer"
_POLL_SECONDS: Final = 0.1


class FlowerCourier:
    """Pushes messages to registered nodes and pulls their replies.

    Args:
        grid: Flower's.
        nodes: {site: id of its node}, from the registration of the nodes' keys.
    """

    def __init__(self, grid: Grid, nodes: Mapping[str, int]) -> None:
        self._grid = grid
        self._nodes = dict(nodes)

    def nodes(self) -> Collection[str]:
        """Return the registered sites that Flower thinks are online; for a minute it thinks so of a dead one."""
        online = set(self._grid.get_node_ids())
        return tuple(site for site, node in self._nodes.items() if node in online)

    def send(self, stage: str, requests: Mapping[str, bytes], *, round_id: int, lifetime: float) -> "FlowerMail":
        """Push one message a site; Flower drops it when its lifetime is over."""
        messages = [
            Message(
                pack(request, stage),
                dst_node_id=self._nodes[site],
                message_type=_ACTION,
                ttl=lifetime,
                group_id=str(round_id),
            )
            for site, request in requests.items()
        ]
        return FlowerMail(self._grid, dict(zip(requests, self._grid.push_messages(messages), strict=True)))


class FlowerMail:
    """Messages on their way. Replies are matched by the message that they answer, never by a sender's word."""

    def __init__(self, grid: Grid, sent: Mapping[str, str]) -> None:
        self._grid = grid
        self._refused = [site for site, message in sent.items() if not message]
        self._site_of = {message: site for site, message in sent.items() if message}

    def collect(self, seconds: float) -> Iterable[tuple[str, object]]:
        """Return what has come; wait a little where nothing has."""
        arrived: list[tuple[str, object]] = [(site, Lost("not online")) for site in self._refused]
        self._refused = []
        if self._site_of:
            for message in self._grid.pull_messages(list(self._site_of)):
                site = self._site_of.pop(message.metadata.reply_to_message_id, None)
                if site is not None:
                    arrived.append((site, _content(message)))
        if not arrived:
            time.sleep(min(seconds, _POLL_SECONDS))
        return arrived

    def abandon(self) -> None:
        """Nobody pulls the rest any more, and Flower drops it when its lifetime is over."""


def pack(frame: bytes, stage: str) -> RecordDict:
    """Return the content of a message."""
    array = ArrayRecord({"bytes": Array(np.frombuffer(frame, dtype=np.uint8))})
    return RecordDict({"frame": array, "stage": ConfigRecord({"name": stage})})


def unpack(content: Any) -> tuple[str, bytes]:
    """Return (stage, frame) of a message's content."""
    return str(content["stage"]["name"]), content["frame"]["bytes"].numpy().tobytes()


def _content(message: Any) -> object:
    if message.has_error():
        return Lost(f"Flower's code {message.error.code}")
    try:
        return unpack(message.content)[1]
    except (KeyError, TypeError, ValueError, AttributeError):
        return Lost("a reply of another shape")


def make_server_app(serve: Callable[[EngineTransport], None]) -> Any:
    """Return a ServerApp that runs `serve` over a transport to the registered sites."""
    app = ServerApp()

    def main(grid: Grid, context: Context) -> None:
        del context
        nodes = json.loads(Path(os.environ[FLOWER_NODES]).read_text(encoding="utf-8"))
        serve(EngineTransport(FlowerCourier(grid, {site: int(node) for site, node in nodes.items()})))

    app.main()(main)
    return app


def make_client_app() -> Any:
    """Return the ClientApp that delivers to the site's node."""
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        del context
        try:
            stage, frame = unpack(message.content)
            reply = deliver(stage, frame)
        except Exception as error:  # noqa: BLE001 (Flower would send its text to the server)
            stage, reply = "", refusal(error)
        return Message(pack(reply, stage), reply_to=message)

    app.query("answer")(answer)
    return app
