"""What a run with differential privacy claims, about what, and what it does not cover."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from audit.accounting import Adjacency
from audit.bounds import LARGEST_CLAIM, at_most
from securefed.config import PrivacyConfig, RunConfig
from securefed.privacy.mechanism import epsilon_of, local_cost, step_settings

CLAIMED = "CLAIMED"
NOT_CLAIMED = "NOT CLAIMED"


def verdict(config: RunConfig) -> str:
    """Return `CLAIMED` or `NOT CLAIMED`."""
    protected = config.privacy.enabled and config.privacy.noise == "system" and reached(config) <= LARGEST_CLAIM
    return CLAIMED if protected else NOT_CLAIMED


def reason(config: RunConfig) -> str:
    """Return the scope of the claim, or why there is none, in a sentence."""
    privacy = config.privacy
    if privacy.noise == "seeded":
        return (
            "the noise and the samples are reproducible from the seed of this run, so they protect nobody who knows "
            "it; run without --seed"
        )
    if (epsilon := reached(config)) > LARGEST_CLAIM:
        return too_large(epsilon)
    if config.federation.method == "fedclip":
        return f"{covered(privacy)}, in all updates of the FAM and all that follows from them; there is no private MLP"
    if privacy.coupling == "one-way":
        return (
            f"{covered(privacy)}, in all updates of the FAM and all that follows from them; the private MLP is trained "
            "without noise, is not covered and stays at its hospital"
        )
    return f"{covered(privacy)}, in all updates of the FAM, in the private MLP and in all that follows from the two"


def covered(privacy: PrivacyConfig) -> str:
    """Return what a claim within hospitals is about, in words."""
    return "training images" + (", those of a patient together" if privacy.unit == "patient" else "")


def reached(config: RunConfig) -> float:
    """Return what epsilon a whole run of the mode `local` may come to: its target, or the cost of its noise."""
    privacy, rounds = config.privacy, config.federation.rounds

    def cost() -> float:
        composition = tuple(local_cost(privacy, rounds).of_rounds(rounds))
        return epsilon_of(composition, privacy.delta, Adjacency(privacy.adjacency))

    return target_or_cost(privacy, cost)


def target_or_cost(privacy: PrivacyConfig, cost: Callable[[], float]) -> float:
    """Return the lesser of the target, where there is one, and of what all rounds cost; computed where it decides."""
    if not privacy.epsilon:
        return cost()
    calibrated = not privacy.noise_multiplier
    return privacy.epsilon if calibrated or privacy.epsilon <= LARGEST_CLAIM else min(cost(), privacy.epsilon)


def held_to_claim(privacy: PrivacyConfig, verdict: Callable[[], str]) -> PrivacyConfig:
    """Return the section with a target that keeps a run within what is claimed, whatever rounds are begun again.

    A claim is made before the first round, of the rounds that are planned. A round that would take a claimed run above
    LARGEST_CLAIM is therefore refused before it starts, where no smaller target ends the run before.

    Args:
        privacy: The section as configured.
        verdict: Returns whether privacy is claimed; called where no smaller target decides.
    """
    if 0 < privacy.epsilon <= LARGEST_CLAIM or verdict() != CLAIMED:
        return privacy
    return replace(privacy, epsilon=LARGEST_CLAIM)


def too_large(epsilon: float) -> str:
    """Return why an epsilon above LARGEST_CLAIM is not claimed."""
    size = f"it may come to {at_most(epsilon)}" if math.isfinite(epsilon) else "it is too large to be computed"
    return (
        f"no meaningful epsilon: {size}, and above {LARGEST_CLAIM:g} a bound excludes nothing (docs/privacy.md); raise "
        "privacy.noise_multiplier or give a smaller --epsilon"
    )


def unprotected(config: RunConfig, *, deployed: bool = False) -> list[str]:
    """Return the quantities that come from private data and that no noise covers."""
    where = "stay at the hospitals" if deployed else "in the run folder of this simulation"
    listed = [
        f"validation and test images: metrics on them are exact, and {where}",
        "which hospitals take part in a round and which are lost",
        "class names, prompts and hyperparameters, where they were chosen on these data (docs/privacy.md)",
        "how long a step takes at a hospital",
    ]
    if not deployed:
        listed += [
            "which kinds of problems there are in the data, such as broken images; not how many",
            "how long it took to encode the images, which the times of the record tell",
            "what attacks find on training images and in copies of the training, where audit attack has recorded them",
        ]
    if config.data.clients:
        listed.append(
            "to which client an image or patient was dealt (data.clients), which hangs on all of them: what is claimed "
            "holds among data sets of the clients as they were dealt"
        )
    if config.training.ensemble == "pool":
        listed.append(
            "temperatures and exponents of the ensemble, fitted on validation images without noise; they stay at the "
            "hospital, and its predictions depend on them"
        )
    if config.privacy.coupling == "one-way" and config.federation.method == "fedmedclip":
        listed.append("the private MLP and every prediction in which it has a part, the ensemble's among them")
    return listed


def claim_fields(config: RunConfig, *, deployed: bool = False, replayed: bool = False) -> dict[str, Any]:
    """Return the fields of the event `privacy_claim` of the mode `local`.

    Args:
        config: The run's configuration.
        deployed: Whether each hospital has a node of its own: what they replay there, nobody else sees.
        replayed: Whether all hospitals have replayed their steps (`clients.privacy.replay`).
    """
    privacy, settings = config.privacy, step_settings(config.privacy, config.federation.rounds)
    cost = local_cost(privacy, config.federation.rounds)
    fields: dict[str, Any] = {
        "mode": privacy.mode,
        "claim": verdict(config),
        "reason": reason(config),
        "unit": privacy.unit,
        "adjacency": privacy.adjacency,
        "delta": privacy.delta,
        "unprotected": unprotected(config, deployed=deployed),
        "values": {
            "clip_norms": ", ".join(map(str, settings.clip_norms)),
            "noise_multipliers": ", ".join(f"{value:.6g}" for value in settings.noise_multipliers),
            "noise": privacy.noise,
            "coupling": privacy.coupling,
            "sampling_rate": privacy.sampling_rate,
            "steps_a_round": cost.repetitions,
            "normaliser": privacy.normaliser,
            "centring_steps": privacy.centring_steps,
            **({"sensitivity_checked": True} if replayed else {}),
            # What the private step does in any case: clients/privacy/hospital.py and clipping.py
            "per_example_validated": True,
            "empty_batches": True,
            "non_finite_dropped": True,
        },
    }
    if privacy.epsilon:
        fields["target_epsilon"] = privacy.epsilon
    return fields


def privacy_summary(
    config: RunConfig, epsilon: float | None, *, deployed: bool = False, replayed: bool = False
) -> dict[str, Any]:
    """Return the block `privacy` of summary.json.

    Args:
        config: The run's configuration.
        epsilon: What the recorded releases cost the hospital that pays most; stated as None where that is infinite.
        deployed: Whether each hospital has a node of its own.
        replayed: Whether all hospitals have replayed their steps.
    """
    privacy = config.privacy
    fields = claim_fields(config, deployed=deployed, replayed=replayed)
    return {
        "mode": privacy.mode,
        "epsilon": epsilon if epsilon is not None and math.isfinite(epsilon) else None,
        "delta": privacy.delta,
        "unit": privacy.unit,
        "claim": f"{fields['claim']}: {fields['reason']}",
        "adjacency": privacy.adjacency,
        "target_epsilon": privacy.epsilon or None,
        "noise": privacy.noise,
        "coupling": privacy.coupling,
        "mechanism": fields["values"],
        "unprotected": fields["unprotected"],
    }
