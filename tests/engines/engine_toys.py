"""Toy sites and a relay: what runs in the processes of an engine so that one contract suite can drive any transport.

A toy site is a real client machine with a toy contribution, and obeys a few words beside. The relay is what runs in an
engine's server process: it does what the test process says through a socket and knows nothing of the protocol.
"""

import contextlib
import os
import sys
import time
from multiprocessing.connection import Client, Listener
from pathlib import Path

from protocols import FixedPointCodec
from protocols.simulator import SimulatedFederation
from securefed.engines.guard import Guarded
from securefed.engines.local_socket import SiteServer

SITES = ("site-000", "site-001", "site-002", "site-003")
SECRET = "the patient's name"
ADDRESS = "TOY_ADDRESS"
_KEY = b"tests of this machine only"


def federation(length=200):
    """The same federation in every process: its keys come from its seed."""
    return SimulatedFederation(len(SITES), FixedPointCodec([length], [0.5], 16))


class ToyNode:
    def __init__(self, name):
        self.machine = federation().machines[name]

    def answer(self, stage, data):
        if data.startswith(b"SF"):
            return self.machine.answer(stage, data)
        word, _, value = data.partition(b":")
        if word == b"sleep":
            time.sleep(float(value))
        elif word == b"raise":
            raise RuntimeError(SECRET)
        elif word == b"zeros":
            return bytes(int(value))
        elif word == b"length":
            return str(len(value)).encode()
        elif word == b"text":
            return "no bytes"
        return self.machine.name.encode() + b" " + stage.encode() + b" " + data


def relay(transport):
    """Do what the test says until it hangs up."""
    with Client(os.environ[ADDRESS], authkey=_KEY) as line:
        line.send(sorted(transport.nodes()))
        while (order := line.recv()) is not None:
            stage, requests, how = order
            replies, failures = transport.exchange(stage, requests, **how)
            for site, reply in replies:
                line.send((site, reply))
            line.send((None, dict(failures)))


class RelayedTransport:
    """The test's end of the relay: a `Transport`."""

    def __init__(self, address: Path):
        self._listener = Listener(str(address), "AF_UNIX", authkey=_KEY)

    def wait(self, seconds):
        self._listener._listener._socket.settimeout(seconds)
        self._line = self._listener.accept()
        self._nodes = self._line.recv()

    def nodes(self):
        return tuple(self._nodes)

    def exchange(self, stage, requests, **how):
        self._line.send((stage, dict(requests), how))
        failures = {}
        return self._replies(failures), failures

    def _replies(self, failures):
        while True:
            site, reply = self._line.recv()
            if site is None:
                failures.update(reply)
                return
            yield site, reply

    def close(self):
        if hasattr(self, "_line"):
            with contextlib.suppress(OSError):  # the server may be gone
                self._line.send(None)
            self._line.close()
        self._listener.close()


if __name__ == "__main__":  # the process of one site's node
    site, path = sys.argv[1:]
    with SiteServer(Path(path), Guarded(lambda: ToyNode(site))) as server:
        server.serve_forever()
