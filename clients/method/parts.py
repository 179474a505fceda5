"""Which tensors of a hospital's model are shared and which stay at home, by method."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.method.fam import FeatureAdaptationModule
from clients.method.layout import seeded_generator, shared_parameters
from clients.method.mlp import PrivateMlp
from clients.method.model import HospitalModel
from clients.method.settings import AGGREGATED_METHODS, METHODS, SettingsError, TrainingSettings
from clients.precision import forbid_tf32

PrivateState = dict[str, npt.NDArray[np.generic]]


def build_model(
    text_features: npt.NDArray[np.float32],
    logit_scale: float,
    settings: TrainingSettings,
    method: str,
    site: str,
    seed: int,
    device: str,
    log_prior: npt.NDArray[np.float64] | None = None,
) -> HospitalModel | None:
    """Return a hospital's fresh model: the FAM as in `initial_vector`, an MLP of its own; None for baselines without.

    Without log class frequencies (float64[C]) all classes count alike. On a GPU products of float32 are float32 from
    then on.

    Raises:
        SettingsError: The method is unknown.
    """
    if method not in METHODS:
        raise SettingsError("method", f"is {method!r}; use one of {', '.join(METHODS)}")
    if method in ("zero-shot", "linear-probe"):
        return None
    if torch.device(device).type == "cuda":
        forbid_tf32()
    num_classes, embed_dim = text_features.shape
    fam = FeatureAdaptationModule(embed_dim, settings, seeded_generator("initial vector", seed))
    mlp = None
    if method != "fedclip":
        mlp = PrivateMlp(embed_dim, num_classes, settings, seeded_generator("private MLP", seed, site))
    text = torch.from_numpy(np.array(text_features, dtype=np.float32))
    prior = np.full(num_classes, -np.log(num_classes)) if log_prior is None else log_prior
    log_frequencies = torch.from_numpy(prior.astype(np.float32))
    return HospitalModel(text, logit_scale, settings, fam, mlp, log_frequencies).to(torch.device(device))


def shared_part(model: HospitalModel, method: str) -> list[tuple[str, nn.Parameter]]:
    """Return the named parameters that the method shares, in the order of `vector_layout`."""
    if method not in AGGREGATED_METHODS:
        return []
    return shared_parameters(model.fam, model.mlp if method == "fedavg-mlp" else None)


def private_part(model: HospitalModel, method: str) -> dict[str, Tensor]:
    """Return all other tensors of the model by name, batch-norm statistics among them."""
    shared = {name for name, _ in shared_part(model, method)}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in shared}


@torch.no_grad()
def load_private_part(model: HospitalModel, method: str, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Copy arrays named as in `private_part` into the model; names outside of the model are left alone.

    Raises:
        ValueError: Names or shapes do not fit the method and settings.
    """
    tensors = private_part(model, method)
    for name, tensor in checked_private_part(tensors, state).items():
        tensors[name].copy_(tensor)


def checked_private_part(like: Mapping[str, Tensor], state: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Tensor]:
    """Return a state's tensors (copies), named, shaped, typed and placed as `like`; other names are left alone.

    Raises:
        ValueError: Names or shapes do not fit.
    """
    given = {name for name in state if name == "log_prior" or name.startswith(("fam.", "mlp."))}
    if given != like.keys():
        raise ValueError(f"the private state does not fit these settings: {', '.join(sorted(given ^ like.keys()))}")
    for name, tensor in like.items():
        if state[name].shape != tuple(tensor.shape):
            raise ValueError(f"{name} has shape {state[name].shape}, these settings need {tuple(tensor.shape)}")
    return {name: torch.from_numpy(np.array(state[name])).to(tensor) for name, tensor in like.items()}
