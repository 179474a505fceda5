"""Prediction with what a run has stored: the shared vector and, where there is one, a hospital's private state."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from clients.method.baselines import LinearProbe, zero_shot
from clients.method.fam import FeatureAdaptationModule
from clients.method.layout import Vector, seeded_generator, shared_parameters, unflatten
from clients.method.mlp import PrivateMlp
from clients.method.model import HospitalModel
from clients.method.prediction import Calibration, predict_parts
from clients.method.settings import TrainingSettings

State = Mapping[str, npt.NDArray[np.generic]]

_PROBE = "probe."


def predict_stored(
    vector: Vector,
    private: State,
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
        private: What `Hospital.private_state` returned; empty for the shared part alone (or, without one, the encoder).
        image_features: float32[N, D], rows of unit length.
        text_features: float32[C, D], rows of unit length.
        logit_scale: The encoder's factor on cosines.
        settings: The settings of the run.
        method: Its method.
        device: torch device to predict on.

    Raises:
        ValueError: Vector or state do not fit the method and settings.
    """
    if any(name.startswith(_PROBE) for name in private):
        fields = ("mean", "scale", "coefficients", "intercepts")
        probe = LinearProbe(*(private[_PROBE + name].astype(np.float64) for name in fields))
        return {"ensemble": probe.predict(image_features)}
    tensors = {name: value for name, value in private.items() if name.split(".")[0] in ("fam", "mlp")}
    if not vector.size and not tensors:
        return {"ensemble": zero_shot(image_features, text_features, logit_scale)}
    model = _model(vector, tensors, text_features, logit_scale, settings, method).to(device)
    return predict_parts(model, image_features, Calibration.from_state(private))


def _model(
    vector: Vector,
    tensors: State,
    text_features: npt.NDArray[np.float32],
    logit_scale: float,
    settings: TrainingSettings,
    method: str,
) -> HospitalModel:
    num_classes, embed_dim = text_features.shape
    blank = seeded_generator("overwritten below", 0)
    fam = FeatureAdaptationModule(embed_dim, settings, blank)
    shares_mlp = method == "fedavg-mlp"
    has_mlp = shares_mlp or any(name.startswith("mlp.") for name in tensors)
    mlp = PrivateMlp(embed_dim, num_classes, settings, blank) if has_mlp else None
    model = HospitalModel(torch.from_numpy(np.array(text_features, np.float32)), logit_scale, settings, fam, mlp)
    if vector.size:
        unflatten(vector, shared_parameters(fam, mlp if shares_mlp else None))
    missing, unexpected = model.load_state_dict(
        {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}, strict=False
    )
    shared = {name for name, _ in shared_parameters(fam, mlp if shares_mlp else None)} if vector.size else set()
    unset = set(missing) - shared - {name for name, _ in model.named_buffers() if shares_mlp}
    if unexpected or unset:
        raise ValueError(f"the private state does not fit: {', '.join(sorted(unset | set(unexpected)))}")
    return model.eval()
