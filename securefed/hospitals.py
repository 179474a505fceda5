"""The hospitals of a simulation: one `clients.method.Hospital` a site, addressed by the site's name.

On a processor several of them work at once: in one thread each, and in processes where a run is long enough. On a GPU a
round is trained for all of them together, as soon as the first one asks.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from clients.encoders import FeatureBundle, SiteFeatures
from clients.method.crew import Crew, CrewError, ModelArguments
from clients.method.hospital import Hospital, make_fleet, workbenches
from clients.method.lean.fleet import Begun, Fleet
from clients.method.lean.stack import Trained
from clients.method.lean.validation import Said
from clients.method.settings import TrainingSettings
from protocols.unchanging import place_of
from securefed.errors import TrainingProcessError
from securefed.heap import Trimming
from securefed.run_folder import Arrays
from securefed.training_processes import TrainingProcesses, can_have_crew, start_crew, vector_length

Vector = NDArray[np.float32]


T = TypeVar("T")


class Hospitals:
    """All sites that train, each with its own data and MLP. What a site does may be called from a thread of its own.

    Args:
        bundle: Features of all sites.
        settings: Training settings, the same everywhere.
        method: Name of the method.
        seed: Seed of the run; each site derives its own generators from it.
        device: `cpu` or `cuda`.
        workers: Sites that are evaluated at the same time.
        together: Whether a round is trained for all sites in one batched computation; None for that on a GPU.
        hospitals: {site: hospital}, where they are not the plain ones; they train each for itself.
        rounds: The last round; from it and the first one follows whether processes pay. 0 for threads alone.
    """

    def __init__(
        self,
        bundle: FeatureBundle,
        settings: TrainingSettings,
        method: str,
        seed: int,
        device: str,
        *,
        workers: int = 1,
        together: bool | None = None,
        hospitals: Mapping[str, Hospital] | None = None,
        rounds: int = 0,
    ) -> None:
        text, scale = bundle.text_features, bundle.logit_scale
        benches = workbenches(text, scale, settings, method, device)
        together = False if hospitals is not None else together
        self._trimming = Trimming(len(bundle.sites))

        def hospital(site: SiteFeatures) -> Hospital:
            self._trimming.one_more()
            return Hospital(site, text, scale, settings, method, seed, device, benches)

        self._hospitals: Mapping[str, Hospital] = hospitals or {site.site: hospital(site) for site in bundle.sites}
        self._validation: dict[str, NDArray[np.int64]] = {site.site: site.val.labels for site in bundle.sites}
        self._workers = workers
        self._work = _WorkClock()
        self._latest: Vector | None = None
        self._download: tuple[Vector, tuple[int, int]] | None = None  # equal to the latest one
        self._comparing = threading.Lock()
        self._scored: dict[str, tuple[Vector, dict[str, float]]] = {}
        self._senseless: set[str] = set()
        fleet = None
        if device == "cuda" if together is None else together:
            fleet = make_fleet(text, scale, settings, method, device)
        self._processes: TrainingProcesses | None = None
        if rounds and not together and hospitals is None and can_have_crew(self._hospitals.values(), workers, device):
            model, length = ModelArguments(text, scale, settings, method), vector_length(bundle, settings, method)
            start = partial(start_crew, workers, model, seed, self._hospitals, length)
            self._processes = TrainingProcesses(benches, start, rounds, lambda: self._work.seconds)
        self._ahead = None if fleet is None else _TrainedAhead(fleet, self._hospitals)
        self._early = method != "fedavg-mlp"  # there a validation brings the statistics of batch norms up to date first

    @property
    def sites(self) -> Sequence[str]:
        """Names of the sites, in the order of the data set."""
        return tuple(self._hospitals)

    @property
    def seconds(self) -> float:
        """Seconds in which at least one hospital was scoring or training."""
        return self._work.seconds

    def expect(self, number: int, sites: Sequence[str]) -> None:
        """Say which sites are about to train in a round, in the order in which they are asked."""

    def train(self, site: str, received: Vector, number: int) -> Vector:
        """Train one round at a site from the global vector float32[d]; return its update float32[d]."""
        if self._processes is not None:
            self._processes.begin(number)
        with self._work.running(), _named_errors():
            self._scored.pop(site, None)
            self._trimming.one_more()
            hospital, vector = self._hospitals[site], self._same(received)
            trained = self._ahead.take(site, vector, number) if self._ahead else None
            return hospital.train_round(vector, number) if trained is None else hospital.adopt(trained)

    def begin(self, vector: Vector, number: int) -> None:
        """Every site is about to receive this global vector float32[d] for a round: a GPU may begin to train it."""
        if self._ahead is not None and self._early:
            self._ahead.begin(self._same(vector), number)

    def train_all(self, received: Vector, number: int) -> dict[str, Vector]:
        """Train one round at every site, several at a time; return {site: update}."""
        return self._at_once(self.sites, lambda site: self.train(site, received, number))

    def score(self, site: str, received: Vector) -> float:
        """Return the accuracy in [0, 1] of the site's ensemble with the received model on its validation images."""
        with self._work.running():
            return self._accuracy(site, received)["ensemble"]

    def validation_accuracy(self, vector: Vector) -> dict[str, dict[str, float]]:
        """Return {site: {part: accuracy on the validation images}}; sites without such images are left out."""
        sites = [site for site, labels in self._validation.items() if labels.size]
        return self._at_once(sites, lambda site: self._accuracy(site, vector))

    def diverged(self) -> tuple[str, ...]:
        """Return the sites whose model says of validation images, when it was last asked, what is not finite.

        Of sites without such images, those that have learned for themselves what is not finite.
        """
        unasked = [site for site, labels in self._validation.items() if not labels.size]
        states = {site: self._hospitals[site].private_state() for site in unasked}
        broken = {site for site, state in states.items() if not all(np.isfinite(a).all() for a in state.values())}
        return tuple(site for site in self.sites if site in self._senseless | broken)

    def predict(self, site: str, vector: Vector, split: str) -> Mapping[str, NDArray[np.float32]]:
        """Return {part: probabilities float32[N, C]} on a split of a site."""
        return self._hospitals[site].predict(vector, split)

    def keep_ratios(self, vector: Vector) -> dict[str, dict[str, float]]:
        """Return {site: {part: share of the rows that the masked layers keep}}."""
        same = self._same(vector)
        return {site: dict(hospital.keep_ratios(same)) for site, hospital in self._hospitals.items()}

    def private_states(self) -> dict[str, Arrays]:
        """Return what each site keeps to itself (its MLP), as arrays that can only be read."""
        return {site: hospital.private_state() for site, hospital in self._hospitals.items()}

    def load_private_states(self, states: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
        """Put back what `private_states` returned."""
        self._scored.clear()
        for site, state in states.items():
            self._hospitals[site].load_private_state(dict(state))

    @property
    def crew(self) -> Crew | None:
        """The processes in which hospitals train at present; None where there are none."""
        return self._processes.crew if self._processes is not None else None

    def close(self) -> None:
        """End the processes in which hospitals train, if there are any; they can go on in threads."""
        if self._processes is not None:
            self._processes.close()

    def _accuracy(self, site: str, received: Vector) -> dict[str, float]:
        """What was computed at the end of a round is not computed again when the next one begins."""
        vector = self._same(received)
        scored = self._scored.get(site)
        if scored is None or scored[0] is not vector:
            labels = self._validation[site]
            with _named_errors():
                hospital, said = self._hospitals[site], self._ahead.said(site, vector) if self._ahead else None
                parts = hospital.predict(vector, "val") if said is None else hospital.hear(vector, said)
            finite = all(np.isfinite(scores).all() for scores in parts.values())
            (self._senseless.discard if finite else self._senseless.add)(site)
            accuracy = {part: float((scores.argmax(axis=1) == labels).mean()) for part, scores in parts.items()}
            self._scored[site] = scored = vector, accuracy
        return scored[1]

    def _same(self, vector: Vector) -> Vector:
        """Return one array, which nobody can write to, for all vectors that are equal: sites receive copies."""
        place = place_of(vector)
        with self._comparing:  # two sites that see a new vector at the same time would make two arrays of it
            latest, known = self._latest, self._download
            if latest is vector or (latest is not None and place is not None and known and known[1] == place):
                return latest
            if latest is None or not np.array_equal(latest, vector):
                latest = vector.copy()
                latest.flags.writeable = False
                self._latest = latest
            self._download = None if place is None else (vector, place)
            return latest

    def _at_once(self, sites: Sequence[str], what: Callable[[str], T]) -> dict[str, T]:
        """Return {site: what(site)}, several sites at a time; those with the most images begin first.

        One by one where a fleet has done the work before.
        """
        if self._workers == 1 or self._ahead is not None or len(sites) < 2:
            return {site: what(site) for site in sites}
        largest_first = sorted(sites, key=lambda site: -self._validation[site].size)
        with ThreadPoolExecutor(self._workers) as threads:
            done = dict(zip(largest_first, threads.map(what, largest_first), strict=True))
        return {site: done[site] for site in sites}


@contextmanager
def _named_errors() -> Iterator[None]:
    """An error of a process in which hospitals train leaves as one of this package."""
    try:
        yield
    except CrewError as error:
        raise TrainingProcessError(str(error)) from error


class _TrainedAhead:
    """A round that a fleet trains for all sites, handed out site by site.

    What is not asked for (a site was lost, or received another model) is thrown away with the next round.
    """

    def __init__(self, fleet: Fleet, hospitals: Mapping[str, Hospital]) -> None:
        self._fleet, self._hospitals = fleet, hospitals
        self._lock = threading.Lock()
        self._of: tuple[Vector, int] | None = None
        self._sites: Sequence[str] = ()
        self._begun: Begun | None = None
        self._said: dict[str, Said] | None = None
        self._trained: dict[str, Trained] | None = None

    def begin(self, vector: Vector, number: int) -> None:
        """Have the fleet begin to train a round from a vector; it goes on beside whatever comes next."""
        with self._lock:
            self._begin(vector, number)

    def take(self, site: str, vector: Vector, number: int) -> Trained | None:
        """Return what a site has trained in a round from a vector, None where it has to train by itself."""
        with self._lock:
            if self._of is None or self._of[1] != number or (self._trained is None and self._of[0] is not vector):
                self._begin(vector, number)
            if self._of is None or self._of[0] is not vector or self._begun is None:
                return None
            if self._trained is None:
                self._trained = dict(zip(self._sites, self._begun.finish(), strict=True))
            return self._trained.pop(site, None)

    def said(self, site: str, vector: Vector) -> Said | None:
        """Return what a site's model says of its validation images with the vector that a round was begun from."""
        with self._lock:
            if self._of is None or self._of[0] is not vector or self._begun is None:
                return None
            if self._trained is not None:
                return None  # the sites have other models by now
            if self._said is None:
                said = self._begun.said()
                if said is None:
                    return None
                self._said = dict(zip(self._sites, said, strict=True))
            return self._said.get(site)

    def _begin(self, vector: Vector, number: int) -> None:
        trainees = {name: hospital.trainee(number) for name, hospital in self._hospitals.items()}
        able = {name: trainee for name, trainee in trainees.items() if trainee is not None}
        self._of = self._begun = self._trained = self._said = None  # where a fleet fails, nothing has begun
        begun = self._fleet.begin(vector, list(able.values()), number)
        self._of, self._sites, self._begun = (vector, number), tuple(able), begun


class _WorkClock:
    """Counts the seconds in which at least one thread is at work."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._running, self._since = 0, 0.0
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._lock:
            if not self._running:
                self._since = time.perf_counter()
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self.seconds += time.perf_counter() - self._since
