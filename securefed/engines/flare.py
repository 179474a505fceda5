"""NVIDIA FLARE 2.9 (Collab API): the transport in the server's job process, the handler in a site's.

A job names classes that are installed at every party and carries no code: a site's allow-list holds `FlareSite` and
FLARE's own executor and nothing else (securefed/deploy/flare_policy.py).
"""

import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from nvflare.collab import collab
from nvflare.private.fed.utils.app_deployer import AppDeployer

from securefed.engines.exchange import EngineTransport, Lost
from securefed.engines.local_socket import deliver

_log = logging.getLogger("securefed.site")


class FlareCourier:
    """Calls `handle` of each site's object, one thread a request.

    Args:
        proxies: FLARE's proxies of the sites, by the names under which they were provisioned.
    """

    def __init__(self, proxies: Mapping[str, Any]) -> None:
        self._proxies = dict(proxies)

    def nodes(self) -> Collection[str]:
        """Return the sites of the job; FLARE does not say which of them have gone since."""
        return tuple(self._proxies)

    def send(self, stage: str, requests: Mapping[str, bytes], *, round_id: int, lifetime: float) -> "FlareMail":
        """Call every site; a call ends by itself after `lifetime`."""
        del round_id  # frames carry it
        mail = FlareMail()
        for site, request in requests.items():
            call = threading.Thread(
                target=mail.call, args=(site, self._proxies[site], stage, request, lifetime), daemon=True
            )
            call.start()
        return mail


class FlareMail:
    """Calls on their way; late answers go into a queue that nobody reads any more."""

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()

    def call(self, site: str, proxy: Any, stage: str, request: bytes, lifetime: float) -> None:
        """Call one site and queue what comes back."""
        try:
            self._arrived.put((site, proxy(timeout=lifetime).handle(stage, request)))
        except Exception as error:  # noqa: BLE001 (every failure of an engine's call is a lost site)
            self._arrived.put((site, Lost(type(error).__name__)))

    def collect(self, seconds: float) -> Iterable[tuple[str, object]]:
        """Return one answer, if one comes in time."""
        try:
            return [self._arrived.get(timeout=seconds)]
        except queue.Empty:
            return []

    def abandon(self) -> None:
        """Nothing to do: the queue goes with this object."""


class FlareSite:
    """The object that FLARE makes in a site's job process; it delivers to the site's node."""

    @collab.publish  # type: ignore[untyped-decorator]
    def handle(self, stage: str, data: bytes) -> bytes:
        """Carry one request to the site's node and its reply back; the only method that anybody can call."""
        return deliver(stage, data)


class NamingDeployer(AppDeployer):  # type: ignore[misc]
    """FLARE's own check of a job at a site; what it refuses, code above all, is named in the site's log as well.

    FLARE itself sends the reason to the server and writes nothing at the site.
    """

    def deploy(self, *arguments: Any, **named: Any) -> Any:
        """Unpack and check a job; return the reason where it is refused, as FLARE does."""
        refused = super().deploy(*arguments, **named)
        if refused:
            _log.warning("job %s refused: %s", named.get("job_id", "of unknown id"), refused)
        return refused


class FlareServer(ABC):
    """The object that FLARE makes in the server's job process; subclasses say what runs over the transport."""

    @abstractmethod
    def serve(self, transport: EngineTransport) -> None:
        """Run the study to its end, and write its results."""

    @collab.main  # type: ignore[untyped-decorator]
    def run(self) -> bool:
        """Called by FLARE once all sites of the job are there."""
        proxies = {proxy.name: proxy for proxy in collab.clients}
        self.serve(EngineTransport(FlareCourier(proxies)))
        return True
