"""How a driver reaches clients, and the transport of one process."""

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from protocols.stages import Stage

Replies = Iterator[tuple[str, bytes]]
Exchanged = tuple[Replies, Mapping[str, str]]
"""Replies as they come, and {client: short reason} of those that give none, complete once the replies are exhausted."""

CONTRIBUTIONS = (Stage.MASKED_INPUT_COLLECTION, Stage.PLAIN_INPUT_COLLECTION)
"""Stages in which a client trains and contributes."""

_ON_VECTORS = (Stage.ADVERTISE_KEYS, *CONTRIBUTIONS)
"""Stages in which a client's work is hashes of vectors or arithmetic on them, which threads can share; the rest is
Python.
"""

_MORE_HELD = 8
"""Replies, beside one for each worker, that may be held for clients to begin in another order than they are asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long an exchange waits. A matter of speed and of losing slow clients, never of safety.

    Attributes:
        timeout: Seconds after which the exchange ends.
        grace: Seconds that are waited for more once `quorum` replies are there.
        quorum: Share of the clients that were asked, 0 to 1.
    """

    timeout: float = 600.0
    grace: float = 600.0
    quorum: float = 1.0


DEFAULT_PATIENCE: Final = Patience()


class Transport(Protocol):
    """Carries requests to clients and replies back. Knows nothing of the protocol but names of clients and stages.

    Rules: a reply is yielded as soon as it is there; a reply that comes after the exchange has ended is discarded,
    never delivered to a later one; a client without a reply stands in `failures` once the iterator is exhausted.
    """

    def nodes(self) -> Collection[str]:
        """Return the clients that can be reached."""
        ...

    def exchange(self, stage: str, requests: Mapping[str, bytes], *, round_id: int, patience: Patience) -> Exchanged:
        """Send requests and gather replies.

        Args:
            stage: Name of the stage.
            requests: {client: frame}.
            round_id: Round number.
            patience: How long to wait for whom.

        Returns:
            An iterator of (client, reply), and {client: short reason}, complete once the iterator is exhausted.
        """
        ...

    def close(self) -> None:
        """Release what the transport holds."""
        ...


class Handler(Protocol):
    """The receiving end in the same process; `ClientMachine` and `PlainClient` are two."""

    def answer(self, stage: str, data: bytes) -> bytes:
        """Return the reply's frame; refusals are frames too."""
        ...


class InProcessTransport:
    """Calls the clients of this process: one after the other, or in threads where they work on vectors.

    Args:
        clients: {name: handler}.
        drops: {(name, round): stage}: that client is lost from that stage of that round on; later rounds find it well
            again. In a plain round a client that is lost at a stage up to MaskedInputCollection does not contribute,
            one that is lost later does: the survivors are the same as under masks.
        workers: Clients that train, encode and mask at the same time, each in a thread of its own; 1 starts no thread.
            Their handlers must then bear calls from several threads. Replies come in the order of the requests either
            way, and no more than one more than this many are held.
        weights: {name: what a contribution takes, in any unit}: those that take longest begin first, so that threads
            end at about the same time. For that a few more replies are held.
    """

    def __init__(
        self,
        clients: Mapping[str, Handler],
        drops: Mapping[tuple[str, int], str] | None = None,
        *,
        workers: int = 1,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self._clients = dict(clients)
        self._workers = workers
        self._weights = weights or {}
        self._drops = {key: Stage(stage) for key, stage in (drops or {}).items()}

    def nodes(self) -> Collection[str]:
        """Return the clients' names."""
        return tuple(self._clients)

    def exchange(self, stage: str, requests: Mapping[str, bytes], *, round_id: int, patience: Patience) -> Exchanged:
        """Call each client as the iterator reaches it, or a few ahead of it: few replies are held at a time."""
        del patience  # nobody is waited for in one process
        failures: dict[str, str] = {}
        reached = self._reached(stage, requests, round_id, failures)
        if self._workers > 1 and stage in _ON_VECTORS:
            return self._in_threads(stage, reached), failures
        return ((name, self._clients[name].answer(stage, request)) for name, request in reached), failures

    def reached(self, stage: str, requests: Mapping[str, bytes], round_id: int) -> tuple[str, ...]:
        """Return the clients that an exchange of these requests reaches, in their order."""
        return tuple(name for name, _ in self._reached(stage, requests, round_id, {}))

    def _reached(self, stage: str, requests: Mapping[str, bytes], round_id: int, failures: dict[str, str]) -> Replies:
        """Yield the requests that reach their clients."""
        for name, request in requests.items():
            lost = self._drops.get((name, round_id))
            if name not in self._clients:
                failures[name] = "unknown"
            elif lost is not None and lost.rank <= Stage(stage).rank:
                failures[name] = "dropped"
            else:
                yield name, request

    def _in_threads(self, stage: str, reached: Replies) -> Replies:
        with ThreadPoolExecutor(self._workers) as threads:

            def call(name: str, request: bytes) -> Future[bytes]:
                return threads.submit(self._clients[name].answer, stage, request)

            window = list(islice(reached, self._workers + (_MORE_HELD if self._weights else 1)))
            longest_first = sorted(window, key=lambda item: -self._weights.get(item[0], 0.0))
            futures = {name: call(name, request) for name, request in longest_first}
            called = deque((name, futures.pop(name)) for name, _ in window)
            try:
                while called:
                    first, reply = called.popleft()
                    yield first, reply.result()
                    called.extend((name, call(name, request)) for name, request in islice(reached, 1))
            finally:
                for _, future in called:  # nobody takes their replies any more
                    future.cancel()

    def close(self) -> None:
        """Nothing is held."""
