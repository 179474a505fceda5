"""The mean feature of a hospital, measured by the first private steps: what all images share takes no clip norm then.

Features of medical images point into one narrow cone: two thirds of their squared length is their common mean. In a
gradient b a^T of a layer that sees them, that part tells classes apart no better than a bias does, but uses up the
clip norm. Once the mean m is known, private steps take gradients with respect to W and b' = b + W m, that is of y = W
(x - m) + b': the same model, whose update is mapped back to W and b after the noise was added.

A measuring step releases what every step releases, a sum over a Poisson sample of units of vectors of at most clip
norm, with the same noise: of v = (sqrt(3)/2 x, 1/2) instead of a gradient. The last entry counts the images, so that
nothing is divided by their number.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.method.model import HospitalModel
from clients.privacy.clipping import ClippedSum
from clients.privacy.randomness import Randomness
from clients.privacy.settings import PrivacySettings

_COUNTING = 0.5
"""Entry of v that counts; the rest of its unit length goes to the feature."""

_STATE = "centre."


class Centring:
    """What a hospital measures in the steps that `PrivacySettings.measuring_steps` names.

    Which steps these are is public and hangs on the number of the round alone: no sum mixes updates of zeros with those
    of hospitals that have trained.

    Privacy: each measuring step is one Gaussian mechanism with the noise multipliers of a training step, on the same
        kind of sample, and recorded as one of the steps; `mean` is a function of their results and of constants.

    Args:
        privacy: The private step.
        width: Width D of the features.
    """

    def __init__(self, privacy: PrivacySettings, width: int) -> None:
        self._privacy = privacy
        self._total = torch.zeros(width + 1, dtype=torch.float64)
        self._steps = 0

    @property
    def has_measured(self) -> bool:
        """Whether anything was measured: a hospital that was away in the first rounds trains without a mean."""
        return self._steps > 0

    @torch.no_grad()
    def measure(self, features: Tensor, units: Tensor, source: Randomness) -> None:
        """Take one measuring step.

        Args:
            features: float32[B, D], of the sample; rows of length above 1 are shortened, those that are not finite
                count as zero.
            units: int64[B], the unit of privacy of each row, counted from 0.
            source: Of the noise.
        """
        total = clipped_vectors(features.cpu(), units.cpu()).sum(0)
        multipliers = np.array(self._privacy.noise_multipliers)
        precision = 1 / np.maximum(multipliers, 1e-12) ** 2
        # One noisy copy for each clipping group, as in a training step; the best mean of them has the noise of one
        # mechanism, (sum_g z_g^-2)^(-1/2).
        for multiplier, weight in zip(multipliers, precision / precision.sum(), strict=True):
            noisy = total + multiplier * source.gaussian(len(total)).double()
            self._total += weight * noisy
        self._steps += 1

    def mean(self) -> Tensor:
        """Return float32[D], the mean feature as far as the noise lets it be known: shrunk to 0 by the noise's share.

        0 before anything was measured, and where the noise is of the size of what was measured.
        """
        width = len(self._total) - 1
        precision = sum(1 / max(z, 1e-12) ** 2 for z in self._privacy.noise_multipliers)
        variance = self._steps / precision
        count = float(self._total[-1]) / _COUNTING
        if not self._steps or count <= 2 * variance**0.5 / _COUNTING:
            return torch.zeros(width)
        summed = self._total[:-1] / (1 - _COUNTING**2) ** 0.5
        noise = width * variance / (1 - _COUNTING**2)
        kept = max(0.0, 1 - noise / max(float(summed.square().sum()), 1e-300))
        mean = kept * summed / count
        shortened: Tensor = (mean / max(1.0, float(mean.norm()))).float()
        return shortened

    def state(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return what was measured so far as named arrays."""
        if not self._privacy.centring_steps:
            return {}
        return {_STATE + "total": self._total.numpy().copy(), _STATE + "steps": np.array(self._steps)}

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Continue from arrays of `state`; without them from the start."""
        total = state.get(_STATE + "total")
        self._total = torch.zeros_like(self._total) if total is None else torch.from_numpy(np.array(total, np.float64))
        self._steps = int(state[_STATE + "steps"].item()) if _STATE + "steps" in state else 0


def layer_centres(mean: Tensor, model: HospitalModel, privacy: PrivacySettings) -> dict[str, Tensor]:
    """Return float32[in] by name, the centres of the inputs of the trained layers that see features.

    Args:
        mean: float32[D], the mean feature, on the model's device.
        model: The model.
        privacy: The private step.
    """
    centres = {"fam.first": model.fam.gain * mean}
    if privacy.coupling == "joint" and model.mlp is not None and model.mlp.input != "adapted":
        layer = "mlp.hidden.0" if len(model.mlp.hidden) else "mlp.head"
        before = torch.zeros_like(mean) if model.mlp.input == "both" else mean[:0]
        centres[layer] = torch.cat([before, model.mlp.gain * mean])
    return centres


def clipped_vectors(features: Tensor, units: Tensor) -> Tensor:
    """Return float64[U, D + 1], for each unit the sum of the vectors v of its rows, of length 1 or less.

    Args:
        features: float32[B, D].
        units: int64[B], counted from 0.
    """
    rows = features.double()
    rows = torch.where(torch.isfinite(rows).all(1, keepdim=True), rows, 0.0)
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1.0)
    counting = torch.full_like(rows[:, :1], _COUNTING)
    vectors = torch.cat([(1 - _COUNTING**2) ** 0.5 * rows, counting], 1)
    count = int(units.max()) + 1 if len(units) else 0
    summed = vectors.new_zeros(count, vectors.shape[1]).index_add_(0, units, vectors)
    clipped: Tensor = summed / summed.norm(dim=1, keepdim=True).clamp_min(1.0)
    return clipped


def measured_sum(features: Tensor, labels: Tensor, units: Tensor | None) -> ClippedSum:
    """Return the sum of a measuring step before its noise, as a sum of one group with the clip norm 1.

    Args:
        features: float32[B, D].
        labels: int64[B], not used.
        units: int64[B]; None where each row is one.
    """
    each = torch.arange(len(labels)) if units is None else units.cpu()
    return ClippedSum(((clipped_vectors(features.cpu(), each).sum(0),),), len(torch.unique(each)), 0)
