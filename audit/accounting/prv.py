"""A second numerical accountant for Gaussian mechanisms: privacy random variables, composed by one FFT.

Independent of `dp-accounting` in code and in method (the loss is rounded to the nearest step and its mean restored,
where the other rounds it outwards), so that an error in one shows as a disagreement. Needs numpy and scipy.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audit.accounting.mechanisms import Composition, Gaussian, Repeated, SampledGaussian, merged
from audit.accounting.pld import has_pld
from audit.accounting.rdp import rdp_epsilon
from audit.errors import AccountingUnavailableError

EPSILON_ERROR = 0.01
"""Half the width of the interval that `prv_interval` returns (beside the one in delta)."""

_MAX_POINTS = 2**24

_ROUNDING = 16 * 2.0**-52
"""Of delta, for each use and for the noise of the transform over all points: what floating point can add or take."""

_EXPONENT = 300.0
"""Far from where the exponential function overflows."""


@dataclass(frozen=True)
class Interval:
    """The true epsilon lies within [lower, upper]."""

    lower: float
    upper: float


def prv_interval(composition: Composition, delta: float, epsilon_error: float = EPSILON_ERROR) -> Interval | None:
    """Return bounds on epsilon for the removal of a record, or None where they cannot be computed.

    That is where the loss spans too many steps, and where rounding errors, which count as a part of delta, exceed it.

    Args:
        composition: Gaussian mechanisms, sampled or not.
        delta: Probability within (0, 1).
        epsilon_error: Error that discretisation may make.

    Raises:
        ValueError: A part is no Gaussian mechanism.
        AccountingUnavailableError: scipy is not installed.

    Paper: Gopi, Lee, Wutschitz 2021 (arXiv 2106.02848), algorithms 1 and 2, remark 5.6.
    """
    parts: list[tuple[float, float, int]] = []
    if not has_pld(composition):
        raise ValueError("only Gaussian mechanisms have a privacy random variable here")
    for repeated in merged(composition):
        mechanism = repeated.mechanism
        assert isinstance(mechanism, Gaussian | SampledGaussian)  # noqa: S101 (narrows the type)
        rate = mechanism.sampling_rate if isinstance(mechanism, SampledGaussian) else 1.0
        parts.append((mechanism.noise_multiplier, rate, repeated.count))
    if not parts:
        return Interval(0.0, 0.0)
    delta_error = delta / 1000
    steps = sum(count for _, _, count in parts)
    mesh = epsilon_error / math.sqrt(steps * math.log(12 / delta_error) / 2)
    reach = _reach(composition, steps, delta_error, epsilon_error)
    if not reach / mesh < _MAX_POINTS / 2 - 2:
        return None
    half = math.ceil(reach / mesh) + 1
    rounding = _ROUNDING * (steps + math.sqrt(2 * half))
    if delta_error + rounding >= delta:
        return None
    spectrum: NDArray[np.complex128] | None = None
    shift = 0.0
    for sigma, rate, count in parts:
        masses, offset = _discretised(sigma, rate, half, mesh)
        power = np.fft.rfft(np.fft.ifftshift(masses)) ** count
        spectrum = power if spectrum is None else spectrum * power
        shift += count * offset
    assert spectrum is not None  # noqa: S101 (narrows the type)
    masses = np.maximum(np.fft.fftshift(np.fft.irfft(spectrum, 2 * half)), 0.0)
    losses = np.arange(-half, half, dtype=np.float64) * mesh + shift
    upper = _epsilon(losses, masses, delta - delta_error - rounding) + epsilon_error
    lower = _epsilon(losses, masses, delta + delta_error + rounding) - epsilon_error
    return Interval(max(0.0, lower), upper)


def _reach(composition: Composition, steps: int, delta_error: float, epsilon_error: float) -> float:
    """Half-width outside of which the composed loss, and each single one, lies with probability below delta_error."""
    whole = rdp_epsilon(composition, delta_error / 4)
    single = max(rdp_epsilon([Repeated(part.mechanism)], delta_error / (8 * steps)) for part in merged(composition))
    return max(whole, single, epsilon_error) + 3


def _discretised(sigma: float, q: float, half: int, mesh: float) -> tuple[NDArray[np.float64], float]:
    """Masses f64[2 * half] of the truncated loss at multiples of the mesh, and the shift that restores its mean."""
    edges = (np.arange(-half, half + 1, dtype=np.float64) - 0.5) * mesh
    cumulative = _cdf(edges, sigma, q)
    masses = np.diff(cumulative) / (cumulative[-1] - cumulative[0])
    rounded_mean = float(np.dot(np.arange(-half, half) * mesh, masses))
    return masses, _truncated_mean(sigma, q, edges[0], edges[-1]) - rounded_mean


def _cdf(losses: NDArray[np.float64], sigma: float, q: float) -> NDArray[np.float64]:
    """P(loss <= l) where the record takes part: x of the mixture, loss log(1 - q + q exp((2x - 1) / (2 sigma^2)))."""
    x = _outcome(losses, sigma, q)
    return (1 - q) * _normal_cdf(x / sigma) + q * _normal_cdf((x - 1) / sigma)


def _outcome(losses: NDArray[np.float64], sigma: float, q: float) -> NDArray[np.float64]:
    """The x at which the loss has these values; minus infinity for what it never falls to."""
    if q == 1:
        return sigma**2 * losses + 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        # The logarithm of exp(l) - 1 + q: above 1 in terms of exp(-l), which cannot overflow.
        small = np.log(np.expm1(np.minimum(losses, 1.0)) + q)
        large = losses + np.log1p(-(1 - q) * np.exp(-np.maximum(losses, 1.0)))
        x = sigma**2 * (np.where(losses > 1, large, small) - math.log(q)) + 0.5
    return np.where(losses > math.log1p(-q), x, -math.inf)


def _truncated_mean(sigma: float, q: float, low: float, high: float) -> float:
    """Mean of the loss given that it lies within [low, high], by Gauss-Legendre quadrature on short pieces."""
    ends = _outcome(np.asarray([low, high]), sigma, q)
    start, end = max(float(ends[0]), -40 * sigma), min(float(ends[1]), 1 + 40 * sigma)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    pieces = np.linspace(start, end, max(2, math.ceil((end - start) / min(sigma, sigma**2) * 4)))
    middle, radius = (pieces[1:] + pieces[:-1]) / 2, np.diff(pieces) / 2
    x = (middle[:, None] + radius[:, None] * nodes).ravel()
    weight = (radius[:, None] * weights).ravel()
    density = (1 - q) * np.exp(-(x**2) / (2 * sigma**2)) + q * np.exp(-((x - 1) ** 2) / (2 * sigma**2))
    exponent = (2 * x - 1) / (2 * sigma**2)
    loss = exponent if q == 1 else np.logaddexp(math.log1p(-q), math.log(q) + exponent)
    return float(np.dot(weight * density, loss) / np.dot(weight, density))


def _epsilon(losses: NDArray[np.float64], masses: NDArray[np.float64], delta: float) -> float:
    """The smallest epsilon >= 0 with sum of masses * max(0, 1 - exp(epsilon - loss)) <= delta."""
    positive = losses > 0
    losses, masses = losses[positive], masses[positive]
    above = np.cumsum(masses[::-1])[::-1]
    # Of all losses from the i-th on, exp(l_i - l) of their masses: from one to the one below it costs a factor, so that
    # nothing overflows however large a loss is.
    discounted = _decayed(masses[::-1], math.exp(losses[0] - losses[1]))[::-1]
    if above[0] - math.exp(-losses[0]) * discounted[0] <= delta:
        return 0.0
    first = int(np.argmax(above - discounted <= delta))
    return float(losses[first] + np.log((above[first] - delta) / discounted[first]))


def _decayed(values: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """Running sums in which what came before is multiplied by a factor below 1 with every step."""
    step = -math.log(factor)
    size = max(1, int(_EXPONENT / step))
    growth = np.exp(step * np.arange(min(size, len(values))))
    sums = np.empty_like(values)
    before = 0.0
    for start in range(0, len(values), size):
        part = values[start : start + size]
        grown = growth[: len(part)]
        sums[start : start + size] = (np.cumsum(part * grown) + before * factor) / grown
        before = float(sums[start + len(part) - 1])
    return sums


def _normal_cdf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        from scipy.special import ndtr
    except ImportError as error:
        raise AccountingUnavailableError("scipy") from error
    return np.asarray(ndtr(x), dtype=np.float64)
