"""Prediction by FAM and private MLP: of a hospital in training, and later from what a run has stored."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from clients.method.ensemble import Pool, entropy_ensemble, fit_pool
from clients.method.model import HospitalModel

Features = npt.NDArray[np.float32]

LogParts = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]
"""Log probabilities float64[N, C] of the FAM, and of the MLP where there is one."""

_PREFIX = "calibration."
_ROWS = 1024
"""Images at a time: what lies between the layers then stays in a core's cache, and is not asked of the system anew."""

_SMOOTHING = 1.0
"""Pseudo-count of each class in a hospital's class frequencies, so that a class it has not seen stays possible."""


@dataclass(frozen=True)
class Calibration:
    """What a hospital fits on its own validation images; private like the MLP.

    Attributes:
        fam: Temperature of the FAM, as a pool of one.
        mlp: The same of the MLP; None without one.
        ensemble: Exponents of FAM and MLP (if there is one).
    """

    fam: Pool
    mlp: Pool | None
    ensemble: Pool

    def state(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the calibration as named arrays."""
        pools = {"fam": self.fam, "mlp": self.mlp, "ensemble": self.ensemble}
        return {_PREFIX + name: np.array(pool.exponents) for name, pool in pools.items() if pool is not None}

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[np.generic]]) -> "Calibration | None":
        """Rebuild it from named arrays; None if they hold none."""
        if _PREFIX + "ensemble" not in state:
            return None

        def pool(name: str) -> Pool:
            return Pool(tuple(float(e) for e in state[_PREFIX + name]))

        return cls(pool("fam"), pool("mlp") if _PREFIX + "mlp" in state else None, pool("ensemble"))


@dataclass(frozen=True)
class Validated:
    """What a model says of a hospital's validation images.

    Attributes:
        parts: {part: probabilities float32[N, C]}.
        calibration: What was fitted on them; None where the settings have none.
        keep_ratios: {layer: share of rows that it keeps}.
    """

    parts: dict[str, npt.NDArray[np.float32]]
    calibration: Calibration | None
    keep_ratios: dict[str, float]


def log_class_frequencies(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float64]:
    """Return float64[C], the log of the smoothed class frequencies (n_c + 1) / (n + C)."""
    counts = np.bincount(labels, minlength=num_classes) + _SMOOTHING
    frequencies: npt.NDArray[np.float64] = np.log(counts / counts.sum())
    return frequencies


def calibrate(parts: LogParts, labels: npt.NDArray[np.int64]) -> Calibration:
    """Fit temperatures, around 1, and ensemble exponents, around 1/2 each, on validation images (none: these)."""
    fam, mlp = parts
    fam_alone = fit_pool([fam], labels, (1.0,))
    if mlp is None:
        return Calibration(fam_alone, None, fam_alone)
    return Calibration(fam_alone, fit_pool([mlp], labels, (1.0,)), fit_pool([fam, mlp], labels, (0.5, 0.5)))


def predict_parts(
    model: HospitalModel, image_features: Features, calibration: Calibration | None
) -> dict[str, npt.NDArray[np.float32]]:
    """Return what `answer` makes of a model's log probabilities on features float32[N, D]."""
    return answer(log_probabilities(model, image_features), calibration)


def answer(parts: LogParts, calibration: Calibration | None) -> dict[str, npt.NDArray[np.float32]]:
    """Return probabilities float32[N, C] of `fam`, `mlp` (if there is one) and `ensemble`.

    Without calibration the parts are plain softmaxes and the ensemble is the published one, weighted by entropy; a
    FAM on its own is its own ensemble.
    """
    fam, mlp = parts
    fam_alone = np.exp(fam).astype(np.float32) if calibration is None else calibration.fam(fam)
    if mlp is None:
        return {"fam": fam_alone, "ensemble": fam_alone}
    if calibration is None or calibration.mlp is None:
        mlp_alone, ensemble = np.exp(mlp).astype(np.float32), entropy_ensemble(fam, mlp)
    else:
        mlp_alone, ensemble = calibration.mlp(mlp), calibration.ensemble(fam, mlp)
    return {"fam": fam_alone, "mlp": mlp_alone, "ensemble": ensemble}


def log_probabilities(model: HospitalModel, image_features: Features) -> LogParts:
    """Return the log probabilities of FAM and MLP on features float32[N, D]."""
    x = torch.from_numpy(np.ascontiguousarray(image_features)).to(model.text_features.device)
    parts = [model.log_probabilities(rows) for rows in torch.split(x, _ROWS)]
    fam = torch.cat([part for part, _ in parts])
    with_mlp = [part for _, part in parts if part is not None]
    return fam.double().cpu().numpy(), torch.cat(with_mlp).double().cpu().numpy() if with_mlp else None
