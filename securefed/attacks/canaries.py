"""Canaries in a copy of a private training: each adds a gradient of its own to the steps that it is sampled for.

A canary is a unit of privacy with the worst gradient that clipping lets through: its whole norm on one coordinate of
each clipping group. Everything else of the copy is the training itself, so that whatever makes its noise too small, its
sensitivity too large or its sampling other than claimed shows in what the auditor finds.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clients.method.layout import Vector
from clients.privacy import ClippedSum, PrivateHospital, Randomness
from clients.privacy.clipping import Group


class AuditedHospital(PrivateHospital):
    """A private hospital whose steps carry canaries, watched by an auditor who sees every noisy sum."""

    _taking_part: NDArray[np.bool_] | None = None

    def plant(self, canaries: int, coins: Randomness) -> NDArray[np.bool_]:
        """Plant canaries, each with probability 1/2, and return bool[m]: which take part.

        Args:
            canaries: How many; at most as many as there are coordinates for them.
            coins: Decides who takes part and who is sampled for a step.
        """
        available = min(self._largest(group).numel() for group in self._groups())
        self._coins = coins
        self._taking_part = coins.poisson_sample(min(canaries, available), 0.5)
        self._scores = np.zeros(len(self._taking_part))
        return self._taking_part

    def watch(self, vector: Vector, rounds: int, source: Randomness | None = None) -> NDArray[np.float64]:
        """Train rounds from a global vector float32[d] and return float64[m], the scores of the canaries.

        The score of a canary is the sum of its coordinates in all noisy sums, each over the variance of its noise: for
        Gaussian noise the log likelihood ratio of having been there in every step, up to a constant.
        """
        for number in range(1, rounds + 1):
            randomness = Randomness.of_the_system() if source is None else source
            vector = vector + self.train_round(vector, number, randomness)
        return self._scores

    def _move(self, summed: ClippedSum, groups: tuple[Group, ...], round_number: int, source: Randomness) -> None:  # type: ignore[override]
        taking_part = self._taking_part
        if taking_part is None:
            super()._move(summed, groups, round_number, source)
            return
        positions = torch.arange(len(taking_part))
        sampled = taking_part & self._coins.poisson_sample(len(taking_part), self._privacy.sampling_rate)
        momentum = dict(self._trained_momentum())
        before: list[Tensor] = []
        planted: list[tuple[Tensor, ...]] = []
        for group, gradients in zip(groups, summed.gradients, strict=True):
            largest = self._largest(group)
            before.append(momentum[largest].detach().clone().view(-1))
            planted.append(
                tuple(
                    _added(gradient, positions[torch.from_numpy(sampled)], group.clip_norm)
                    if p is largest
                    else gradient
                    for p, gradient in zip(group.parameters, gradients, strict=True)
                )
            )
        super()._move(ClippedSum(tuple(planted), summed.units, summed.zeroed), groups, round_number, source)
        settings = zip(groups, before, self._privacy.noise_multipliers, strict=True)
        for group, old, multiplier in settings:
            new = momentum[self._largest(group)].view(-1)
            noisy = (new - self._settings.adam_beta1 * old)[positions.to(new.device)] * self._privacy.normaliser
            weight = 1 / (max(multiplier, 1e-6) ** 2 * group.clip_norm)
            self._scores += weight * noisy.double().cpu().numpy()

    def _trained_momentum(self) -> list[tuple[nn.Parameter, Tensor]]:
        return [(parameter, self._momentum[name]) for name, parameter in self._trained()]

    @staticmethod
    def _largest(group: Group) -> nn.Parameter:
        return max(group.parameters, key=lambda parameter: parameter.numel())


def _added(gradient: Tensor, positions: Tensor, value: float) -> Tensor:
    flat = gradient.detach().clone().reshape(-1)
    flat[positions.to(flat.device)] += value
    return flat.view_as(gradient)
