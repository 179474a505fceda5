"""How a driver reaches clients, and the transport of one process."""

from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

from protocols.stages import Stage

Replies = Iterator[tuple[str, bytes]]


class Transport(Protocol):
    """Carries requests to clients and replies back. Knows nothing of the protocol but names of clients and stages.

    Rules: a reply is yielded as soon as it is there; a reply that comes after the exchange has ended is discarded,
    never delivered to a later one; a client without a reply stands in `failures` once the iterator is exhausted.
    """

    def nodes(self) -> Collection[str]:
        """Return the clients that can be reached."""
        ...

    def exchange(
        self,
        stage: str,
        requests: Mapping[str, bytes],
        *,
        round_id: int,
        timeout: float,
        quorum: int,
        grace: float,
    ) -> tuple[Replies, Mapping[str, str]]:
        """Send requests and gather replies.

        Args:
            stage: Name of the stage.
            requests: {client: frame}.
            round_id: Round number.
            timeout: Seconds after which the exchange ends.
            quorum: Replies after which only `grace` seconds are waited for more. A matter of speed, never of safety.
            grace: Seconds.

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
    """Calls the clients of this process one after the other.

    Args:
        clients: {name: handler}.
        drops: {(name, round): stage}: that client is lost from that stage of that round on; later rounds find it well
            again. In a plain round a client that is lost at a stage up to MaskedInputCollection does not contribute,
            one that is lost later does: the survivors are the same as under masks.
    """

    def __init__(self, clients: Mapping[str, Handler], drops: Mapping[tuple[str, int], str] | None = None) -> None:
        self._clients = dict(clients)
        self._drops = {key: Stage(stage) for key, stage in (drops or {}).items()}

    def nodes(self) -> Collection[str]:
        """Return the clients' names."""
        return tuple(self._clients)

    def exchange(
        self,
        stage: str,
        requests: Mapping[str, bytes],
        *,
        round_id: int,
        timeout: float,
        quorum: int,
        grace: float,
    ) -> tuple[Replies, Mapping[str, str]]:
        """Call each client as the iterator reaches it: one reply is held at a time."""
        del timeout, quorum, grace  # nobody is waited for in one process
        failures: dict[str, str] = {}
        return self._answers(stage, requests, round_id, failures), failures

    def _answers(self, stage: str, requests: Mapping[str, bytes], round_id: int, failures: dict[str, str]) -> Replies:
        for name, request in requests.items():
            lost = self._drops.get((name, round_id))
            if name not in self._clients:
                failures[name] = "unknown"
            elif lost is not None and lost.rank <= Stage(stage).rank:
                failures[name] = "dropped"
            else:
                yield name, self._clients[name].answer(stage, request)

    def close(self) -> None:
        """Nothing is held."""
