"""What a model is worth on a split of a site: metrics of each part, confusion matrix, reliability curve."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.metrics import (
    METRIC_NAMES,
    ClassificationMetrics,
    NonFiniteProbabilityError,
    as_mapping,
    confusion,
    evaluate,
    mean_metrics,
    reliability_curve,
    worst_metrics,
)
from securefed.errors import DivergedError
from securefed.run_folder import MetricRow

PlainMetrics = dict[str, dict[str, float | int | None]]


@dataclass(frozen=True)
class SiteEvaluation:
    """Metrics of one site on one split: {part: metrics}; confusion matrix and reliability curve are the ensemble's.

    Attributes:
        site: Its name.
        metrics: {part: metrics}.
        confusion: Counts, rows true class, columns predicted.
        reliability: {confidence, accuracy, count: one value a non-empty bin}.
    """

    site: str
    metrics: dict[str, ClassificationMetrics]
    confusion: list[list[int]]
    reliability: dict[str, list[float]]


def evaluate_site(site: str, parts: Mapping[str, NDArray[np.float32]], labels: NDArray[np.int64]) -> SiteEvaluation:
    """Compute all metrics of one site from probabilities float32[N, C] of each part and labels int64[N].

    The confusion matrix and the reliability curve are those of the `ensemble`, or of the only part.

    Raises:
        DivergedError: A probability is not finite.
    """
    shown = parts.get("ensemble", next(iter(parts.values())))
    try:
        metrics = {part: evaluate(probabilities, labels) for part, probabilities in parts.items()}
    except NonFiniteProbabilityError as error:
        raise DivergedError([site]) from error
    bins = reliability_curve(shown, labels)
    return SiteEvaluation(
        site,
        metrics,
        confusion(shown, labels).tolist(),
        {
            "confidence": [entry.confidence for entry in bins],
            "accuracy": [entry.accuracy for entry in bins],
            "count": [float(entry.count) for entry in bins],
        },
    )


def at_held_out_site(
    parts: Mapping[str, NDArray[np.float32]], method: str, *, shares: bool
) -> Mapping[str, NDArray[np.float32]]:
    """Call the encoder's own answers by their name where they would pass for those of another method.

    Args:
        parts: Probabilities at a site that did not train.
        method: The run's.
        shares: Whether its hospitals share parameters, which answer then.
    """
    return parts if shares or method == "zero-shot" else {"zero-shot": parts["ensemble"]}


def plain_metrics(metrics: Mapping[str, ClassificationMetrics]) -> PlainMetrics:
    """Return {part: {metric: value, None where undefined}}."""
    return {part: as_mapping(value) for part, value in metrics.items()}


def mean_over_sites(evaluations: Sequence[SiteEvaluation]) -> PlainMetrics:
    """Return {part: {metric: unweighted mean over the sites where it is defined}}."""
    return _over_sites(evaluations, mean_metrics)


def worst_site(evaluations: Sequence[SiteEvaluation]) -> PlainMetrics:
    """Return {part: {metric: value of the site where it is worst}}, each metric by itself."""
    return _over_sites(evaluations, worst_metrics)


def metric_rows(evaluation: SiteEvaluation, number: int, split: str) -> list[MetricRow]:
    """Return the lines of metrics.csv for one site; undefined metrics have none."""
    return [
        MetricRow(number, evaluation.site, split, part, name, value)
        for part, metrics in evaluation.metrics.items()
        for name in METRIC_NAMES
        if (value := getattr(metrics, name)) is not None
    ]


def _over_sites(
    evaluations: Sequence[SiteEvaluation], reduce: Callable[[Iterable[ClassificationMetrics]], ClassificationMetrics]
) -> PlainMetrics:
    parts = dict.fromkeys(part for evaluation in evaluations for part in evaluation.metrics)
    return {part: as_mapping(reduce(e.metrics[part] for e in evaluations if part in e.metrics)) for part in parts}
