"""A hospital that trains with differential privacy."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.method.hospital import Hospital, HospitalFeatures
from clients.method.layout import Vector, flatten, seeded_generator
from clients.method.model import HospitalModel
from clients.method.parts import PrivateState, shared_part
from clients.method.settings import SettingsError, TrainingSettings
from clients.method.training import make_optimizer, train_epochs
from clients.privacy.centring import Centring, layer_centres, measured_sum
from clients.privacy.clipping import ClippedSum, Group
from clients.privacy.descent import NoisyDescent
from clients.privacy.fleet import PrivatelyTrained, PrivateTrainee
from clients.privacy.randomness import Randomness
from clients.privacy.replay import made_up_records, require_sensitivity
from clients.privacy.sampling import have_several_images, sampled_rows, units_of_images
from clients.privacy.settings import PrivacySettings
from clients.privacy.step import LeanClipping
from clients.privacy.trained import group_names, trained_parameters

_MOMENTUM = "momentum."


@dataclass(frozen=True)
class ContributionSum:
    """What a hospital adds to a step of `distributed` differential privacy, before any noise.

    Attributes:
        vector: float64[d], sum over the sampled units of their clipped gradients with respect to the shared vector, in
            float64 from the first product on: in float32 the rounding of a large sum moves by more than what
            sensitivities leave room for (protocols/noise/SPEC.md, section 1).
        clip_norm: L2 sensitivity of `vector` to adding or removing one unit.
    """

    vector: npt.NDArray[np.float64]
    clip_norm: float


class PrivateHospital(Hospital):
    """A hospital whose updates (and with the coupling `joint` also its MLP) are differentially private.

    Nothing that is made from the training data gets around the clipped and noisy sums: no class frequencies, no number
    of images, no dropout that a batch shares. What a step divides by is a public constant, and a step without images
    is a step. With the coupling `one-way` the MLP is trained without noise and is not covered.

    Privacy: `train_round` is `steps` times the Poisson-subsampled Gaussian mechanism with the rate and the multipliers
        of the settings, over units of the settings; everything it returns and leaves behind is a function of their
        results. `clipped_sum` has no noise and is not private by itself.

    Args:
        site: Features and labels of the hospital.
        text_features: float32[C, D] of unit length.
        logit_scale: The encoder's factor on cosines.
        settings: Hyperparameters; those that couple images or count them are refused.
        privacy: The private step.
        patients: For the unit `patient` one name for each training image; images without a patient's name (None) are
            refused.
        method: `fedmedclip` or `fedclip`.
        seed: Seed of initial weights, and of nothing that protects.
        device: torch device to train on.
        digests: For the unit `image` what names the content of each training image, so that a picture with its copies
            is one; None where there are no copies.

    Attributes:
        replayed: Whether it has replayed its steps (`clients.privacy.replay`).

    Raises:
        SettingsError: The settings leave the claim without ground.
        SensitivityError: A step on made-up records moves further by one unit of them than its clip norm.
        ValueError: Patients are needed and missing.
    """

    replayed = False

    def __init__(
        self,
        site: HospitalFeatures,
        text_features: npt.NDArray[np.float32],
        logit_scale: float,
        settings: TrainingSettings,
        privacy: PrivacySettings,
        patients: Sequence[str | None] | None = None,
        method: str = "fedmedclip",
        seed: int = 0,
        device: str = "cpu",
        digests: Sequence[str] | None = None,
    ) -> None:
        if method not in ("fedmedclip", "fedclip"):
            raise SettingsError("method", f"{method} has no private training; use fedmedclip or fedclip")
        for field in ("prior_adjustment", "class_balance", "feature_dropout"):
            if getattr(settings, field):
                raise SettingsError(field, f"is {getattr(settings, field)}: private training needs 0")
        if privacy.centring_steps and settings.learn_thresholds:
            raise SettingsError("learn_thresholds", "is on: centred private steps need layers that keep all rows")
        super().__init__(site, text_features, logit_scale, settings, method, seed, device)
        assert self._private is not None  # noqa: S101 (both methods have a model)
        uniform = torch.full_like(self._private["log_prior"], -float(np.log(len(text_features))))
        self._private = {**self._private, "log_prior": uniform}
        with self._benches.lend() as self._bench:  # its own: between rounds the model stays loaded there
            self._private_model: HospitalModel = self._bench.model
        self._privacy = privacy
        self._units = units_of_images(privacy.unit, len(site.train.labels), patients, digests)
        self._sums_units = privacy.unit == "patient" or have_several_images(self._units)
        self._centring = Centring(privacy, len(text_features[0]))
        self._clippings: dict[tuple[Group, ...], LeanClipping] = {}
        self._centres: dict[str, Tensor] = {}
        self._descent = NoisyDescent(privacy, settings, self._trained())
        self._momentum = self._descent.momentum
        self._replay_a_step()

    def train_round(self, global_vector: Vector, round_number: int, randomness: Randomness | None = None) -> Vector:
        """Train one round from the global parameters and return the update float32[d]: private as the class says.

        Args:
            global_vector: float32[d].
            round_number: Counted from 1; decides the learning rates.
            randomness: Source of samples and noise; None for a fresh one of the operating system.
        """
        model, privacy = self._private_model, self._privacy
        source = Randomness.of_the_system() if randomness is None else randomness
        self._load_shared(global_vector)
        self._bench.forget()
        groups = self._groups()
        measuring = privacy.measuring_steps(round_number)
        for step in range(privacy.steps):
            if step < measuring:
                self._measure(source)
                continue
            summed = self._sum_of_a_sample(groups, source)
            self._move(summed, groups, round_number, source)
        self._calibrated_for = None
        if privacy.coupling == "one-way" and model.mlp is not None:
            self._train_mlp_alone(round_number)
        self._private = self._bench.take()
        return flatten(shared_part(model, self.method)) - global_vector

    def private_trainee(self, randomness: Randomness | None = None) -> PrivateTrainee:
        """Return what a private fleet needs to train a round here; arguments as of `train_round`."""
        assert self._private is not None  # noqa: S101 (narrows the type)
        source = Randomness.of_the_system() if randomness is None else randomness
        state = self._centring.state()
        return PrivateTrainee(*self._rows(), self._units, self._private, self._momentum, state, source)

    def adopt_private(self, trained: PrivatelyTrained, global_vector: Vector, round_number: int) -> Vector:
        """Take over what a private fleet has trained for this hospital in place of `train_round`; return the update.

        With the coupling `one-way` the MLP is trained here and now.
        """
        self._private = trained.private
        for name, tensor in self._momentum.items():
            tensor.copy_(trained.momentum[name])
        self._centring.load_state(trained.centring)
        self._place_centres()
        self._calibrated_for = None
        if self._privacy.coupling == "one-way" and self._private_model.mlp is not None:
            self._load_shared(global_vector)
            with torch.no_grad():
                for name, parameter in shared_part(self._private_model, self.method):
                    parameter.copy_(trained.shared[name])
            self.train_mlp(round_number)
        return trained.vector - global_vector

    def receive(self, global_vector: Vector) -> None:
        """Put the global parameters float32[d] in place for `train_mlp`, where a fleet has made the clipped sum."""
        self._load_shared(global_vector)

    def clipped_sum(
        self, global_vector: Vector, round_number: int, randomness: Randomness | None = None
    ) -> ContributionSum:
        """Return the clipped sum of the FAM's gradients over a Poisson sample: no noise, divided by nothing.

        For one step a round whose noise others add. The FAM learns nothing from the MLP here (`one-way`); the MLP is
        left as it is.

        Args:
            global_vector: float32[d].
            round_number: Counted from 1.
            randomness: Source of the sample; None for a fresh one of the operating system.

        Privacy: L2 sensitivity to adding or removing one unit is the (first) clip norm, up to the rounding of float64.
        """
        del round_number  # the sample is fresh in every call; rounds differ in nothing else
        source = Randomness.of_the_system() if randomness is None else randomness
        self._load_shared(global_vector)
        summed = self._sum_in_double(*self._sampled(source))
        by_parameter = dict(zip(self._fam(self._private_model), summed.gradients[0], strict=True))
        shared = shared_part(self._private_model, self.method)
        filled = [by_parameter.get(p, torch.zeros_like(p, dtype=torch.float64)).reshape(-1).cpu() for _, p in shared]
        return ContributionSum(torch.cat(filled).numpy(), self._privacy.clip_norms[0])

    def train_mlp(self, round_number: int) -> None:
        """Train the MLP without noise on the FAM of the vector that was received last; it stays and is not covered."""
        self._calibrated_for = None
        if self._private_model.mlp is not None:
            self._bench.forget()
            self._train_mlp_alone(round_number)
            self._private = self._bench.take()

    def private_state(self) -> PrivateState:
        """Return what the hospital keeps: MLP, calibration, the momentum of its optimiser, its measured mean."""
        momentum = {_MOMENTUM + name: tensor.cpu().numpy().copy() for name, tensor in self._momentum.items()}
        return super().private_state() | momentum | self._centring.state()

    def load_private_state(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Continue from a state of `private_state`; raises ValueError where it does not fit."""
        super().load_private_state(state)
        for name, tensor in self._momentum.items():
            if _MOMENTUM + name in state:
                tensor.copy_(torch.from_numpy(np.array(state[_MOMENTUM + name])))
            else:
                tensor.zero_()
        self._centring.load_state(state)
        self._place_centres()

    def _load_shared(self, global_vector: Vector) -> None:
        assert self._private is not None  # noqa: S101 (narrows the type)
        self._bench.load(global_vector, self._private)

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        """Named parameters that the private step moves, FAM first."""
        return trained_parameters(self._private_model, self._privacy)

    def _groups(self) -> tuple[Group, ...]:
        parameters, norms = dict(self._trained()), self._privacy.clip_norms
        return tuple(
            Group(tuple(parameters[name] for name in names), norm)
            for names, norm in zip(group_names(parameters, norms), norms, strict=True)
        )

    def _sum_of_a_sample(self, groups: tuple[Group, ...], source: Randomness) -> ClippedSum:
        return self._sum(groups, *self._sampled(source))

    def _sampled(self, source: Randomness) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return features and labels of a Poisson sample of units, and the unit of each where one may have several."""
        features, labels = self._rows()
        rows, units = self._sample(source)
        return features[rows], labels[rows], units if self._sums_units else None

    def _sample(self, source: Randomness) -> tuple[Tensor, Tensor]:
        """Return the rows of a Poisson sample of units, and the unit of each row."""
        rows = sampled_rows(self._units, self._privacy.sampling_rate, source)
        return torch.from_numpy(rows).to(self._device), torch.from_numpy(self._units[rows]).to(self._device)

    def _sum(self, groups: tuple[Group, ...], features: Tensor, labels: Tensor, units: Tensor | None) -> ClippedSum:
        if groups not in self._clippings:
            self._clippings[groups] = LeanClipping(self._private_model, groups, self._centres)
        return self._clippings[groups](features, labels, units)

    def _sum_in_double(self, features: Tensor, labels: Tensor, units: Tensor | None) -> ClippedSum:
        """Return the clipped sum of the FAM's gradients in float64, whatever the number of rows, which is private."""
        model = copy.deepcopy(self._private_model).double()
        group = Group(self._fam(model), self._privacy.clip_norms[0])
        return LeanClipping(model, (group,))(features.double(), labels, units)

    @staticmethod
    def _fam(model: HospitalModel) -> tuple[nn.Parameter, ...]:
        return tuple(parameter for parameter in model.fam.parameters() if parameter.requires_grad)

    def _measure(self, source: Randomness) -> None:
        """Spend a step on the mean feature, for the steps that follow."""
        rows, units = self._sample(source)
        self._centring.measure(self._rows()[0][rows], units, source)
        self._place_centres()

    def _place_centres(self) -> None:
        """Say where the inputs of the layers lie that see features, once the mean is known."""
        self._clippings.clear()
        self._centres.clear()
        if not self._centring.has_measured:
            return
        mean = self._centring.mean().to(self._private_model.text_features)
        self._centres.update(layer_centres(mean, self._private_model, self._privacy))

    def _replay_a_step(self) -> None:
        """Refuse a step whose clipped sum one unit could move too far, tried on records that are nobody's.

        Where the first steps measure, those are tried too, and steps around a mean that is made up.
        """
        groups, model = self._groups(), self._private_model
        features, labels = made_up_records(self._text_features.shape[1], len(self._text_features))
        features, labels = features.to(self._device), labels.to(self._device)
        units = torch.arange(len(labels), device=labels.device) // 3 if self._sums_units else None
        require_sensitivity(partial(self._sum, groups), groups, features, labels, units)
        if not any(self._privacy.noise_multipliers):  # noise is added in shares, to sums in float64
            require_sensitivity(self._sum_in_double, groups, features, labels, units)
        if self._privacy.centring_steps:
            centred = LeanClipping(model, groups, layer_centres(features.mean(0), model, self._privacy))
            require_sensitivity(centred, groups, features, labels, units)
            require_sensitivity(measured_sum, (Group((), 1.0),), features, labels, units)
        self.replayed = True

    def _rows(self) -> tuple[Tensor, Tensor]:
        assert self._train is not None  # noqa: S101 (narrows the type)
        return self._train

    def _move(self, summed: ClippedSum, groups: Sequence[Group], round_number: int, source: Randomness) -> None:
        """Move what is trained by a clipped sum and noise."""
        self._descent.step(groups, summed.gradients, self._centres, round_number, source)

    def _train_mlp_alone(self, round_number: int) -> None:
        """Train the MLP without noise on the FAM's new output; the FAM does not move."""
        model = self._private_model
        features, labels = self._rows()
        generator = seeded_generator("round", self._seed, self.site.site, round_number, device=self._device)
        assert model.mlp is not None  # noqa: S101 (the caller has looked)
        with _OnlyTrained(model, list(model.mlp.parameters())):
            optimizer = make_optimizer(model, self._settings, round_number)
            train_epochs(model, optimizer, features, labels, None, self._settings, generator)


class _OnlyTrained:
    """Within the block the model is in train mode and no parameter but the given ones requires a gradient."""

    def __init__(self, model: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
        self._model = model
        self._trained = set(parameters)
        self._others = [p for p in model.parameters() if p.requires_grad and p not in self._trained]

    def __enter__(self) -> None:
        self._model.train()
        for parameter in self._others:
            parameter.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for parameter in self._others:
            parameter.requires_grad_(True)
