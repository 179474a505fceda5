"""What must hold of noise, as functions that raise where it does not: applied to the code and to broken copies."""

import math

import numpy as np
from scipy import stats

from protocols.entropy import ReproducibleEntropy
from protocols.masking import RunningSum
from protocols.noise import NoisyCodec
from protocols.secret_values import NoiseSeed
from protocols.vectors import MaskedVector

ALARM = 1e-10
"""Probability with which one check raises although nothing is wrong."""

DEVIATIONS = float(stats.norm.isf(ALARM / 2))


class WrongNoiseError(AssertionError):
    """The noise is not what it is said to be."""


def source(name: str) -> ReproducibleEntropy:
    return ReproducibleEntropy(name.encode().ljust(32, b"."))


def vectors_of(codec: NoisyCodec, clients: int, norm: float = 1.0, seed: int = 0) -> list[np.ndarray]:
    """Vectors float32 [d] of a norm, in multiples of the clip norm."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(clients):
        vector = rng.standard_normal(codec.vector_length)
        found.append((vector * norm * codec.plan.request.clip_norm / np.linalg.norm(vector)).astype(np.float32))
    return found


def summed(codec: NoisyCodec, vectors: list[np.ndarray], entropies: list, **kwargs) -> np.ndarray:
    """The decoded sum of encoded vectors, added up in the ring without masks."""
    plan = codec.plan
    running = RunningSum(codec.vector_length, plan.ring_bits)
    for vector, entropy in zip(vectors, entropies, strict=True):
        running.add(MaskedVector(codec.encode(vector, entropy, **kwargs).lanes(plan.ring_bits), plan.ring_bits))
    total = running.open(len(vectors), codec.max_coordinate, plan.noise_tail)
    return codec.decode_sum(total, len(vectors))


def check_deviation(residual: np.ndarray, claimed: float, tolerance: float = 0.01) -> None:
    """The standard deviation is the claimed one within 1 %: d must be large enough for the false-alarm rate."""
    slack = DEVIATIONS / math.sqrt(2 * residual.size)
    assert slack < tolerance, "too few coordinates for this tolerance"
    ratio = float(np.sqrt(np.mean(residual**2))) / claimed
    if abs(ratio - 1) > tolerance:
        raise WrongNoiseError(f"the noise has {ratio:.4f} of the claimed standard deviation")


def check_white(residual: np.ndarray, lags: tuple[int, ...] = (1, 2, 3, 64, 1024)) -> None:
    """No coordinate says anything about another, the mean is zero, and it is normal in its body."""
    scaled = residual / residual.std()
    for lag in lags:
        correlation = float(np.mean(scaled[lag:] * scaled[:-lag]))
        if abs(correlation) > DEVIATIONS / math.sqrt(scaled.size - lag):
            raise WrongNoiseError(f"coordinates {lag} apart correlate by {correlation:.4f}")
    if abs(float(scaled.mean())) > DEVIATIONS / math.sqrt(scaled.size):
        raise WrongNoiseError("the noise has a mean")
    # Fourth moment: 3 for a normal variable; the variance of the estimate is 24 / d.
    if abs(float(np.mean(scaled**4)) - 3) > 0.05 + DEVIATIONS * math.sqrt(24 / scaled.size):
        raise WrongNoiseError("the noise is not normal")


def check_independent(first: np.ndarray, second: np.ndarray) -> None:
    """Two noises have nothing in common."""
    correlation = float(np.dot(first, second) / (np.linalg.norm(first) * np.linalg.norm(second)))
    if abs(correlation) > DEVIATIONS / math.sqrt(first.size):
        raise WrongNoiseError(f"two noises correlate by {correlation:.4f}")


def check_every_share(codec: NoisyCodec, shares: list[np.ndarray], tolerance: float = 0.02) -> None:
    """Every client's own noise has the variance of a share (integers, before they are summed)."""
    claimed = math.sqrt(codec.plan.component_variance(0))
    for share in shares:
        check_deviation(share.astype(float), claimed, tolerance)


def check_sensitivity(codec: NoisyCodec, rest: np.ndarray, record: np.ndarray) -> None:
    """One record changes a client's integers by no more than the norms that are accounted."""
    with_it, without = (codec.integers(vector, source("rounding")) for vector in (rest + record, rest))
    difference = (with_it - without).astype(float)
    if np.linalg.norm(difference) > codec.plan.l2 or np.abs(difference).sum() > codec.plan.l1:
        raise WrongNoiseError("a record weighs more than is accounted")


def check_seed_entropy(codec: NoisyCodec) -> None:
    """Each of the 256 bits of a seed matters: no two of 257 seeds that differ in single bits give equal noise."""
    seeds = [bytes(32)] + [(1 << bit).to_bytes(32, "little") for bit in range(256)]
    noises = {codec.component(0, NoiseSeed(seed))[:64].tobytes() for seed in seeds}
    if len(noises) < len(seeds):
        raise WrongNoiseError(f"{len(seeds)} seeds give {len(noises)} noises: not all bits are used")


def chi_square(observed: np.ndarray, probabilities: np.ndarray) -> float:
    """P-value of counts [k] against probabilities [k] that sum to one; rare cells are joined."""
    total = observed.sum()
    order = np.argsort(probabilities)
    expected, seen = probabilities[order] * total, observed[order]
    few = int(np.searchsorted(np.cumsum(expected), 20)) + 1
    expected = np.concatenate([[expected[:few].sum()], expected[few:]])
    seen = np.concatenate([[seen[:few].sum()], seen[few:]])
    return float(stats.chi2.sf(((seen - expected) ** 2 / expected).sum(), len(expected) - 1))
