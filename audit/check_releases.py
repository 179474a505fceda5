"""The privacy events of a log against its configuration: what was released, with how much noise, under which name."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from audit.check_sums import COMPLETE_UP_TO, left_on_ring
from audit.check_terms import IN_SHARES, differs
from audit.errors import EvidenceError
from audit.history import RunHistory
from audit.log import Event

Fields = Mapping[str, Any]

_SLACK: Final = 1 + 1e-6
"""Relative: noise is computed in another order of operations than here."""

_LEAST_COST: Final = 0.95
"""Of a target: noise is calibrated to it within a per mille of the multiplier, by a coarser and larger bound."""

_MECHANISMS: Final = {
    "local": ("sampled-gaussian", "grouped-sampled-gaussian"),
    "distributed": ("skellam", "discrete-gaussian"),
    "hospital": ("skellam", "discrete-gaussian"),
}
"""What each mode releases; an `unknown` mechanism costs infinity and may stand in any."""


@dataclass(frozen=True)
class Noise:
    """What a configuration and a protocol say of noise.

    Attributes:
        privacy: The section `privacy`.
        exact: Whether the noise of hospitals that are lost is made up for (xnoise): every sum has the same. Else each
            share is sized for the fewest hospitals that a sum may be over.
        fewest: That many hospitals, as `check_sums.check_fewest` holds them to the protocol.
        clients: Hospitals in a round.
    """

    privacy: Fields
    exact: bool
    fewest: int
    clients: int

    @classmethod
    def of(cls, history: RunHistory) -> "Noise":
        """Return what the log of a run says."""
        config, described = history.last("config"), history.last("protocol_described")
        values: Any = {} if config is None else config.fields["values"]
        privacy: Fields = values.get("privacy", {})
        protocol: Any = {} if described is None else described.fields
        clients, fewest = protocol.get("clients", 1), protocol.get("values", {}).get("min_survivors", 1)
        left = left_on_ring(clients, values.get("secure_aggregation", {}).get("losses", 0))
        possible = (
            protocol.get("secure_aggregation", False)
            and (clients <= COMPLETE_UP_TO or fewest != left)
            and privacy.get("mechanism") == "skellam"
            and privacy.get("noise") == "system"
        )
        asked = privacy.get("dropout_noise")
        return cls(privacy, asked == "xnoise" or (asked == "auto" and possible), fewest, clients)

    def shares(self, mechanism: Fields) -> int:
        """Return among how many hospitals the configured noise was divided in a sum."""
        return int(mechanism["shares"]) if self.exact else self.fewest

    def least_share(self, mechanism: Fields) -> float | None:
        """Return what is left of a share's variance once all that makes up for losses is removed; None: none is.

        The first component is sized for a round without losses, a share as it is summed for the survivors.
        """
        if not self.exact or mechanism["type"] != "skellam":
            return None
        colluders = self.privacy.get("max_colluders", 0)
        kept = max(1, self.shares(mechanism) - colluders) / max(1, self.clients - colluders)
        return float(min(1.0, kept) * mechanism["share_variance"])

    def multiplier(self, mechanism: Fields) -> float:
        """Return the deviation of the noise over the norm of one contribution; in shares that of the honest ones."""
        match mechanism["type"]:
            case "sampled-gaussian":
                return float(mechanism["noise_multiplier"])
            case "grouped-sampled-gaussian":
                return 1 / math.sqrt(sum(value**-2 for value in mechanism["noise_multipliers"]))
            case "skellam":
                deviation = math.sqrt(mechanism["share_variance"])
            case _:
                deviation = mechanism["share_sigma"]
        honest = max(1, self.shares(mechanism) - self.privacy.get("max_colluders", 0))
        return float(deviation * math.sqrt(honest) / mechanism["l2"])


def check_releases(history: RunHistory) -> None:
    """Check every privacy event of a log that states a configuration.

    Raises:
        EvidenceError: One is of a mechanism that the mode does not use, with more noise than is configured, or has a
            name that is not its own; names the event.
    """
    from audit.ledger.names import run_of_log

    if history.last("config") is None:
        return
    noise, run, model, before = Noise.of(history), run_of_log(history.events), "", 0
    for event in history.events:
        if event.kind == "round_started":
            model = str(event.fields["model_digest"])
        if event.kind == "privacy_event":
            _check_mechanism(event, noise.privacy)
            _check_noise(event, noise)
            _check_name(event, run, model, before)
            before += 1


def check_target(history: RunHistory) -> None:
    """Check that noise which was made for a target is no more than that needs: else epsilon is stated too small.

    Where the configuration states an epsilon and no noise, all rounds together cost that epsilon, by calibration.

    Raises:
        EvidenceError: They would cost clearly less; names the first event of that mechanism.
    """
    from audit.accounting import Adjacency, Repeated, against_colluders, mechanism_of, upper_epsilon
    from audit.accounting.calibrate import chance_of_use
    from audit.accounting.pld import has_pld

    config, noise, seen = history.last("config"), Noise.of(history), set()
    privacy, target = noise.privacy, noise.privacy.get("epsilon")
    if config is None or not target or privacy.get("noise_multiplier"):
        return
    values: Any = config.fields["values"]
    rounds = values["federation"]["rounds"]
    for event in history.of_kind("privacy_event"):
        fields: Fields = event.fields
        mechanism: dict[str, Any] = dict(fields["mechanism"])
        if mechanism["type"] == "unknown":
            continue
        if privacy["mode"] in IN_SHARES:
            mechanism["shares"] = noise.shares(mechanism)
        whole = mechanism_of(mechanism)
        if whole in seen:
            continue
        seen.add(whole)
        times = rounds * fields["repetitions"] if privacy["mode"] == "local" else rounds + privacy["spare_rounds"]
        planned = against_colluders([Repeated(whole, times)], privacy["max_colluders"])
        cost = upper_epsilon(planned, privacy["delta"], Adjacency(privacy["adjacency"]), coarse=True)
        if cost < _LEAST_COST * target:
            reason = f"with this noise all {rounds} rounds would cost epsilon {cost:.6g}"
            if has_pld(planned) and privacy["delta"] >= chance_of_use(planned):
                why = f"delta {privacy['delta']:g} is at least the chance that a record is in any of their steps"
                raise EvidenceError(event.seq, f"{reason}, as they would without any: {why}")
            raise EvidenceError(event.seq, f"{reason}, and it was made for {target:g}, as config.toml has it")


def _check_mechanism(event: Event, privacy: Fields) -> None:
    """The mechanism is one of the mode's, about whom it is in that mode, at the configured rate and as often."""
    fields: Fields = event.fields
    mechanism, mode = fields["mechanism"], privacy.get("mode", "off")
    if mode == "off":
        raise EvidenceError(event.seq, "a release with noise was accounted, and config.toml has privacy.mode = off")
    if ("hospital" in fields) != (mode == "local"):
        whose = "one hospital alone" if "hospital" in fields else "all hospitals together"
        raise EvidenceError(event.seq, f"a release of {whose} was accounted, which privacy.mode {mode} does not make")
    if mechanism["type"] == "unknown":
        return
    if mechanism["type"] not in _MECHANISMS[mode]:
        differs(event, "privacy.mode", mechanism["type"], mode)
    if mode in IN_SHARES and mechanism["type"] != privacy.get("mechanism"):
        differs(event, "privacy.mechanism", mechanism["type"], privacy.get("mechanism"))
    rate = 1 if mode == "hospital" else privacy.get("sampling_rate")
    if mechanism["sampling_rate"] != rate:
        differs(event, "privacy.sampling_rate", mechanism["sampling_rate"], rate)
    steps = privacy.get("steps") if mode == "local" else 1
    if fields["repetitions"] != steps:
        differs(event, "privacy.steps", fields["repetitions"], steps)


def _check_noise(event: Event, noise: Noise) -> None:
    """There is no more noise than configured, where that states how much, nor more left of a share than can be."""
    mechanism, configured = event.fields["mechanism"], noise.privacy.get("noise_multiplier")
    assert isinstance(mechanism, Mapping)  # noqa: S101 (narrows the type)
    _check_least(event, mechanism, noise)
    if not configured or mechanism["type"] == "unknown":
        return
    if (found := noise.multiplier(mechanism)) > configured * _SLACK:
        differs(event, "privacy.noise_multiplier", f"{found:.6g}", configured)


def _check_least(event: Event, mechanism: Fields, noise: Noise) -> None:
    if (least := noise.least_share(mechanism)) is None:
        return
    stated = mechanism.get("least_share_variance", mechanism["share_variance"])
    if stated > least * _SLACK:
        reason = f"{least:.6g} at most is left of the variance of a share, and the record counts on {stated:.6g}"
        raise EvidenceError(event.seq, f"{reason} (privacy.dropout_noise)")


def _check_name(event: Event, run: str, model: str, before: int) -> None:
    """The name of a release, where it has one, is that of its run, round, model and hospital (audit/SPEC.md)."""
    from audit.ledger.names import release_name

    fields: Fields = event.fields
    number, hospital = fields.get("round"), fields.get("hospital")
    name = f"sum/{number}/{before}"
    if hospital is not None:
        name = release_name(run, str(number), model[:16], hospital)
    if fields.get("release_id", name) != name:
        raise EvidenceError(event.seq, f"the release {fields['release_id']} should be named {name}")
