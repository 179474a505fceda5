"""How good predictions are: the metrics of a split, from probabilities and labels."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, f1_score, recall_score, roc_auc_score

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class ClassificationMetrics:
    """Metrics of one part on one split; None where a metric is undefined.

    Attributes:
        num_images: Number of images N.
        accuracy: Share of images whose most probable class is the true one.
        balanced_accuracy: Mean recall over the classes that are present in the labels (not over all classes).
        macro_f1: Mean F1 over the same classes.
        auroc: Mean one-versus-rest area under the ROC curve over the classes that are present; None if fewer than two
            are.
        ece: Expected calibration error of the top probability, 15 bins of equal width.
    """

    num_images: int
    accuracy: float | None
    balanced_accuracy: float | None
    macro_f1: float | None
    auroc: float | None
    ece: float | None


METRIC_NAMES = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece")


class NonFiniteProbabilityError(ValueError):
    """A probability is NaN or infinite: the model's training has diverged."""

    def __init__(self) -> None:
        super().__init__(
            "a probability is not finite: the training of this model has diverged; train it again with lower learning "
            "rates"
        )


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability curve.

    Attributes:
        confidence: Mean top probability of the bin's images.
        accuracy: Share of them that is right.
        count: Their number, at least 1.
    """

    confidence: float
    accuracy: float
    count: int


def evaluate(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> ClassificationMetrics:
    """Return all metrics of probabilities float[N, C] against labels int[N] in [0, C).

    Raises:
        ValueError: Shapes do not fit, or a label is none.
        NonFiniteProbabilityError: A probability is not finite.
    """
    _check(probabilities, labels)
    if not len(labels):
        return ClassificationMetrics(0, None, None, None, None, None)
    predicted = probabilities.argmax(1)
    present = np.unique(labels)
    return ClassificationMetrics(
        num_images=len(labels),
        accuracy=float((predicted == labels).mean()),
        balanced_accuracy=float(recall_score(labels, predicted, labels=present, average="macro", zero_division=0)),
        macro_f1=float(f1_score(labels, predicted, labels=present, average="macro", zero_division=0)),
        auroc=_auroc(probabilities, labels, present),
        ece=_calibration_error(probabilities, labels),
    )


def mean_metrics(metrics: Iterable[ClassificationMetrics]) -> ClassificationMetrics:
    """Return the unweighted mean over sites (hospitals count alike, whatever their size); `num_images` is the sum.

    A site at which a metric is undefined does not enter that metric's mean.
    """
    sites = list(metrics)
    return ClassificationMetrics(sum(m.num_images for m in sites), *(_mean(sites, name) for name in METRIC_NAMES))


def worst_metrics(metrics: Iterable[ClassificationMetrics]) -> ClassificationMetrics:
    """Return each metric's worst value over sites (largest ECE, least of the others); `num_images` is the sum."""
    sites = list(metrics)
    worst: dict[str, float | None] = {}
    for name in METRIC_NAMES:
        values = [v for m in sites if (v := getattr(m, name)) is not None]
        worst[name] = (max if name == "ece" else min)(values) if values else None
    return ClassificationMetrics(sum(m.num_images for m in sites), *(worst[name] for name in METRIC_NAMES))


def as_mapping(metrics: ClassificationMetrics) -> dict[str, float | int | None]:
    """Return the metrics by name, for JSON and tables."""
    return {field.name: getattr(metrics, field.name) for field in fields(metrics)}


def confusion(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return counts int64[C, C]: row the true class, column the most probable one."""
    _check(probabilities, labels)
    num_classes = probabilities.shape[1]
    if not len(labels):
        return np.zeros((num_classes, num_classes), np.int64)
    counts: npt.NDArray[np.int64] = confusion_matrix(labels, probabilities.argmax(1), labels=np.arange(num_classes))
    return counts


def reliability_curve(
    probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], bins: int = CALIBRATION_BINS
) -> tuple[ReliabilityBin, ...]:
    """Return the bins of equal width over the top probability that hold an image, in ascending order."""
    _check(probabilities, labels)
    if not len(labels):
        return ()
    top = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    index = np.minimum((top * bins).astype(int), bins - 1)
    return tuple(
        ReliabilityBin(float(top[index == b].mean()), float(right[index == b].mean()), int((index == b).sum()))
        for b in np.unique(index)
    )


def _check(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> None:
    if probabilities.ndim != 2 or labels.shape != (len(probabilities),):
        raise ValueError(f"probabilities {probabilities.shape} and labels {labels.shape} do not fit together")
    if not np.isfinite(probabilities).all():
        raise NonFiniteProbabilityError
    if len(labels) and not (labels.min() >= 0 and labels.max() < probabilities.shape[1]):
        raise ValueError(f"labels must be in [0, {probabilities.shape[1]})")


def _auroc(
    probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], present: npt.NDArray[np.integer]
) -> float | None:
    """Average over the classes that are present, each against all other images of the split."""
    if len(present) < 2:
        return None
    return float(np.mean([roc_auc_score(labels == c, probabilities[:, c]) for c in present]))


def _calibration_error(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> float:
    """Return the mean over the images of |confidence - accuracy| of their bin: that of the reliability curve."""
    bins = reliability_curve(probabilities, labels)
    return math.fsum(b.count * abs(b.confidence - b.accuracy) for b in bins) / len(labels)


def _mean(sites: list[ClassificationMetrics], name: str) -> float | None:
    values = [v for m in sites if (v := getattr(m, name)) is not None]
    return math.fsum(values) / len(values) if values else None
