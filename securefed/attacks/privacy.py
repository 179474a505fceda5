"""The privacy claim of a run against one-run auditing: does the noise hide what it is accounted to hide?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.accounting import Adjacency, Composition, upper_epsilon
from audit.bounds import at_most
from audit.check_epsilon import composition_of
from audit.empirical import MIN_CANARIES, audit_scores, curve_of, membership
from audit.history import RunHistory
from clients.encoders import FeatureBundle
from clients.privacy import PrivacySettings, Randomness
from securefed.attacks.canaries import AuditedHospital
from securefed.attacks.findings import Finding
from securefed.attacks.rates import rates_of
from securefed.config import RunConfig
from securefed.sum_terms import Vector

NAME = "one-run audit"
CONFIDENCE = 0.95


def audit_privacy(
    config: RunConfig,
    bundle: FeatureBundle,
    history: RunHistory,
    initial: Vector,
    *,
    site: str,
    canaries: int,
    coins: Randomness | None = None,
) -> list[Finding]:
    """Return what auditing a copy of the training at one hospital finds.

    Args:
        config: Configuration of the run.
        bundle: Its data.
        history: What it released; it claims differential privacy.
        initial: float32[d], the shared parameters before the first round.
        site: The hospital.
        canaries: How many, at least MIN_CANARIES for a bound that means something.
        coins: Who takes part, samples and noise; None for the operating system's entropy.
    """
    assert history.claim is not None  # noqa: S101 (the caller has looked)
    fields: Mapping[str, Any] = history.claim.fields
    if fields["mode"] != "local" or fields["unit"] != "image":
        run = f"of the mode {fields['mode']} at {fields['unit']} level"
        return [_not_tried(f"canaries are planted in the mode local at image level; this run is {run}")]
    released = releases_of(history, site)
    if not released:
        return [_not_tried(f"{site} released nothing in this run; name a hospital that did with --site")]
    if any(event["mechanism"] != released[0]["mechanism"] for event in released):
        return [_not_tried(f"the noise of {site} changes from one release to another; name another with --site")]
    settings = private_settings(config, released[0]["mechanism"])
    hospital = AuditedHospital(
        next(found for found in bundle.sites if found.site == site),
        bundle.text_features,
        bundle.logit_scale,
        config.training,
        settings,
        method=config.federation.method,
        seed=config.federation.seed,
    )
    source = coins or Randomness.of_the_system()
    included = hospital.plant(canaries, source)
    scores = hospital.watch(initial, [event.get("round", place) for place, event in enumerate(released, 1)], coins)
    adjacency = Adjacency(fields.get("adjacency", "add-or-remove-one"))
    return [judge(scores, included, composition_of(history, site), fields["delta"], adjacency)]


def judge(
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    composition: Composition,
    delta: float,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE_ONE,
) -> Finding:
    """Return the finding that the scores of canaries give about a claim.

    FAIL where the bound without assumptions exceeds the claimed epsilon, or where the claimed trade-off curve is
    refuted; both hold at the stated confidence. The bound for Gaussian mechanisms is stated beside them.

    Args:
        scores: float64[m].
        included: bool[m].
        composition: What was accounted.
        delta: Delta of the claim.
        adjacency: Neighbouring relation of the claim.
    """
    claimed = upper_epsilon(composition, delta, adjacency)
    found = audit_scores(scores, included, delta, curve_of(composition, adjacency, [(claimed, delta)]), CONFIDENCE)
    failed = bool(found.refuted) or found.epsilon > claimed
    rates = membership(scores[included], scores[~included])
    told = (
        f"More was found than the claim of epsilon {at_most(claimed)} allows: the claim does not hold."
        if failed
        else f"Nothing above the claim of epsilon {at_most(claimed)} was found, which does not prove it."
    )
    if len(scores) < MIN_CANARIES:
        told += f" With {len(scores)} canaries instead of {MIN_CANARIES} hardly anything could have been found."
    return Finding(
        NAME,
        "canaries in a copy of the training, every noisy sum seen",
        "FAIL" if failed else "PASS",
        {
            "epsilon_claimed": claimed,
            "epsilon_lower": max(found.epsilon, found.epsilon_gaussian),
            "epsilon_lower_without_assumptions": found.epsilon,
            "confidence": found.confidence,
            "canaries": found.canaries,
            "guesses": found.guesses,
            "correct": found.correct,
            **rates_of(rates),
        },
        told,
    )


def releases_of(history: RunHistory, site: str) -> list[Mapping[str, Any]]:
    """Return the privacy events of a site in the order of the log: what was accounted for it, round for round.

    A hospital that was lost before it trained has none; a round that was done again with fresh noise has two.
    """
    events = history.of_kind("privacy_event")
    return [event.fields for event in events if event.fields.get("hospital") in (None, site)]


def private_settings(config: RunConfig, mechanism: Mapping[str, Any]) -> PrivacySettings:
    """Return the private step of a recorded run: noise and sampling from its log, the rest from its configuration."""
    privacy = config.privacy
    several = mechanism.get("noise_multipliers") or [mechanism["noise_multiplier"]]
    norms = (privacy.fam_clip_norm, privacy.mlp_clip_norm) if privacy.clips_by_group else (privacy.clip_norm,)
    return PrivacySettings(
        unit=privacy.unit,
        coupling=privacy.coupling,
        clip_norms=norms[: len(several)],
        noise_multipliers=tuple(several),
        sampling_rate=mechanism.get("sampling_rate", 1.0),
        steps=privacy.steps,
        normaliser=privacy.normaliser,
        centring_steps=privacy.centring_steps,
    )


def _not_tried(why: str) -> Finding:
    return Finding(NAME, "not tried", "MEASURED", {}, f"Not tried: {why}.")
