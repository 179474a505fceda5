"""How FAM and MLP answer together."""

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float32]
LogProbabilities = npt.NDArray[np.float64]

_RIDGE = 1.0
"""Nats per unit squared by which the exponents are drawn to their start; it decides when validation images are few."""

_LEAST = 0.01
"""Exponent of a pool's only member where even less would be likelier."""

_NEWTON_STEPS = 30


@dataclass(frozen=True)
class Pool:
    """A logarithmic pool: probability proportional to the product of its members, each to its own exponent.

    One member makes it temperature scaling with T = 1 / exponent.

    Attributes:
        exponents: One per member, none negative.
    """

    exponents: tuple[float, ...]

    def __call__(self, *members: LogProbabilities) -> Probabilities:
        """Return float32[N, C] from the members' log probabilities float64[N, C]."""
        logits = sum(e * member for e, member in zip(self.exponents, members, strict=True))
        probabilities: Probabilities = np.exp(_log_softmax(np.asarray(logits))).astype(np.float32)
        return probabilities


def fit_pool(members: list[LogProbabilities], labels: npt.NDArray[np.int64], start: tuple[float, ...]) -> Pool:
    """Return the pool with the least negative log likelihood on labelled images, exponents not negative.

    The problem is convex; Newton's method solves it. A ridge around `start` keeps the exponents finite where the
    members separate the classes, and is all there is without images. A member whose exponent would be negative is
    left out; the last one stays, at a small exponent, so that its order of the classes survives.
    """
    active = list(range(len(members)))
    by_class = np.array([member.T for member in members], order="C")
    while True:
        exponents = _newton(by_class[active], labels, np.array([start[k] for k in active]))
        if (exponents >= 0).all() or len(active) == 1:
            full = np.zeros(len(members))
            full[active] = exponents if len(active) > 1 else np.maximum(exponents, _LEAST)
            return Pool(tuple(float(e) for e in full))
        del active[int(exponents.argmin())]


def entropy_ensemble(fam: LogProbabilities, mlp: LogProbabilities) -> Probabilities:
    """Return w * p_MLP + (1 - w) * p_FAM, w = H(FAM) / (H(MLP) + H(FAM)): float32[N, C] from log probabilities.

    Paper: ensemble prediction. Where both entropies are 0, w is 1/2.
    """
    h_fam, h_mlp = (-(np.exp(x) * x).sum(1) for x in (fam, mlp))
    total = h_fam + h_mlp
    weight = np.where(total > 0, h_fam / np.where(total > 0, total, 1.0), 0.5)[:, None]
    probabilities: Probabilities = (weight * np.exp(mlp) + (1 - weight) * np.exp(fam)).astype(np.float32)
    return probabilities


def _log_softmax(logits: LogProbabilities) -> LogProbabilities:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: LogProbabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _newton(
    members: LogProbabilities, labels: npt.NDArray[np.int64], start: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Minimise sum_i -log p_i(label_i) + ridge/2 |e - start|^2 over the exponents e; members float64[K, C, N].

    With the images last, sums and maxima over the few classes run along long rows. No product is left to BLAS, which
    would divide these small ones among all cores, in each of the threads that do this at the same time.
    """
    columns, ridge = np.arange(len(labels)), _RIDGE * np.eye(len(start))
    of_labels = members[:, labels, columns]

    def at(e: npt.NDArray[np.float64]) -> tuple[LogProbabilities, float]:
        """The probabilities float64[C, N] with exponents e, and the objective there."""
        logits = e[0] * members[0]
        for k in range(1, len(members)):
            logits += e[k] * members[k]
        logits -= logits.max(axis=0)
        said = logits[labels, columns]
        p = np.exp(logits, out=logits)
        total = p.sum(axis=0)
        p /= total
        return p, float(_RIDGE / 2 * ((e - start) ** 2).sum() - said.sum() + np.log(total).sum())

    exponents = start.copy()
    p, value = at(exponents)
    for _ in range(_NEWTON_STEPS):
        weighted = p * members
        mean = weighted.sum(axis=1)
        gradient = (mean - of_labels).sum(axis=1) + _RIDGE * (exponents - start)
        hessian = ridge.copy()
        for k, j in combinations_with_replacement(range(len(start)), 2):
            hessian[k, j] += np.einsum("cn,cn", weighted[k], members[j]) - np.einsum("n,n", mean[k], mean[j])
            hessian[j, k] = hessian[k, j]
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        tried = at(exponents - step)
        while tried[1] > value and size > 1e-6:
            size /= 2
            tried = at(exponents - size * step)
        exponents = exponents - size * step
        p, value = tried
        if np.abs(step).max() < 1e-8:
            break
    return exponents
