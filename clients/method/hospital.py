"""One hospital: trains on its own features, hands out an update of the shared vector and nothing else."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from clients.method.baselines import LinearProbe, fit_linear_probe, zero_shot
from clients.method.crew import HospitalRows
from clients.method.kept import kept_copies
from clients.method.layout import Vector, seeded_generator
from clients.method.lean.fleet import Fleet
from clients.method.lean.stack import Trained, Trainee
from clients.method.lean.validation import Said
from clients.method.model import HospitalModel
from clients.method.parts import PrivateState, build_model, checked_private_part, private_part
from clients.method.prediction import (
    Calibration,
    Features,
    Validated,
    answer,
    calibrate,
    log_class_frequencies,
    log_probabilities,
)
from clients.method.settings import TrainingSettings
from clients.method.training import class_weights, refresh_batch_norm
from clients.method.workbench import PrivateTensors, TrainingRows, Workbench, Workbenches
from clients.metrics import ClassificationMetrics, evaluate


class LabelledRows(Protocol):
    """Features float32[N, D] with rows of unit length, and labels int64[N]."""

    @property
    def features(self) -> npt.NDArray[np.float32]: ...  # noqa: D102 (the class says it)
    @property
    def labels(self) -> npt.NDArray[np.int64]: ...  # noqa: D102


class HospitalFeatures(Protocol):
    """The encoder's features of one hospital's splits."""

    @property
    def site(self) -> str: ...  # noqa: D102
    @property
    def train(self) -> LabelledRows: ...  # noqa: D102
    @property
    def val(self) -> LabelledRows: ...  # noqa: D102
    @property
    def test(self) -> LabelledRows: ...  # noqa: D102


class Hospital:
    """A client of the federation.

    Whatever is random in round r depends on (seed, site, r) alone, so a resumed run equals an uninterrupted one,
    whichever other hospitals are in the process and in whichever order they train. On one CPU thread results are the
    same bit for bit.

    Secrecy: what `train_round` returns leaves the hospital (under secure aggregation); everything else, above all
        `private_state`, stays.

    Args:
        site: Features and labels of the hospital.
        text_features: float32[C, D] of unit length, one row a class prompt.
        logit_scale: The encoder's factor on cosines.
        settings: Hyperparameters.
        method: One of `METHODS`.
        seed: Seed of the run.
        device: torch device to train on.
        benches: Where to train; hospitals of one simulation share them. None for one of its own.

    Raises:
        SettingsError: The method is unknown.
    """

    def __init__(
        self,
        site: HospitalFeatures,
        text_features: npt.NDArray[np.float32],
        logit_scale: float,
        settings: TrainingSettings,
        method: str = "fedmedclip",
        seed: int = 0,
        device: str = "cpu",
        benches: Workbenches | None = None,
    ) -> None:
        self.site = site
        self.method = method
        self._settings = settings
        self._seed = seed
        self._device = torch.device(device)
        self._text_features = text_features
        self._logit_scale = logit_scale
        self._probe: LinearProbe | None = None
        log_prior = log_class_frequencies(site.train.labels, len(text_features))
        model = build_model(text_features, logit_scale, settings, method, site.site, seed, device, log_prior)
        self._private: PrivateTensors | None = None if model is None else kept_copies(private_part(model, method))
        self._benches = benches or workbenches(text_features, logit_scale, settings, method, device)
        self._calibration: Calibration | None = None
        self._calibrated_for: Vector | None = None
        self._train = None if model is None else self._to_device(site.train)
        self._weights = class_weights(site.train.labels, len(text_features), settings.class_balance)
        self._class_weights = None if self._weights is None else torch.from_numpy(self._weights).to(self._device)
        self._kept_rows: tuple[Vector, dict[str, float]] | None = None
        self._validation: torch.Tensor | None = None
        self._arrays: tuple[PrivateTensors, Mapping[str, npt.NDArray[np.generic]]] | None = None

    def train_round(self, global_vector: Vector, round_number: int) -> Vector:
        """Train one round from the global parameters and return the update, local minus global: float32[d].

        Methods that share nothing train all the same and return float32[0].

        Args:
            global_vector: float32[d], the shared parameters; float32[0] for methods that share nothing.
            round_number: Counted from 1; decides the learning rate and the random numbers.

        Raises:
            ValueError: The vector's length does not fit.
        """
        if self._private is None or self._train is None:
            if self.method == "linear-probe" and self._probe is None:
                self._fit_probe()
            return np.zeros(0, np.float32)
        rows = TrainingRows(self.site.site, self._seed, *self._train, self._class_weights)
        self._private, update = self._benches.train_round(rows, global_vector, self._private, round_number)
        self._calibrated_for = None
        return update

    def rows_for_a_crew(self) -> HospitalRows:
        """Return what processes need that train for this hospital."""
        train, val = self.site.train, self.site.val
        return HospitalRows(train.features, train.labels, self._weights, val.features, val.labels)

    @property
    def private_tensors(self) -> PrivateTensors | None:
        """What the hospital has learned for itself; None for methods that train no model. Stays at the hospital."""
        return self._private

    def trainee(self, round_number: int) -> Trainee | None:
        """Return what a fleet needs to train a round here, None for methods that train no model."""
        if self._private is None or self._train is None:
            return None

        def generator() -> torch.Generator:
            return seeded_generator("round", self._seed, self.site.site, round_number, device=self._device)

        if self._validation is None:
            self._validation = torch.from_numpy(np.array(self.site.val.features, dtype=np.float32)).to(self._device)
        return Trainee(*self._train, self._class_weights, self._private, generator, self._validation)

    def adopt(self, trained: Trained) -> Vector:
        """Take over what a fleet has trained for this hospital in place of `train_round`; return the update."""
        self._private, self._calibrated_for = trained.private, None
        self._arrays = None if trained.arrays is None else (trained.private, trained.arrays)
        return trained.update

    def hear(self, global_vector: Vector, said: Said) -> dict[str, npt.NDArray[np.float32]]:
        """Take over what a fleet says of the validation images with the shared vector, in place of `predict`."""
        labels = self.site.val.labels
        calibration = calibrate(said.parts, labels) if self._settings.ensemble == "pool" else None
        return self._validated(global_vector, Validated(answer(said.parts, calibration), calibration, said.keep_ratios))

    def predict(self, global_vector: Vector, of: str | Features = "test") -> dict[str, npt.NDArray[np.float32]]:
        """Return the probabilities float32[N, C] of each part with the given shared parameters.

        Parts: `fam`, `mlp` and `ensemble` where the method has them; baselines have `ensemble` alone. With the setting
        `ensemble = "pool"` the parts are calibrated on the hospital's validation images first.

        Args:
            global_vector: float32[d].
            of: `train`, `val`, `test`, or features float32[N, D] with rows of unit length.
        """
        features = self._split(of).features if isinstance(of, str) else of
        if self.method == "zero-shot":
            return {"ensemble": zero_shot(features, self._text_features, self._logit_scale)}
        if self.method == "linear-probe":
            return {"ensemble": (self._probe or self._fit_probe()).predict(features)}
        assert self._private is not None  # noqa: S101 (narrows the type)
        if isinstance(of, str) and of == "val" and self.method != "fedavg-mlp":
            return self._validate(global_vector, self._private)
        with self._benches.lend() as bench:
            bench.load(global_vector, self._private)
            self._prepare(bench, global_vector)
            return answer(log_probabilities(bench.model, features), self._calibration)

    def evaluate(self, global_vector: Vector, split: str = "val") -> dict[str, ClassificationMetrics]:
        """Return the metrics of each part on a split."""
        labels = self._split(split).labels
        return {part: evaluate(p, labels) for part, p in self.predict(global_vector, split).items()}

    def private_state(self) -> PrivateState:
        """Return what the hospital has learned for itself, as named arrays: MLP, calibration, a FAM that is not shared.

        The calibration is that of the last `predict`. The arrays can only be read. Secrecy: stays at the hospital.
        """
        state: PrivateState = {} if self._probe is None else self._probe.state()
        for name, array in self._private_arrays().items():
            state[name] = array
            state[name].flags.writeable = False
        return state | (self._calibration.state() if self._calibration is not None else {})

    def load_private_state(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Continue from a state of `private_state`.

        Raises:
            ValueError: Names or shapes do not fit the method and settings.
        """
        if self._private is not None:
            self._private = checked_private_part(self._private, state)
        self._probe = LinearProbe.from_state(state)
        self._calibration = Calibration.from_state(state)
        self._calibrated_for = None

    def keep_ratios(self, global_vector: Vector) -> dict[str, float]:
        """Return the share of rows, in [0, 1], that each masked layer keeps with the given shared parameters."""
        if self._private is None:
            return {}
        kept = self._kept_rows
        if kept is not None and self._calibrated_for is kept[0] is global_vector:  # asked of this model already
            return kept[1]
        with self._benches.lend() as bench:
            bench.load(global_vector, self._private)
            return bench.keep_ratios()

    def _private_arrays(self) -> Mapping[str, npt.NDArray[np.generic]]:
        if self._arrays is not None and self._arrays[0] is self._private:
            return self._arrays[1]
        return {name: tensor.detach().cpu().numpy() for name, tensor in (self._private or {}).items()}

    def _validate(self, global_vector: Vector, private: PrivateTensors) -> dict[str, npt.NDArray[np.float32]]:
        """Return the probabilities of the validation images; calibrate on them, and count the rows that layers keep."""
        val = self.site.val
        said = self._benches.validate(self.site.site, val.features, val.labels, global_vector, private)
        return self._validated(global_vector, said)

    def _validated(self, global_vector: Vector, said: Validated) -> dict[str, npt.NDArray[np.float32]]:
        self._calibration, self._calibrated_for = said.calibration, _unchanging(global_vector)
        self._kept_rows = self._calibrated_for, said.keep_ratios
        return said.parts

    def _prepare(self, bench: Workbench, global_vector: Vector) -> None:
        """Bring everything that depends on the shared parameters up to date."""
        self._kept_rows = None
        if self._calibrated_for is not None and np.array_equal(self._calibrated_for, global_vector):
            return
        if self.method == "fedavg-mlp" and self._train is not None:
            bench.forget()
            refresh_batch_norm(bench.model, self._train[0])
            self._private = bench.take()
        if self._settings.ensemble == "pool":
            self._calibration = calibrate(log_probabilities(bench.model, self.site.val.features), self.site.val.labels)
        self._calibrated_for = _unchanging(global_vector)

    def _fit_probe(self) -> LinearProbe:
        train, val = self.site.train, self.site.val
        self._probe = fit_linear_probe(
            (train.features, train.labels), (val.features, val.labels), len(self._text_features)
        )
        return self._probe

    def _split(self, name: str) -> LabelledRows:
        splits = {"train": self.site.train, "val": self.site.val, "test": self.site.test}
        return splits[name]

    def _to_device(self, rows: LabelledRows) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.from_numpy(np.require(rows.features, np.float32, ["C", "W"])).to(self._device)
        return features, torch.from_numpy(np.array(rows.labels, dtype=np.int64)).to(self._device)


def _unchanging(vector: Vector) -> Vector:
    return vector.copy() if vector.flags.writeable else vector


def workbenches(
    text_features: npt.NDArray[np.float32], logit_scale: float, settings: TrainingSettings, method: str, device: str
) -> Workbenches:
    """Return workbenches for hospitals that are made with the same arguments."""
    return Workbenches(lambda: _template(text_features, logit_scale, settings, method, device), method)


def make_fleet(
    text_features: npt.NDArray[np.float32], logit_scale: float, settings: TrainingSettings, method: str, device: str
) -> Fleet | None:
    """Return a fleet for hospitals that are made with the same arguments; None for methods that train no model."""
    if method in ("zero-shot", "linear-probe"):
        return None
    return Fleet(_template(text_features, logit_scale, settings, method, device), method)


def _template(
    text_features: npt.NDArray[np.float32], logit_scale: float, settings: TrainingSettings, method: str, device: str
) -> HospitalModel:
    model = build_model(text_features, logit_scale, settings, method, site="", seed=0, device=device)
    assert model is not None  # noqa: S101 (methods without a model ask for none)
    return model
