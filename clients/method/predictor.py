"""Prediction from what a run has stored: the shared vector and, at a hospital, its private state."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from clients.method.baselines import LinearProbe, zero_shot
from clients.method.layout import Vector, unflatten
from clients.method.parts import build_model, load_private_part, shared_part
from clients.method.prediction import Calibration, predict_parts
from clients.method.settings import TrainingSettings


class SitePredictor:
    """The trained model of one hospital; without its private state, the FAM alone (zero-shot where nothing is shared).

    Args:
        text_features: float32[C, D] of unit length.
        logit_scale: The encoder's factor on cosines.
        settings: As in training.
        method: As in training.
        global_vector: float32[d], the shared parameters.
        private_state: `Hospital.private_state` at the end of training, or None.
        device: torch device.

    Raises:
        ValueError: Vector or state do not fit method and settings.
    """

    def __init__(
        self,
        text_features: npt.NDArray[np.float32],
        logit_scale: float,
        settings: TrainingSettings,
        method: str,
        global_vector: Vector,
        private_state: Mapping[str, npt.NDArray[np.generic]] | None = None,
        device: str = "cpu",
    ) -> None:
        self._text_features = text_features
        self._logit_scale = logit_scale
        self._probe = None if private_state is None else LinearProbe.from_state(private_state)
        self._calibration = None if private_state is None else Calibration.from_state(private_state)
        if private_state is None:
            method = "fedclip" if global_vector.size else "zero-shot"
        self._model = build_model(text_features, logit_scale, settings, method, "", 0, device)
        if self._model is None:
            return
        shared = shared_part(self._model, method)
        size = sum(parameter.numel() for _, parameter in shared)
        unflatten(global_vector[:size] if private_state is None else global_vector, shared)
        if private_state is not None:
            load_private_part(self._model, method, private_state)

    def predict(self, image_features: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Return probabilities float32[N, C] of each part, as `Hospital.predict`, from features float32[N, D]."""
        if self._model is not None:
            return predict_parts(self._model, image_features, self._calibration)
        if self._probe is not None:
            return {"ensemble": self._probe.predict(image_features)}
        return {"ensemble": zero_shot(image_features, self._text_features, self._logit_scale)}
