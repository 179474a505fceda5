"""What the method is compared with on the same features: the frozen encoder alone, and one hospital's linear probe."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

PROBE_STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Inverse regularisation strengths C among which the probe's validation accuracy decides."""

_PROBE_ITERATIONS = 2000
_PREFIX = "probe."


def zero_shot(
    image_features: npt.NDArray[np.float32], text_features: npt.NDArray[np.float32], logit_scale: float
) -> npt.NDArray[np.float32]:
    """Return softmax(logit_scale * I . t_c) float32[N, C] of features float32[N, D] and class prompts float32[C, D]."""
    return _softmax(logit_scale * (image_features.astype(np.float64) @ text_features.T.astype(np.float64)))


@dataclass(frozen=True)
class LinearProbe:
    """Logistic regression on standardised features.

    Attributes:
        mean: float64[D], subtracted from the features.
        scale: float64[D], by which they are divided then.
        coefficients: float64[C, D].
        intercepts: float64[C]; minus infinity for classes without a training image.
    """

    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    coefficients: npt.NDArray[np.float64]
    intercepts: npt.NDArray[np.float64]

    def predict(self, image_features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return probabilities float32[N, C]."""
        return _softmax((image_features - self.mean) / self.scale @ self.coefficients.T + self.intercepts)

    def state(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the probe as named arrays."""
        return {_PREFIX + field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[np.generic]]) -> "LinearProbe | None":
        """Rebuild it from named arrays; None if they hold none."""
        if _PREFIX + "mean" not in state:
            return None
        return cls(*(state[_PREFIX + field.name].astype(np.float64) for field in fields(cls)))


def fit_linear_probe(
    train: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]],
    val: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]],
    num_classes: int,
) -> LinearProbe:
    """Fit a probe for each C of `PROBE_STRENGTHS` and return the best on validation images (of equals, the smallest C).

    Args:
        train: Features float32[N, D] and labels int64[N], at least one.
        val: The same for validation; may be empty.
        num_classes: Number C of classes.
    """
    features, labels = train
    scaler = StandardScaler().fit(features.astype(np.float64))
    present = np.unique(labels)
    if len(present) == 1:
        intercepts = np.where(np.arange(num_classes) == present[0], 0.0, -np.inf)
        return LinearProbe(scaler.mean_, scaler.scale_, np.zeros((num_classes, features.shape[1])), intercepts)
    best: tuple[float, LinearProbe] | None = None
    standardised = scaler.transform(features.astype(np.float64))
    for strength in PROBE_STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=_PROBE_ITERATIONS).fit(standardised, labels)
        coefficients = np.zeros((num_classes, features.shape[1]))
        intercepts = np.full(num_classes, -np.inf)
        # Of two classes scikit-learn keeps one row, the log odds of the second.
        coefficients[present[-len(model.coef_) :]] = model.coef_
        intercepts[present] = 0.0
        intercepts[present[-len(model.coef_) :]] = model.intercept_
        probe = LinearProbe(scaler.mean_, scaler.scale_, coefficients, intercepts)
        accuracy = float((probe.predict(val[0]).argmax(1) == val[1]).mean()) if len(val[1]) else 0.0
        if best is None or accuracy > best[0]:
            best = accuracy, probe
    assert best is not None  # noqa: S101 (narrows the type)
    return best[1]


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True)) if len(logits) else logits
    probabilities: npt.NDArray[np.float32] = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities
