"""Canaries in a copy of a private training: each adds a gradient of its own to the steps that it is sampled for.

A canary is a unit of privacy with the worst gradient that clipping lets through: its whole norm on one coordinate of
each clipping group that has one for it. The training samples it as it samples its own units, and clips its gradient,
which is far too long before; so that noise that is too small, clipping to more than the clip norm and sampling more
often than claimed show in what the auditor finds. What does not show: how a layer tells the norm of a
record's gradient (`clients.privacy.replay` tries that), and the steps that measure a mean, which no canary is in.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.method.layout import Vector
from clients.privacy import PrivateHospital, Randomness
from clients.privacy.clipping import ClippedSum, Group
from securefed.attacks.canary_gradients import CanaryClipping


class AuditedHospital(PrivateHospital):
    """A private hospital whose steps carry canaries, watched by an auditor who sees every noisy sum."""

    _planted = torch.zeros(0, dtype=torch.int64)
    _present = _planted
    _scores: NDArray[np.float64] = np.zeros(0)

    def plant(self, canaries: int, coins: Randomness) -> NDArray[np.bool_]:
        """Plant canaries, each with probability 1/2, and return bool[m]: which take part.

        Args:
            canaries: How many; at most as many as the largest group has coordinates for them. Those
                past the coordinates of a smaller group have no part there, and show less.
            coins: Decides who takes part.
        """
        available = max(sum(p.numel() for p in group.parameters) for group in self._groups())
        taking_part = coins.poisson_sample(min(canaries, available), 0.5)
        self._scores = np.zeros(len(taking_part))
        self._planted = torch.from_numpy(np.flatnonzero(taking_part)).to(self._device)
        self._units = np.append(self._units, len(self._units) + np.arange(len(self._planted)))
        return taking_part

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

    def _sample(self, source: Randomness) -> tuple[Tensor, Tensor]:
        """Return the sampled rows that are images, and the unit of each; remember the canaries among the others."""
        rows, units = super()._sample(source)
        images = len(self._rows()[1])
        self._present = self._planted[rows[rows >= images] - images]
        return rows[rows < images], units[rows < images]

    def _sum(self, groups: tuple[Group, ...], features: Tensor, labels: Tensor, units: Tensor | None) -> ClippedSum:
        """Return the clipped sum with the canaries of the step; remember that without them, which the auditor knows."""
        if groups not in self._clippings:
            self._clippings[groups] = CanaryClipping(self._private_model, groups, self._centres)
        others = super()._sum(groups, features, labels, units)
        if not len(self._scores):
            return others
        self._others = [_first(gradients, len(self._scores)) for gradients in others.gradients]
        rows = self._private_model.text_features[:1].expand(len(self._present), -1)  # any that the model can read
        return super()._sum(groups, torch.cat([features, rows]), torch.cat([labels, -1 - self._present]), None)

    def _move(self, summed: ClippedSum, groups: Sequence[Group], round_number: int, source: Randomness) -> None:
        before = [self._momentum_of(group) for group in groups]
        super()._move(summed, groups, round_number, source)
        multipliers = self._privacy.noise_multipliers
        for group, old, others, multiplier in zip(groups, before, self._others, multipliers, strict=True):
            noisy = (self._momentum_of(group) - self._settings.adam_beta1 * old) * self._privacy.normaliser
            middle = group.clip_norm * self._privacy.sampling_rate / 2
            weight = 1 / (max(multiplier, 1e-6) ** 2 * group.clip_norm)
            self._scores[: len(noisy)] += weight * (noisy - others - middle).double().cpu().numpy()

    def _momentum_of(self, group: Group) -> Tensor:
        """float32[m] or less: the optimiser's momentum at the canaries' coordinates."""
        momentum = {parameter: self._momentum[name] for name, parameter in self._trained()}
        return _first([momentum[parameter] for parameter in group.parameters], len(self._scores))


def _first(tensors: Sequence[Tensor], count: int) -> Tensor:
    """Return a copy of the first numbers of tensors, float32[count] or fewer."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])[:count]
