"""All attacks in order, and the one function that plays them."""

import time
from collections.abc import Iterable

from protocols.attacks import (
    ciphertexts,
    collusion,
    dropouts,
    earlier_runs,
    floors,
    inconsistent_models,
    inputs,
    keystreams,
    leaks,
    malicious_clients,
    noise,
    replays,
    ring_order,
    several_rounds,
    shares_of_both_kinds,
    stretches,
    substituted_keys,
    survivor_sets,
    tampered_shares,
)
from protocols.attacks.records import Attack, AttackReport

_MODULES = (
    shares_of_both_kinds,
    survivor_sets,
    substituted_keys,
    replays,
    earlier_runs,
    floors,
    inconsistent_models,
    dropouts,
    tampered_shares,
    ciphertexts,
    inputs,
    keystreams,
    collusion,
    leaks,
    several_rounds,
    stretches,
    noise,
    ring_order,
    malicious_clients,
)

ATTACKS: tuple[Attack, ...] = tuple(
    sorted(
        (attack for module in _MODULES for attack in module.ATTACKS),
        key=lambda attack: (int(attack.family[1:]), attack.id),
    )
)
"""The catalogue: A1 to A21, with their variants."""


def run_catalogue(ids: Iterable[str] | None = None) -> list[AttackReport]:
    """Play attacks against the installed build.

    Args:
        ids: Families (`A3`) or single attacks (`A3b`); all of them unless given.

    Returns:
        One report for each attack, in the order of the catalogue.

    Raises:
        KeyError: There is no such attack.
    """
    return [run_attack(attack) for attack in select(ids)]


def select(ids: Iterable[str] | None = None) -> tuple[Attack, ...]:
    """Return the attacks that ids name.

    Raises:
        KeyError: There is no such attack.
    """
    if ids is None:
        return ATTACKS
    wanted = list(dict.fromkeys(ids))
    known = {attack.id for attack in ATTACKS} | {attack.family for attack in ATTACKS}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise KeyError(", ".join(unknown))
    return tuple(attack for attack in ATTACKS if attack.id in wanted or attack.family in wanted)


def run_attack(attack: Attack) -> AttackReport:
    """Play one attack."""
    started = time.perf_counter()
    finding = attack.run()
    seconds = time.perf_counter() - started
    return AttackReport(
        attack.id, attack.title, attack.action, attack.expected, finding.outcome, finding.evidence, seconds
    )
