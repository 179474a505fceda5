"""Differential privacy of a deployment as its server keeps account of it: what it asks for, stands in its log before.

The server holds no data and charges no ledger: each hospital does that for itself (at_site.py) and refuses what its own
budget or the study's epsilon does not bear, whatever the server asks.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from audit.ledger import run_of_log
from audit.log import EventLog
from protocols.noise import NoisePlan
from securefed.config import RunConfig
from securefed.privacy.claim import claim_fields, privacy_summary
from securefed.privacy.mechanism import local_cost
from securefed.privacy.shared_run import SharedPrivacy
from securefed.privacy.spending import VIEWS, Spending
from securefed.summary import privacy_off


class ServerPrivacy(Protocol):
    """What a server does about differential privacy."""

    def claim(self) -> dict[str, Any]:
        """Return the fields of the event `privacy_claim`."""
        ...

    def check_round(self, number: int) -> None:
        """Refuse a round that could exceed the target; raises TargetEpsilonError."""
        ...

    def round_started(self, number: int, model_digest: str) -> None:
        """Record what the hospitals are going to be asked for, before anything is sent."""
        ...

    def before_opening(self, number: int, survivors: int) -> None:
        """Record what a sum is about to release."""
        ...

    def finish(self) -> dict[str, Any]:
        """Record epsilon; return the block `privacy` of summary.json."""
        ...


class NoPrivacy:
    """A study without differential privacy."""

    def __init__(self, config: RunConfig) -> None:
        self._off = privacy_off(config)

    def claim(self) -> dict[str, Any]:
        """Return that nothing is claimed."""
        return {"mode": "off", "claim": "NOT CLAIMED", "reason": self._off["claim"]}

    def check_round(self, number: int) -> None:
        """Nothing is limited."""

    def round_started(self, number: int, model_digest: str) -> None:
        """Nothing is accounted."""

    def before_opening(self, number: int, survivors: int) -> None:
        """Nothing is accounted."""

    def finish(self) -> dict[str, Any]:
        """Return that nothing is claimed."""
        return self._off


class LocalAtServer:
    """The mode `local`: every hospital counts as having released in every round that it was asked in.

    Args:
        config: The agreed configuration.
        log: The server's log.
        sites: The hospitals.
    """

    def __init__(self, config: RunConfig, log: EventLog, sites: Sequence[str]) -> None:
        self._config = config
        self._sites = tuple(sites)
        rounds, run = config.federation.rounds, run_of_log(log.events)
        cost, unread = local_cost(config.privacy, rounds), dict.fromkeys(sites, "")
        self._spending = Spending(log, run, config.privacy, cost, unread, None, planned=rounds)

    def claim(self) -> dict[str, Any]:
        """Return the fields of the event `privacy_claim`."""
        return claim_fields(self._config, deployed=True)

    def check_round(self, number: int) -> None:
        """Refuse a round whose releases would exceed the target; raises TargetEpsilonError."""
        self._spending.check_round(number)

    def round_started(self, number: int, model_digest: str) -> None:
        """Record the release of every hospital; one that was asked for before with this model is the same one."""
        for site in self._sites:
            self._spending.announce(site, number, self._spending.release_id(site, number, model_digest))

    def before_opening(self, number: int, survivors: int) -> None:
        """Nothing: a sum of releases is no release of its own."""

    def finish(self) -> dict[str, Any]:
        """Record epsilon against each adversary; return the block `privacy` of summary.json."""
        self._spending.state_epsilon(VIEWS)
        return privacy_summary(self._config, self._spending.epsilon(), deployed=True)


class SharedAtServer(SharedPrivacy):
    """The modes that add noise in shares: a sum is charged in the log before it is opened."""

    def __init__(self, config: RunConfig, log: EventLog, plan: NoisePlan) -> None:
        super().__init__(config, log, plan, deployed=True)

    def round_started(self, number: int, model_digest: str) -> None:
        """Nothing: what is released is a sum."""


def server_privacy(config: RunConfig, log: EventLog, sites: Sequence[str], plan: NoisePlan | None) -> ServerPrivacy:
    """Return what the server does about the privacy of a study; `plan` is the noise of shares, if there are."""
    if not config.privacy.enabled:
        return NoPrivacy(config)
    return LocalAtServer(config, log, sites) if plan is None else SharedAtServer(config, log, plan)
