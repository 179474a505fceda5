"""Attempts at rounds whose vectors left the hospitals although no sum of them was ever to be opened."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from audit.check_terms import IN_SHARES
from audit.log import Event

_BEFORE_VECTORS: Final = ("AdvertiseKeys", "RevealNonces", "ShareKeys")
"""A round that ended at one of these stages has asked no hospital for its vector (protocols/SPEC.md)."""


class Attempts:
    """Counts, event by event, the attempts with noise in shares that no privacy event bears.

    A sum that was never to be opened shows nothing. Whoever opens single vectors has seen those that left for it, each
    with a share of fresh noise. When an attempt ended, as by a kill, the log need not say: then its vectors count as
    sent. Only one that was aborted before any hospital was asked for a vector, and before any paid for one, counts for
    nothing.
    """

    def __init__(self) -> None:
        self.unopened = 0
        """Vectors of each hospital that may have left in such attempts."""
        self._in_shares = False
        self._open = self._paid = False

    def take(self, event: Event) -> None:
        """Go on by one event of a log."""
        fields: Mapping[str, Any] = event.fields
        match event.kind:
            case "privacy_claim":
                self._in_shares = fields["mode"] in IN_SHARES
            case "round_started":
                self._open, self._paid = self._in_shares, False
                self.unopened += self._open
            case "privacy_event" if "hospital" not in fields:
                self._settle()
            case "charge":  # a hospital pays right before its vector leaves
                self._paid = True
            case "round_aborted" if fields["stage"] in _BEFORE_VECTORS and not self._paid:
                self._settle()

    def _settle(self) -> None:
        """The open attempt has an event of its own, or released nothing."""
        self.unopened -= self._open
        self._open = False


def unopened_in(events: Iterable[Event]) -> int:
    """Return how many vectors of each hospital may have left, by a whole log, for sums that were never to be opened."""
    attempts = Attempts()
    for event in events:
        attempts.take(event)
    return attempts.unopened
