"""Differential privacy at one hospital of a deployment: it pays from its own ledger, whatever the server asks for.

The hospital keeps a folder for each study with a private log of its own and its last release. All runs of a study,
however a server names them, count together: over all of them a hospital makes no more releases than the study has
rounds, and none beyond the study's epsilon.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

from audit.errors import EvidenceError, LogWriteError
from audit.ledger import Account, BudgetExceededError, Charge, Ledger, run_in_ledgers
from audit.log import Clock, EventLog
from clients.encoders import FeatureBundle
from protocols.noise import NoisePlan
from securefed.config import PrivacyConfig, RunConfig
from securefed.errors import ReleaseRefusedError
from securefed.evidence import utc_now
from securefed.hospitals import Hospitals
from securefed.privacy.bearing import too_few_rounds
from securefed.privacy.claim import claim_fields, held_to_claim, privacy_summary
from securefed.privacy.mechanism import local_cost
from securefed.privacy.releases import ReleaseStore
from securefed.privacy.shared_charges import SharedCharges, charged_mechanism
from securefed.privacy.shared_claim import shared_claim, shared_summary, shared_verdict
from securefed.privacy.shared_run import shared_hospitals
from securefed.privacy.spending import Spending, release_of_model
from securefed.provenance import software_versions
from securefed.run_folder import RunFolder
from securefed.summary import privacy_off

T = TypeVar("T")
Patients = Mapping[str, str | None]

_LOST: Final = "NOT CLAIMED: the private log of this hospital is lost, and with it what was released of its data"

_WAIT_SECONDS: Final = 10.0
"""How long a charge waits for another process or thread to let go of the private log."""


class LostLogError(EvidenceError):
    """A private log is gone or empty of which the ledger shows that it was begun: what was released is not known."""


@dataclass(frozen=True)
class Vectors:
    """How many vectors a hospital has paid for in a study with noise in shares.

    Attributes:
        paid: Vectors that were paid for, also those of rounds that were begun again.
        left: Vectors that it may still pay for.
        finished: The round of the last head that it signed.
        rounds: Rounds of the study.
    """

    paid: int
    left: int
    finished: int
    rounds: int

    @property
    def suffice(self) -> bool:
        """Whether what is left bears the rounds after the last head."""
        return self.left >= self.rounds - self.finished

    @property
    def are_gone(self) -> bool:
        """Whether rounds are left, as far as the hospital knows, and it can send nothing more in any of them."""
        return not self.left and self.finished < self.rounds

    @property
    def text(self) -> str:
        """What is so and, where the rounds are not borne, what to do."""
        said = f"{self.paid} of {self.paid + self.left} vectors paid, last head: round {self.finished} of {self.rounds}"
        if self.suffice:
            return said
        return (
            f"{said}; rounds that were begun again have used up the others. If the study has not ended it has to be "
            "made anew, with more privacy.spare_rounds"
        )


class SitePrivacy:
    """What one hospital does about differential privacy in one study.

    Args:
        site: The hospital.
        study: SHA-256 (hex) of the study; the private log begins with it.
        config: The agreed configuration, with this hospital's own choices.
        fingerprint: SHA-256 (hex) of the hospital's data.
        folder: Where its private log and its last release lie.
        ledger: Its ledger; there must be one.
        run_id: Returns the run that the hospital is in, "" for none.
        plan: Grid, ring and noise, where hospitals add it in shares.
        patients: Loads {path of an image: its patient or None}.
        now: Clock of the private log and of the ledger.
    """

    def __init__(
        self,
        site: str,
        study: str,
        config: RunConfig,
        fingerprint: str,
        folder: Path,
        ledger: Path,
        run_id: Callable[[], str],
        plan: NoisePlan | None = None,
        patients: Callable[[], Patients] = dict,
        now: Clock = utc_now,
    ) -> None:
        self._site, self._study, self._config = site, study, config
        self._fingerprint = {site: fingerprint}
        self._folder, self._ledger = RunFolder(folder), ledger
        self._run_id, self._plan, self._patients, self._now = run_id, plan, patients, now
        self._refused: set[str] = set()

    def hospitals(self, bundle: FeatureBundle, device: str) -> Hospitals:
        """Return the hospital, as one that pays before it hands anything out."""
        if self._plan is not None:
            return shared_hospitals(bundle, self._config, device, self._patients(), 1, self._pay)
        from securefed.privacy.hospitals import PrivateHospitals  # loads torch

        return PrivateHospitals(bundle, self._config, device, self._patients(), self, ReleaseStore(self._folder))

    def objection(self, run_id: str, finished: int) -> str:
        """Return why the hospital cannot pay for what is left of a run, or has no vector for it; "" where it can.

        Args:
            run_id: The run.
            finished: The round of the last head that the hospital signed in it.

        Raises:
            AuditError: Ledger or private log cannot be used, so that nobody can tell.
        """
        if reason := self.want_of_budget(run_id, finished):
            return reason
        vectors = self.vectors(run_id, finished)
        return vectors.text if vectors is not None and vectors.are_gone else ""

    def want_of_budget(self, run_id: str, finished: int, *, record: bool = True) -> str:
        """Return why budget or target do not bear the rounds after `finished` that were not paid; "" where they do.

        Args:
            run_id: The run.
            finished: The round of the last head that the hospital signed in it: all, and nothing is left to bear.
            record: Whether ledger and private log record a refusal; the same one is recorded once by a process.

        Raises:
            AuditError: Ledger or private log cannot be used, so that nobody can tell.
        """
        if reason := too_few_rounds(self._config, self._plan):
            return reason
        try:
            if not record and not self._begun():
                self._foresee_all(run_id, finished)
                return ""
            with self._books(run_id) if record else self._as_they_are(run_id) as book:
                asked = record and run_id not in self._refused
                book.check_run(self._config.federation.rounds, finished, record=asked)
        except BudgetExceededError as error:
            self._refused.add(run_id)
            return str(error)
        return ""

    def vectors(self, run_id: str, finished: int) -> "Vectors | None":
        """Return what the hospital has paid in vectors with a share of noise; None where it adds none, or has none yet.

        Args:
            run_id: The run.
            finished: The round of the last head that the hospital signed.
        """
        if self._plan is None or not self._begun():
            return None
        with self._as_they_are(run_id) as book:
            assert isinstance(book, SharedCharges)  # noqa: S101 (narrows the type)
            left = book.left_of(self._site)
            assert left is not None  # noqa: S101 (a study's rounds are a limit)
            return Vectors(book.vectors_of(self._site), left, finished, self._config.federation.rounds)

    def runs(self) -> frozenset[str]:
        """Return the runs of the study, as ledgers name them, in which the hospital was charged."""
        if not self._begun():
            return frozenset()
        events = EventLog.reading(self._folder.log).events
        charges = (event.fields for event in events if event.kind == "charge")
        return frozenset(str(fields["release_id"]).partition("/")[0] for fields in charges)

    def release_id(self, site: str, number: int, model_digest: str) -> str:
        """Return the name of the hospital's release in a round, for a received model (SHA-256, hex).

        Raises:
            ReleaseRefusedError: The hospital is in no run.
        """
        return release_of_model(run_in_ledgers(self._in_run(), self._study), site, number, model_digest)

    def release(self, site: str, number: int, release_id: str, make: Callable[[], T]) -> T:
        """Charge a release in ledger and private log, unless that was done before, then make it.

        Raises:
            BudgetExceededError, TargetEpsilonError, ReleaseGoneError: It must not be; recorded, nothing was made.
        """
        with self._local() as book:
            book.check_release(site, number, release_id)
            return book.release(site, number, release_id, make)

    def settle(self, site: str, number: int, release_id: str) -> None:
        """Record that a paid release is made and kept, before it leaves."""
        with self._local() as book:
            book.settle(site, number, release_id)

    def summary(self) -> dict[str, Any]:
        """Return the block `privacy` of the hospital's own summary.json: what this hospital has spent on the study.

        Of a study whose private log is lost nothing is claimed; the model is the hospital's all the same.
        """
        try:
            with self._books(self._in_run()) as book:
                if isinstance(book, Spending):
                    return privacy_summary(self._config, book.epsilon(), deployed=True)
                assert self._plan is not None  # noqa: S101 (narrows the type)
                return shared_summary(self._config, self._plan, book.views(self._site), deployed=True)
        except LostLogError:
            return {**privacy_off(self._config), "mode": self._config.privacy.mode, "claim": _LOST}

    @cached_property
    def _held(self) -> PrivacyConfig:
        """The privacy section, with the limit of what is claimed where noise is added in shares."""
        config, plan = self._config, self._plan
        return config.privacy if plan is None else held_to_claim(config.privacy, lambda: shared_verdict(config, plan))

    def _begun(self) -> bool:
        """Whether the private log has a whole line: a process that dies before has charged nothing."""
        return self._folder.log.exists() and bool(EventLog.reading(self._folder.log).events)

    def _foresee_all(self, run_id: str, finished: int) -> None:
        """Refuse a study of which nothing was paid and whose rest the budget does not bear; nothing is written."""
        privacy, planned = self._config.privacy, self._config.federation.rounds
        if not (rounds := planned - finished):
            return
        if self._plan is None:
            cost = local_cost(privacy, planned)
            charge = Charge("", "all", cost.mechanism, cost.repetitions * rounds)
        else:
            charge = Charge("", "all", charged_mechanism(self._plan, privacy), rounds)
        with Ledger.reading(self._ledger) as ledger:
            self._require_no_charge(run_id, ledger)
            account = Account(self._site, self._fingerprint[self._site], privacy.unit)
            ledger.foresee(account, charge, record=False)

    def _pay(self, site: str, number: int) -> None:
        with self._books(self._in_run()) as book:
            assert isinstance(book, SharedCharges)  # noqa: S101 (narrows the type)
            book.pay(site, number)

    def _in_run(self) -> str:
        run_id = self._run_id()
        if not run_id:
            raise ReleaseRefusedError(
                f"{self._site} has agreed to no run: it releases nothing before the server has said Hello"
            )
        return run_id

    @contextmanager
    def _local(self) -> Iterator[Spending]:
        with self._books(self._in_run()) as book:
            assert isinstance(book, Spending)  # noqa: S101 (narrows the type)
            yield book

    @contextmanager
    def _books(self, run_id: str) -> Iterator[Spending | SharedCharges]:
        """Open ledger and private log, for one step at a time: a node may answer from several threads or processes."""
        with Ledger.existing(self._ledger, self._now) as ledger, self._log(run_id, ledger) as log:
            yield self._book(run_id, log, ledger)

    @contextmanager
    def _as_they_are(self, run_id: str) -> Iterator[Spending | SharedCharges]:
        """Read ledger and private log and lock neither: a round must not wait, or fail, because somebody looks.

        The log is read first: what it has by then, the ledger has.
        """
        log = EventLog.reading(self._folder.log)
        with Ledger.reading(self._ledger) as ledger:
            yield self._book(run_id, log, ledger)

    def _book(self, run_id: str, log: EventLog, ledger: Ledger) -> Spending | SharedCharges:
        privacy, rounds = self._config.privacy, self._config.federation.rounds
        run = run_in_ledgers(run_id, self._study)
        if self._plan is None:
            cost = local_cost(privacy, rounds)
            return Spending(log, run, privacy, cost, self._fingerprint, ledger, rounds, planned=rounds)
        most = rounds + privacy.spare_rounds
        return SharedCharges(log, run, self._held, self._plan, self._fingerprint, ledger, most)

    def _log(self, run_id: str, ledger: Ledger) -> EventLog:
        if self._begun():
            log = EventLog.open(self._folder.log, self._now, _WAIT_SECONDS)
            if not any(event.kind == "privacy_claim" for event in log.events):  # it was killed before
                log.append("privacy_claim", self._claim())
            return log
        self._require_no_charge(run_id, ledger)
        header: dict[str, Any] = {
            "run_id": self._study,
            "operation": "deployment",
            "software": dict(software_versions()),
        }
        self._make_room()
        log = EventLog.create(self._folder.log, header, self._now)
        log.append("privacy_claim", self._claim())
        return log

    def _claim(self) -> dict[str, Any]:
        if self._plan is None:
            return claim_fields(self._config, deployed=True)
        return shared_claim(self._config, self._plan, deployed=True)

    def _make_room(self) -> None:
        """Make the folder of the private log, without what a process left that died as it began one."""
        log = self._folder.log
        try:
            for folder in (log.parent.parent, log.parent):
                folder.mkdir(exist_ok=True, mode=0o700)
            log.unlink(missing_ok=True)
        except OSError as error:
            raise LogWriteError(log, f"cannot be created ({error.strerror}); free space and go on") from error

    def _require_no_charge(self, run_id: str, ledger: Ledger) -> None:
        """Refuse to begin a log that was begun before, and is lost or empty: the ledger has charges of the study."""
        for run in {spent.charge.run_id for spent in ledger.charges()}:
            if run in (run_in_ledgers(run_id, self._study), run_in_ledgers(run.rpartition(".")[0], self._study)):
                raise LostLogError(
                    -1,
                    f"{self._folder.log} has no event, and {ledger.path} holds charges of the run {run} of this study: "
                    "what was released is not known any more. Put the log back as it was; an older one lacks charges",
                )
