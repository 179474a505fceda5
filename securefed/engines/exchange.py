"""What both engines' transports share: waiting for replies with timeout, quorum and grace, and the list of suspects."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from protocols.stages import Stage
from protocols.transport import Exchanged, Patience, Replies
from securefed.engines.names import NO_REPLY

POLL_SECONDS: Final = 0.2
"""Longest wait inside a mail before the clock is looked at again."""


@dataclass(frozen=True)
class Lost:
    """An engine's word that no reply will come; `reason` is short and holds nothing that a site has sent."""

    reason: str


class Mail(Protocol):
    """The requests of one exchange on their way. What comes after `abandon` reaches nobody."""

    def collect(self, seconds: float) -> Iterable[tuple[str, object]]:
        """Return what has come since the last call, (site, reply's bytes or Lost); wait at most so many seconds."""
        ...

    def abandon(self) -> None:
        """Stop listening."""
        ...


class Courier(Protocol):
    """The thin part that an engine supplies."""

    def nodes(self) -> Collection[str]:
        """Return the sites that the engine thinks it can reach."""
        ...

    def send(self, stage: str, requests: Mapping[str, bytes], *, round_id: int, lifetime: float) -> Mail:
        """Send one request a site; the engine drops what is not delivered within `lifetime` seconds."""
        ...


class EngineTransport:
    """A `protocols.Transport` over an engine's courier.

    Rules: an exchange ends when everybody has answered or is known to be lost, `grace` seconds after its quorum, or
    after `timeout`; whoever has not answered by then is a suspect. A suspect is asked again in later exchanges and is
    a suspect no longer once it answers, but a quorum never waits for suspects: a dead site costs its timeout once, and
    `grace` afterwards. Late, second and unasked replies are dropped.

    Args:
        courier: The engine.
        clock: Seconds that never go back.

    Attributes:
        fewest: Replies that no quorum is below, where so many sites are there: fewer are of no use to who asks.
    """

    def __init__(self, courier: Courier, clock: Callable[[], float] = time.monotonic) -> None:
        self._courier = courier
        self._clock = clock
        self._suspects: set[str] = set()
        self.fewest = 1

    @property
    def suspects(self) -> frozenset[str]:
        """Sites that did not answer when they were last asked."""
        return frozenset(self._suspects)

    def nodes(self) -> Collection[str]:
        """Return the sites that can be reached."""
        return self._courier.nodes()

    def exchange(self, stage: str, requests: Mapping[str, bytes], *, round_id: int, patience: Patience) -> Exchanged:
        """Send all requests at once; replies come in the order of their arrival."""
        reachable = set(self._courier.nodes())
        failures = {site: "unknown" for site in requests if site not in reachable}
        asked = {site: request for site, request in requests.items() if site in reachable}
        deadline = self._clock() + patience.timeout
        mail = self._courier.send(stage, asked, round_id=round_id, lifetime=patience.timeout)
        quorum = max(self.fewest, round(len(requests) * patience.quorum))
        if stage == Stage.REVEAL_NONCES.value:
            quorum = len(requests)  # one nonce that is missing ends the round for all (protocols/SPEC.md, M-37)
        return self._gather(mail, set(asked), failures, deadline, quorum, patience.grace), failures

    def _gather(
        self, mail: Mail, waiting: set[str], failures: dict[str, str], deadline: float, quorum: int, grace: float
    ) -> Replies:
        enough = min(quorum, len(waiting - self._suspects))
        replies, in_grace = 0, False
        try:
            while waiting:
                if replies >= enough and not in_grace:
                    in_grace, deadline = True, min(deadline, self._clock() + grace)
                left = deadline - self._clock()
                if left <= 0:
                    break
                for site, reply in mail.collect(min(left, POLL_SECONDS)):
                    if site not in waiting:
                        continue
                    waiting.discard(site)
                    if reply == NO_REPLY:
                        reply = Lost("its node does not answer")
                    if isinstance(reply, bytes):
                        replies += 1
                        self._suspects.discard(site)
                        yield site, reply
                    else:
                        self._suspects.add(site)
                        failures[site] = reply.reason if isinstance(reply, Lost) else "a reply that is no bytes"
        finally:
            mail.abandon()
        for site in waiting:
            self._suspects.add(site)
            failures[site] = "no reply in time"

    def close(self) -> None:
        """Nothing is held: the engine's own process ends the connections."""
