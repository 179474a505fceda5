"""What a run with noise in shares claims, against whom, and what it does not cover."""

from collections.abc import Mapping
from typing import Any

from audit.accounting import Adjacency, Repeated, against_colluders, upper_epsilon
from audit.bounds import LARGEST_CLAIM, at_most
from protocols.noise import NoisePlan
from protocols.parameters import default_corrupt
from securefed.config import RunConfig
from securefed.privacy.claim import CLAIMED, NOT_CLAIMED, covered, target_or_cost, too_large, unprotected
from securefed.privacy.shared_noise import dearest_sum, mechanism_of_sum, noise_facts, rate_of


def shared_verdict(config: RunConfig, plan: NoisePlan) -> str:
    """Return `CLAIMED` or `NOT CLAIMED`."""
    kept = not laid_open(config)
    return CLAIMED if kept and shared_reached(config, plan) <= LARGEST_CLAIM else NOT_CLAIMED


def laid_open(config: RunConfig) -> str:
    """Return why noise in shares protects nobody here, however much there is of it; "" where it does."""
    if config.privacy.noise == "seeded":
        return (
            "noise and samples are reproducible from the seed of this run, so they protect nobody who knows it; run "
            "without --seed"
        )
    if not config.secure_aggregation.enabled:
        return (
            "vectors were sent in clear, each with one share of the noise; the sum alone has what is stated, and the "
            "server saw more than the sum"
        )
    return ""


def shared_reached(config: RunConfig, plan: NoisePlan) -> float:
    """Return what epsilon a whole run may come to, against the colluders it provides for: its target, or its cost."""
    privacy, rounds = config.privacy, config.federation.rounds

    def cost() -> float:
        sums = [Repeated(part.mechanism, rounds) for part in dearest_sum(plan, rate_of(privacy))]
        return upper_epsilon(sums, privacy.delta, Adjacency(privacy.adjacency))

    return target_or_cost(privacy, cost)


def shared_reason(config: RunConfig, plan: NoisePlan) -> str:
    """Return the scope of the claim, or why there is none, in a sentence or two."""
    privacy = config.privacy
    if why := laid_open(config):
        return why
    if (epsilon := shared_reached(config, plan)) > LARGEST_CLAIM:
        return too_large(epsilon)
    whom = "against whoever sees only the sums and what follows from them"
    if privacy.max_colluders:
        whom += f", also with {privacy.max_colluders} hospitals that know their own noise"
    if privacy.mode == "hospital":
        return f"all data of a hospital, in all that follows from its updates of the FAM, {whom}"
    alone = "; the private MLP is trained without noise, is not covered and stays at its hospital"
    claimed = f"{covered(privacy)}, in the FAM and all that follows from it, {whom}"
    return claimed + (alone if config.federation.method == "fedmedclip" else "")


def shared_claim(config: RunConfig, plan: NoisePlan, *, deployed: bool = False) -> dict[str, Any]:
    """Return the fields of the event `privacy_claim`; `deployed` for hospitals with nodes of their own."""
    privacy = config.privacy
    fields: dict[str, Any] = {
        "mode": privacy.mode,
        "claim": shared_verdict(config, plan),
        "reason": shared_reason(config, plan),
        "unit": privacy.unit,
        "adjacency": privacy.adjacency,
        "delta": privacy.delta,
        "unprotected": _unprotected(config, deployed=deployed),
        "values": {
            **noise_facts(plan),
            "noise": privacy.noise,
            "coupling": privacy.coupling,
            "sampling_rate": rate_of(privacy),
            "steps_a_round": 1,  # rule P11
            "normaliser": privacy.normaliser,
        },
    }
    if privacy.epsilon:
        fields["target_epsilon"] = privacy.epsilon
    return fields


def shared_summary(
    config: RunConfig, plan: NoisePlan, views: Mapping[str, Any], *, deployed: bool = False
) -> dict[str, Any]:
    """Return the block `privacy` of summary.json.

    Args:
        config: The run's configuration.
        plan: Grid, ring and noise.
        views: {adversary: epsilon}, `aggregate_only` among them; None for infinity.
        deployed: Whether each hospital has a node of its own.
    """
    privacy, fields = config.privacy, shared_claim(config, plan, deployed=deployed)
    return {
        "mode": privacy.mode,
        "epsilon": views["aggregate_only"],
        "delta": privacy.delta,
        "unit": privacy.unit,
        "claim": f"{fields['claim']}: {fields['reason']}",
        "adjacency": privacy.adjacency,
        "target_epsilon": privacy.epsilon or None,
        "epsilon_by_adversary": dict(views),
        "noise": privacy.noise,
        "coupling": privacy.coupling,
        "mechanism": fields["values"],
        "unprotected": fields["unprotected"],
    }


def shared_notes(config: RunConfig, plan: NoisePlan, affordable: int | None) -> list[str]:
    """Return what a watcher should know before the first round."""
    privacy, request = config.privacy, plan.request
    shares = f"in shares of {request.clients} hospitals ({request.dropout.value}), {plan.ring_bits} bits a coordinate"
    lines = [
        f"differential privacy: {privacy.mode}, {privacy.unit} level, {privacy.adjacency}, delta {privacy.delta:g}",
        f"{request.kind.value} noise of {request.noise_multiplier:.4g} clip norms on the sum, {shares}",
    ]
    if privacy.mode == "hospital":
        whole = request.noise_multiplier * request.dimension**0.5 / request.clients
        lines.append(
            f"the unit is a whole hospital and there are {request.clients}: the noise on the mean update is "
            f"{whole:.0f} times as long as the longest update. Few hospitals cannot hide one of them and learn much"
        )
    secure = config.secure_aggregation
    helpers = max(1, default_corrupt(request.clients) if secure.corrupt < 0 else secure.corrupt)
    if secure.enabled and privacy.noise == "system" and privacy.max_colluders < helpers:
        lines.append(_beyond_colluders(config, plan, helpers))
    if affordable is not None and affordable < config.federation.rounds:
        lines.append(f"epsilon {privacy.epsilon:g} allows {affordable} of {config.federation.rounds} rounds")
    return lines


def _beyond_colluders(config: RunConfig, plan: NoisePlan, helpers: int) -> str:
    """What all rounds cost against the helpers that the masks bear, where the noise provides for fewer."""
    privacy, rounds = config.privacy, config.federation.rounds
    mechanism = mechanism_of_sum(plan, plan.request.min_survivors, rate_of(privacy))
    seen = against_colluders([Repeated(mechanism, rounds)], helpers)
    epsilon = upper_epsilon(seen, privacy.delta, Adjacency(privacy.adjacency))
    whom = "a hospital that takes part" if helpers == 1 else f"{helpers} hospitals that take part"
    return (
        f"against {whom}, or a server with their help, epsilon of all rounds may come to {at_most(epsilon)}, as each "
        f"knows its own noise; privacy.max_colluders={helpers} holds the target against them too"
    )


def _unprotected(config: RunConfig, *, deployed: bool) -> list[str]:
    listed = unprotected(config, deployed=deployed)
    if config.privacy.mode == "hospital":
        listed.append("each hospital's MLP and every prediction in which it has a part; they stay at the hospital")
    listed.append("a single hospital's vector, if secure aggregation fails: it carries one share of the noise")
    return listed
