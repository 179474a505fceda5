"""What a consortium lead asks of the protocol before a study, in plain values."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from audit.bounds import finite
from protocols.plan import plan
from protocols.stages import ThreatModel
from securefed.config import THREAT_MODELS
from securefed.errors import ConfigError


def plan_cohort(
    *,
    clients: int,
    corrupt: float,
    dropout: float,
    sigma: int,
    eta: int,
    threat_model: str,
    dimension: int,
    value_bits: int,
) -> dict[str, Any]:
    """Return graph, threshold, ring, failure probabilities (base-2 logarithms, None for never) and bytes by stage.

    Raises:
        ConfigError: The threat model is unknown.
        ParameterError, NoSafePlanError: The numbers cannot be meant, or nothing is safe for them.
    """
    if threat_model not in THREAT_MODELS:
        raise ConfigError("--threat-model", f"{threat_model!r}: use {' or '.join(THREAT_MODELS)}")
    planned = plan(
        clients,
        corrupt,
        dropout,
        sigma,
        eta,
        ThreatModel(threat_model),
        vector_length=dimension,
        value_bits=value_bits,
    )
    stages = {stage.value: {"up": traffic.up, "down": traffic.down} for stage, traffic in planned.traffic.items()}
    return {
        "clients": planned.clients,
        "threat_model": threat_model,
        "complete": planned.is_complete,
        "corrupt": planned.corrupt,
        "dropouts": planned.dropouts,
        "neighbours": planned.neighbours,
        "threshold": planned.threshold,
        "quorum": planned.quorum,
        "min_survivors": planned.min_survivors,
        "ring_bits": planned.ring_bits,
        "exposure_log2": finite(planned.privacy_failure_log2),
        "failure_log2": finite(planned.correctness_failure_log2),
        "bytes": stages,
        "upload_bytes": sum(ways["up"] for ways in stages.values()),
        "download_bytes": sum(ways["down"] for ways in stages.values()),
    }


def run_attacks(ids: Sequence[str]) -> list[dict[str, Any]]:
    """Run the attack catalogue (all of it, or the given ids) and return one plain report an attack.

    Raises:
        ConfigError: There is no such attack.
    """
    from protocols.attacks import ATTACKS, run_catalogue

    known = {attack.id for attack in ATTACKS} | {attack.family for attack in ATTACKS}
    if unknown := sorted(set(ids) - known):
        families = ", ".join(dict.fromkeys(attack.family for attack in ATTACKS))
        raise ConfigError(
            "--id", f"{unknown[0]!r} is no attack of the catalogue; use {families}, or an id of the table"
        )
    with refusals_unseen():
        return [report.to_dict() for report in run_catalogue(ids or None)]


@contextmanager
def refusals_unseen() -> Iterator[None]:
    """Keep what attacked clients log about their refusals off stderr; who listens to the log gets it all the same."""
    clients, nowhere = logging.getLogger("protocols"), logging.NullHandler()
    clients.addHandler(nowhere)
    try:
        yield
    finally:
        clients.removeHandler(nowhere)
