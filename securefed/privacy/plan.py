"""What a configuration of the noise costs, and what a target needs: answers for a consortium before anything is run.

The modes that add shares are planned with Gaussian noise; the discrete noise of a run costs a little more, as its
report says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audit.accounting import (
    Adjacency,
    CalibrationError,
    Composition,
    Repeated,
    SampledGaussian,
    account,
    affordable_steps,
    calibrate_sampled_gaussian,
    share_multiplier,
    upper_epsilon,
)
from securefed.config import PrivacyConfig
from securefed.errors import ConfigError

_RATES = (0.05, 0.1, 0.25, 0.5, 1.0)
_POINTS = 12


@dataclass(frozen=True)
class Plan:
    """What was planned.

    Attributes:
        config: The privacy section, with the noise multiplier filled in.
        steps: Steps over all rounds.
        rounds: Rounds.
        hospitals: Hospitals that add shares; 1 where each adds the whole noise.
        images: Declared number of training images (or patients) of a hospital; 0 for unknown.
    """

    config: PrivacyConfig
    steps: int
    rounds: int
    hospitals: int
    images: int

    @property
    def composition(self) -> Composition:
        """What is released about one hospital's data, as whoever sees the sums alone sees it."""
        return _steps(self.config.noise_multiplier, self.config.sampling_rate, self.steps)


def make_plan(config: PrivacyConfig, rounds: int, hospitals: int, images: int) -> Plan:
    """Fill in the noise that the target needs.

    Args:
        config: The privacy section; with `noise_multiplier` the noise is that, otherwise calibrated to `epsilon`.
        rounds: Rounds of training.
        hospitals: Hospitals in a round.
        images: Declared number of units of a hospital; 0 for unknown.

    Raises:
        ConfigError: Privacy is off, or no noise meets the target.
    """
    if not config.enabled:
        raise ConfigError("privacy.mode", "a plan needs --dp local, distributed or hospital")
    steps = rounds * (config.steps if config.mode == "local" else 1)
    rate = 1.0 if config.mode == "hospital" else config.sampling_rate
    multiplier = config.noise_multiplier or _needed(config, rate, steps)
    filled = {**vars(config), "noise_multiplier": multiplier, "sampling_rate": rate}
    return Plan(PrivacyConfig(**filled), steps, rounds, 1 if config.mode == "local" else hospitals, images)


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
    if config.epsilon:
        step = _steps(config.noise_multiplier, config.sampling_rate, plan.steps // plan.rounds)
        described["rounds_within_target"] = affordable_steps(step, config.epsilon, delta, adjacency)
        described["rate_within_target"] = _largest_rate(plan)
        described["alternatives"] = _alternatives(plan)
    if plan.images:
        described["expected_units_a_step"] = plan.images * config.sampling_rate
        described["noise_over_units"] = config.noise_multiplier / (plan.images * plan.hospitals * config.sampling_rate)
    described["recommended"] = recommend(described)
    return described


def curve(plan: Plan) -> list[tuple[int, float]]:
    """Return (rounds, epsilon) from the first round to the last."""
    config, adjacency = plan.config, Adjacency(plan.config.adjacency)
    a_round = plan.steps // plan.rounds
    numbers = sorted({max(1, round(plan.rounds * k / _POINTS)) for k in range(1, _POINTS + 1)} | {1})
    return [
        (
            number,
            upper_epsilon(
                _steps(config.noise_multiplier, config.sampling_rate, a_round * number),
                config.delta,
                adjacency,
                coarse=True,
            ),
        )
        for number in numbers
    ]


def recommend(described: dict[str, Any]) -> list[str]:
    """Return advice in words, from a description's figures and from docs/privacy.md's measurements."""
    advice = []
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


def _needed(config: PrivacyConfig, rate: float, steps: int) -> float:
    try:
        return calibrate_sampled_gaussian(config.epsilon, config.delta, rate, steps, Adjacency(config.adjacency))
    except CalibrationError as error:
        raise ConfigError("privacy.epsilon", f"{error}; use fewer rounds or a larger epsilon") from error


def _views(plan: Plan) -> list[dict[str, Any]]:
    """Epsilon against whoever sees the sums, against colluders, and against whoever opens single updates."""
    config, delta, adjacency = plan.config, plan.config.delta, Adjacency(plan.config.adjacency)
    whole, n = config.noise_multiplier, plan.hospitals

    def against(multiplier: float) -> float:
        return upper_epsilon(_steps(multiplier, config.sampling_rate, plan.steps), delta, adjacency, coarse=True)

    if config.mode == "local":
        return [{"adversary": "everybody", "epsilon": against(whole)}]
    views = [{"adversary": "who sees the sums", "epsilon": against(whole)}]
    colluders = sorted({1, config.max_colluders} - {0})
    views += [
        {"adversary": f"{c} colluding hospitals", "epsilon": against(whole * ((n - c) / n) ** 0.5)}
        for c in colluders
        if c < n
    ]
    views.append({"adversary": "who opens a single update", "epsilon": against(share_multiplier(whole, n))})
    return views


def _largest_rate(plan: Plan) -> float | None:
    """The largest sampling rate at which this noise stays within the target, None where none does."""
    config, adjacency = plan.config, Adjacency(plan.config.adjacency)

    def meets(rate: float) -> bool:
        found = upper_epsilon(_steps(config.noise_multiplier, rate, plan.steps), config.delta, adjacency, coarse=True)
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
    config = plan.config
    if config.mode == "hospital":
        return []
    rows = []
    for rate in _RATES:
        try:
            needed = calibrate_sampled_gaussian(
                config.epsilon, config.delta, rate, plan.steps, Adjacency(config.adjacency)
            )
        except CalibrationError:
            continue
        signal = rate * plan.steps**0.5 / needed
        rows.append({"sampling_rate": rate, "noise_multiplier": needed, "signal": signal})
    return rows
