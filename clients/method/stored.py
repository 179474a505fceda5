"""Prediction with what a run has stored: the shared vector and, where there is one, a hospital's private state."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from clients.method.baselines import LinearProbe, zero_shot
from clients.method.layout import Vector, unflatten
from clients.method.parts import build_model, load_private_part, shared_part
from clients.method.prediction import Calibration, predict_parts
from clients.method.settings import TrainingSettings


def predict_stored(
    vector: Vector,
    private: Mapping[str, npt.NDArray[np.generic]],
    image_features: npt.NDArray[np.float32],
    text_features: npt.NDArray[np.float32],
    logit_scale: float,
    settings: TrainingSettings,
    method: str,
    device: str = "cpu",
) -> dict[str, npt.NDArray[np.float32]]:
    """Return {part: probabilities float32[N, C]} as the hospital computed them when the state was stored.

    Args:
        vector: float32[d], the shared parameters; float32[0] where the method shares none.
        private: What `Hospital.private_state` returned; empty for a place that did not train: there the FAM alone
            answers (all classes counting alike), or without one the encoder.
        image_features: float32[N, D], rows of unit length.
        text_features: float32[C, D], rows of unit length.
        logit_scale: The encoder's factor on cosines.
        settings: The settings of the run.
        method: Its method.
        device: torch device to predict on.

    Raises:
        ValueError: Vector or state do not fit the method and settings.
    """
    probe = LinearProbe.from_state(private)
    if probe is not None:
        return {"ensemble": probe.predict(image_features)}
    trained_here = bool(private)
    if not trained_here:
        method = "fedclip" if vector.size else "zero-shot"
    model = build_model(text_features, logit_scale, settings, method, site="", seed=0, device=device)
    if model is None:
        return {"ensemble": zero_shot(image_features, text_features, logit_scale)}
    shared = shared_part(model, method)
    fam_size = sum(parameter.numel() for parameter in model.fam.parameters())
    unflatten(vector if trained_here else vector[:fam_size], shared)
    if trained_here:
        load_private_part(model, method, private)
    return predict_parts(model, image_features, Calibration.from_state(private))
