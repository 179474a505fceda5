"""What the sites of a simulation do in one round, begun for all of them as the first one is asked."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
T = TypeVar("T")


class Ahead(Generic[T]):
    """Makes something for all sites that take part in a round, and hands it out site by site.

    What is not asked for (a site was lost after all, or received another model) is thrown away with the next round: it
    has left this object for nobody. May be used from several threads; those that come second wait.

    Args:
        make: Called with (sites, received, round); returns {site: what was made}, of some or all of the sites.
    """

    def __init__(self, make: Callable[[Sequence[str], Vector, int], Mapping[str, T]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._expected: tuple[int, tuple[str, ...]] = (0, ())
        self._received: Vector | None = None
        self._made: dict[str, T] = {}

    def expect(self, number: int, sites: Sequence[str]) -> None:
        """Say which sites are about to be asked in a round, in this order."""
        with self._lock:
            self._expected, self._received, self._made = (number, tuple(sites)), None, {}

    def take(self, site: str, received: Vector, number: int) -> T | None:
        """Return what was made for a site from the model that it received; None where it is on its own."""
        with self._lock:
            of_round, sites = self._expected
            if number != of_round or site not in sites:
                return None
            if self._received is None:
                self._received = received.copy()
                self._made = dict(self._make(sites, received, number))
            return self._made.pop(site, None) if np.array_equal(self._received, received) else None
