"""Canaries in a copy of a private training: each adds a gradient of its own to the steps that it is sampled for.

A canary is a unit of privacy with the worst gradient that clipping lets through: its whole norm on one coordinate of
each clipping group that has one for it. Everything else of the copy is the training itself, so that whatever makes its
noise too small, its sensitivity too large or its sampling other than claimed shows in what the auditor finds.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.method.layout import Vector
from clients.privacy import ClippedSum, PrivateHospital, Randomness
from clients.privacy.clipping import Group


class AuditedHospital(PrivateHospital):
    """A private hospital whose steps carry canaries, watched by an auditor who sees every noisy sum."""

    _taking_part: NDArray[np.bool_] | None = None

    def plant(self, canaries: int, coins: Randomness) -> NDArray[np.bool_]:
        """Plant canaries, each with probability 1/2, and return bool[m]: which take part.

        Args:
            canaries: How many; at most as many as the largest group has coordinates for them.
            coins: Decides who takes part and who is sampled for a step.
        """
        available = max(sum(p.numel() for p in group.parameters) for group in self._groups())
        self._coins = coins
        self._taking_part = coins.poisson_sample(min(canaries, available), 0.5)
        self._scores = np.zeros(len(self._taking_part))
        return self._taking_part

    def watch(self, vector: Vector, rounds: Sequence[int], source: Randomness | None = None) -> NDArray[np.float64]:
        """Train rounds of these numbers from a global vector float32[d]; return float64[m], the scores of the canaries.

        The score of a canary is the sum of its coordinates in all noisy sums, less what all other records add there
        (the auditor knows them, as differential privacy allows) and half of what it would add itself, each over the
        variance of its noise: for Gaussian noise the log likelihood ratio of having been there in every step.
        """
        for number in rounds:
            randomness = Randomness.of_the_system() if source is None else source
            vector = vector + self.train_round(vector, number, randomness)
        return self._scores

    def _move(self, summed: ClippedSum, groups: tuple[Group, ...], round_number: int, source: Randomness) -> None:  # type: ignore[override]
        taking_part = self._taking_part
        if taking_part is None:
            super()._move(summed, groups, round_number, source)
            return
        sampled = taking_part & self._coins.poisson_sample(len(taking_part), self._privacy.sampling_rate)
        present = torch.from_numpy(sampled).float()
        before = [self._first(group).clone() for group in groups]
        planted = tuple(
            _planted(gradients, present * group.clip_norm)
            for group, gradients in zip(groups, summed.gradients, strict=True)
        )
        super()._move(ClippedSum(planted, summed.units, summed.zeroed), groups, round_number, source)
        multipliers = self._privacy.noise_multipliers
        for group, old, known, multiplier in zip(groups, before, summed.gradients, multipliers, strict=True):
            noisy = (self._first(group) - self._settings.adam_beta1 * old) * self._privacy.normaliser
            others = torch.cat([gradient.reshape(-1) for gradient in known])[: len(noisy)]
            middle = group.clip_norm * self._privacy.sampling_rate / 2
            weight = 1 / (max(multiplier, 1e-6) ** 2 * group.clip_norm)
            self._scores[: len(noisy)] += weight * (noisy - others - middle).double().cpu().numpy()

    def _first(self, group: Group) -> Tensor:
        """float32[m] or less: the optimiser's momentum at the canaries' coordinates, the first ones of the group."""
        momentum = {parameter: self._momentum[name] for name, parameter in self._trained()}
        return torch.cat([momentum[parameter].reshape(-1) for parameter in group.parameters])[: len(self._scores)]


def _planted(gradients: tuple[Tensor, ...], canaries: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients with float32[m] added to their first coordinates."""
    flat = torch.cat([gradient.detach().reshape(-1) for gradient in gradients])
    flat[: len(canaries)] += canaries[: len(flat)].to(flat.device)
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    return tuple(part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True))
