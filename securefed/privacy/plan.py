"""What a configuration of the noise costs, and what a target needs: answers for a consortium before anything is run.

Everything is accounted as a run would account it: in the modes that add shares with the very grid, ring, norms and
integer noise that the run will use. Nobody is lost, unless it is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from audit.accounting import (
    Adjacency,
    Composition,
    Mechanism,
    Repeated,
    SampledGaussian,
    account,
    affordable_steps,
    against_broken_aggregation,
    against_colluders,
    bound_against,
    upper_epsilon,
)
from audit.bounds import LARGEST_CLAIM
from protocols.entropy import system_entropy
from protocols.errors import ProtocolError
from protocols.noise import NoisePlan
from protocols.roster import IdentityKey, Roster
from securefed.config import PrivacyConfig, RunConfig
from securefed.errors import ConfigError
from securefed.privacy.bearing import rounds_borne, too_few_rounds
from securefed.privacy.claim import CLAIMED, reason, too_large, verdict
from securefed.privacy.mechanism import calibrated
from securefed.privacy.rules import Broken
from securefed.privacy.shared_claim import laid_open, shared_reason, shared_verdict
from securefed.privacy.shared_noise import SHARED_MODES, dearest_sum, mechanism_of_sum, quietest_sum

_RATES = (0.05, 0.1, 0.25, 0.5, 1.0)
_POINTS = 12
_EMBED_DIM = 512
"""Width of features where none is named."""
_TOLERANCE = 1e-9
"""Relative; sums of floats in another order."""


@dataclass(frozen=True)
class Plan:
    """What was planned.

    Attributes:
        run: The configuration.
        config: Its privacy section, with the noise multiplier filled in.
        steps: Steps over all rounds.
        rounds: Rounds.
        hospitals: Hospitals that add shares; 1 where each adds the whole noise.
        images: Declared number of training images (or patients) of a hospital; 0 for unknown.
        embed_dim: Width of the encoder's features, which the length of the shared vector follows from.
        noise: Grid, ring and shares, where hospitals add the noise in shares.
    """

    run: RunConfig
    config: PrivacyConfig
    steps: int
    rounds: int
    hospitals: int
    images: int
    embed_dim: int
    noise: NoisePlan | None

    @property
    def composition(self) -> Composition:
        """What is released about one hospital's data, as whoever sees the sums alone sees it."""
        return self.of_rounds(self.rounds)

    def of_rounds(self, rounds: int, rate: float | None = None) -> Composition:
        """Return what so many rounds release, with this noise and another sampling rate."""
        rate = self.config.sampling_rate if rate is None else rate
        if self.noise is None:
            return _steps(self.config.noise_multiplier, rate, self.steps // self.rounds * rounds)
        return [Repeated(self._sum(self.noise, rate), rounds)]

    @staticmethod
    def _sum(noise: NoisePlan, rate: float) -> Mechanism:
        return mechanism_of_sum(noise, noise.request.clients, rate)


def make_plan(run: RunConfig, hospitals: int, images: int, embed_dim: int) -> Plan:
    """Fill in the noise that the target needs.

    Args:
        run: The configuration; with `privacy.noise_multiplier` the noise is that, otherwise calibrated to
            `privacy.epsilon` over all rounds.
        hospitals: Hospitals in a round.
        images: Declared number of units of a hospital; 0 for unknown.
        embed_dim: Width of the encoder's features.

    Raises:
        ConfigError: Privacy is off, a number cannot be meant, or no noise meets the target.
    """
    for name, value, least in (("hospitals", hospitals, 1), ("images", images, 0), ("embed-dim", embed_dim, 1)):
        if value < least:
            raise ConfigError(f"--{name}", f"{value}: use {least} or more")
    config, rounds = run.privacy, run.federation.rounds
    if not config.enabled:
        raise ConfigError("privacy.mode", "a plan needs --dp local, distributed or hospital")
    if config.mode not in SHARED_MODES:
        steps = rounds * config.steps
        multiplier = config.noise_multiplier or _needed(config, steps)
        filled = replace(config, noise_multiplier=multiplier)
        return Plan(run, filled, steps, rounds, 1, images, embed_dim, None)
    noise = _shared(run, hospitals, embed_dim)
    filled = replace(config, noise_multiplier=noise.request.noise_multiplier)
    return Plan(run, filled, rounds, rounds, hospitals, images, embed_dim, noise)


def unclaimable(run: RunConfig, hospitals: int | None, broken: Sequence[Broken] = ()) -> list[Broken]:
    """Return why a configuration would not be run, or would claim or release nothing, beside the rules that it breaks.

    Whether anything is claimed is asked of the functions that make the claim of a run.

    Args:
        run: The configuration.
        hospitals: Hospitals in a round; None where that is not known: then nothing is found about how much noise in
            shares there is.
        broken: The rules that it breaks: what they say of a key is not said again, and without private training (P12)
            nothing is found.
    """
    if any(rule.rule == "P12" for rule in broken):
        return []
    if any(rule.rule == "P10" for rule in broken):
        run = replace(run, privacy=replace(run.privacy, noise="system"))
    if any(rule.rule == "P15" for rule in broken):
        run = replace(run, secure_aggregation=replace(run.secure_aggregation, compression="none"))
    said = {rule.key for rule in broken}
    return [found for found in _unclaimable(run, hospitals) if found.key not in said]


def _unclaimable(run: RunConfig, hospitals: int | None) -> list[Broken]:
    if not run.privacy.enabled:
        off = "off: no noise is added, and every run says NOT CLAIMED; use local, distributed or hospital"
        return [Broken("claim", "privacy.mode", off)]
    if run.privacy.mode in SHARED_MODES and (why := laid_open(run)):
        return [Broken("claim", "secure_aggregation.enabled", f"false: {why}; use true")]
    if _is_open(run, hospitals):
        return []
    try:
        noise = _noise_of(run, hospitals)
    except ConfigError as error:
        return [Broken("noise", error.key, error.reason)]
    found = []
    if (verdict(run) if noise is None else shared_verdict(run, noise)) != CLAIMED:
        why = reason(run) if noise is None else shared_reason(run, noise)
        found.append(Broken("claim", "privacy.epsilon", why))
    if rounds_borne(run, noise) == 0:
        found.append(Broken("rounds", "privacy.noise_multiplier", too_few_rounds(run, noise)))
    return found


def cut_short(run: RunConfig, hospitals: int | None) -> str:
    """Return why the target ends a run before its last round; "" where it does not, or where that is not known.

    Raises:
        ConfigError: There is no such noise.
    """
    if _is_open(run, hospitals) or not run.privacy.noise_multiplier:
        return ""
    return too_few_rounds(run, _noise_of(run, hospitals))


def _is_open(run: RunConfig, hospitals: int | None) -> bool:
    """Whether the noise hangs on how many hospitals there are, and that is not known."""
    return run.privacy.mode in SHARED_MODES and hospitals is None


def _noise_of(run: RunConfig, hospitals: int | None) -> NoisePlan | None:
    return make_plan(run, 1 if hospitals is None else hospitals, 0, _EMBED_DIM).noise


def describe(plan: Plan) -> dict[str, Any]:
    """Return the plan's costs and its alternatives as plain values; infinite costs are None."""
    config, delta, adjacency = plan.config, plan.config.delta, Adjacency(plan.config.adjacency)
    cost = account(plan.composition, delta, adjacency)
    described: dict[str, Any] = {
        "mode": config.mode,
        "unit": config.unit,
        "adjacency": config.adjacency,
        "delta": delta,
        "target_epsilon": config.epsilon or None,
        "rounds": plan.rounds,
        "steps": plan.steps,
        "sampling_rate": config.sampling_rate,
        "noise_multiplier": config.noise_multiplier,
        "epsilon": cost.upper,
        "epsilon_at_least": cost.lower,
        "accountant": cost.accountant,
        "cross_checks": dict(cost.cross_checks),
        "contradictions": list(cost.contradictions),
        "epsilon_replace_one": upper_epsilon(plan.composition, delta, Adjacency.REPLACE_ONE),
        "by_rounds": [{"rounds": n, "epsilon": value} for n, value in curve(plan)],
        "against": _views(plan),
    }
    if plan.noise is not None:
        request = plan.noise.request
        described["noise"] = {
            "mechanism": request.kind.value,
            "dropout_noise": request.dropout.value,
            "dimension": request.dimension,
            "ring_bits": plan.noise.ring_bits,
            "deviation_in_grid_steps": plan.noise.variance**0.5,
            "min_survivors": request.min_survivors,
        }
        shares = request.clients * plan.noise.share_variance(request.clients) / plan.noise.variance
        gaussian = _steps(config.noise_multiplier * shares**0.5, config.sampling_rate, plan.steps)
        described["cross_checks"]["continuous Gaussian"] = upper_epsilon(gaussian, delta, adjacency)
    if config.epsilon:
        step = plan.of_rounds(1) if plan.noise is None else dearest_sum(plan.noise, config.sampling_rate)
        described["rounds_within_target"] = affordable_steps(step, config.epsilon, delta, adjacency)
        described["rate_within_target"] = _largest_rate(plan)
        described["alternatives"] = _alternatives(plan)
    if plan.images:
        described["expected_units_a_step"] = plan.images * config.sampling_rate
        described["images"] = plan.images
        described["noise_over_units"] = config.noise_multiplier / (plan.images * plan.hospitals * config.sampling_rate)
    described["recommended"] = recommend(described)
    return described


def curve(plan: Plan) -> list[tuple[int, float]]:
    """Return (rounds, epsilon) from the first round to the last."""
    config, adjacency = plan.config, Adjacency(plan.config.adjacency)
    numbers = sorted({max(1, round(plan.rounds * k / _POINTS)) for k in range(1, _POINTS + 1)} | {1})
    return [(n, upper_epsilon(plan.of_rounds(n), config.delta, adjacency)) for n in numbers]


def recommend(described: dict[str, Any]) -> list[str]:
    """Return advice in words, from a description's figures and from docs/privacy.md's measurements."""
    advice = []
    if described["epsilon"] > LARGEST_CLAIM:
        advice.append(f"more noise: {too_large(described['epsilon'])}")
    if described["delta"] * described.get("images", 0) >= 1:
        advice.append(
            f"a smaller delta: {described['delta']:g} is at least one over the {described['images']} units of a "
            "hospital, so that giving one of them away as it is would be within the promise"
        )
    if described["mode"] == "hospital":
        advice.append(
            "hiding a whole hospital among few costs more noise than learning bears; --dp local protects images or "
            "patients at a fraction of it"
        )
        return advice
    alternatives = described.get("alternatives", [])
    if alternatives:
        best = max(alternatives, key=lambda row: row["signal"])
        advice.append(
            f"sampling rate {best['sampling_rate']:g} with noise multiplier {best['noise_multiplier']:.3g}: of the "
            f"rates tried its sums stand out most from the noise ({best['signal']:.3g} per unit, in clip norms)"
        )
    advice.append(
        "--profile private: a FAM of 64 hidden units and a linear head, each with a clip norm of its own"
        if described["mode"] == "local"
        else "--profile private-one-way: a FAM of 64 hidden units; its narrow vector also saves bytes"
    )
    noise = described.get("noise_over_units")
    if noise is not None and noise > 0.1:
        advice.append(
            f"in any direction the noise of a step is {noise:.2g} of what all its units can add up to at most: expect "
            "little; use a larger epsilon, or train together with more images"
        )
    return advice


def plot_plan(plan: Plan, folder: Any) -> None:
    """Draw epsilon against rounds as SVG and PNG in a folder."""
    from securefed.plots.style import figure, look

    points = curve(plan)
    with figure(folder, "privacy-plan") as drawing:
        axes = drawing.add_subplot()
        axes.plot([number for number, _ in points], [epsilon for _, epsilon in points], **look(0))
        if plan.config.epsilon:
            axes.axhline(plan.config.epsilon, color="#333333", linestyle="--")
        axes.set_xlabel("rounds")
        axes.set_ylabel(f"epsilon at delta {plan.config.delta:g}")
        axes.set_ylim(bottom=0)
        axes.set_title(
            f"{plan.config.mode}, {plan.config.unit} level: noise multiplier {plan.config.noise_multiplier:.3g}, "
            f"rate {plan.config.sampling_rate:g}"
        )


def _steps(multiplier: float, rate: float, count: int) -> Sequence[Repeated]:
    return [Repeated(SampledGaussian(multiplier, rate), count)]


def _needed(config: PrivacyConfig, steps: int) -> float:
    return calibrated(config.epsilon, config.delta, config.sampling_rate, steps, Adjacency(config.adjacency))


def _shared(run: RunConfig, hospitals: int, embed_dim: int) -> NoisePlan:
    """The noise of a run with so many hospitals, as the run itself derives it."""
    from securefed.sum_terms import SumTerms

    roster = Roster.of({f"hospital {n}": IdentityKey.generate(system_entropy) for n in range(1, hospitals + 1)})
    try:
        noise = SumTerms(run, roster, embed_dim, 2).noise
    except ProtocolError as error:
        raise ConfigError("--hospitals", f"{hospitals}: {error}") from error
    assert noise is not None  # noqa: S101 (the mode adds shares)
    return noise


def _views(plan: Plan) -> list[dict[str, Any]]:
    """Epsilon against whoever sees the sums, against colluders, and against whoever opens single updates."""
    config, adjacency = plan.config, Adjacency(plan.config.adjacency)

    def cost(composition: Composition) -> float:
        return upper_epsilon(composition, config.delta, adjacency)

    if plan.noise is None:
        return [{"adversary": "everybody", "epsilon": cost(plan.composition)}]
    request = plan.noise.request
    fewest = [Repeated(quietest_sum(plan.noise, config.sampling_rate), plan.rounds)]
    whole = cost(plan.composition)
    views: list[dict[str, Any]] = [{"adversary": "who sees the sums", "epsilon": whole}]
    if cost(fewest) > whole * (1 + _TOLERANCE):
        views.append({"adversary": f"... of {request.min_survivors} survivors", "epsilon": cost(fewest)})
    colluders = sorted({1, config.max_colluders} - {0})
    views += [
        {
            "adversary": f"{c} colluding hospital{'' if c == 1 else 's'}",
            "epsilon": cost(against_colluders(plan.composition, c)),
        }
        for c in colluders
        if c < request.clients
    ]
    broken = cost(against_broken_aggregation(plan.composition))
    return [*views, {"adversary": "who opens a single update", "epsilon": broken}]


def _largest_rate(plan: Plan) -> float | None:
    """The largest sampling rate at which this noise stays within the target, None where none does."""
    config, adjacency = plan.config, Adjacency(plan.config.adjacency)

    def meets(rate: float) -> bool:
        found = bound_against(plan.of_rounds(plan.rounds, rate), config.epsilon, config.delta, adjacency)
        return found <= config.epsilon

    if meets(1.0):
        return 1.0
    low, high = 1e-4, 1.0
    if not meets(low):
        return None
    while high > low * 1.01:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low


def _alternatives(plan: Plan) -> list[dict[str, float]]:
    """For some sampling rates the noise that the target needs, and how far a sum over all steps stands out from it."""
    if plan.config.mode == "hospital":
        return []
    rows = []
    for rate in _RATES:
        other = replace(plan.run.privacy, sampling_rate=rate, noise_multiplier=0.0)
        try:
            if plan.noise is None:
                needed = _needed(other, plan.steps)
            else:
                run = replace(plan.run, privacy=other)
                needed = _shared(run, plan.hospitals, plan.embed_dim).request.noise_multiplier
        except ConfigError:
            continue
        signal = rate * plan.steps**0.5 / needed
        rows.append({"sampling_rate": rate, "noise_multiplier": needed, "signal": signal})
    return rows
