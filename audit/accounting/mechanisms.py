"""Privacy events as frozen facts: which noise was added to what. No epsilon stands here; accountants come later.

Noise multipliers are the standard deviation of the noise over the L2 clip norm of one record's (or patient's, or
hospital's) contribution. Sampling is Poisson: each record is in a step with probability `sampling_rate`, independently.
Grid quantities (`l1`, `l2`, variances) are in integer steps of the ring.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Adjacency(StrEnum):
    """Which data sets count as neighbours."""

    ADD_OR_REMOVE_ONE = "add-or-remove-one"
    REPLACE_ONE = "replace-one"


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise ValueError(reason)


def _require_positive(name: str, value: float) -> None:
    _require(math.isfinite(value) and value > 0, f"{name} must be positive and finite, is {value}")


def _require_rate(value: float) -> None:
    _require(0 < value <= 1, f"sampling_rate must be in (0, 1], is {value}")


@dataclass(frozen=True)
class Gaussian:
    """Gaussian noise on a sum of clipped contributions of all records."""

    noise_multiplier: float

    def __post_init__(self) -> None:
        _require_positive("noise_multiplier", self.noise_multiplier)


@dataclass(frozen=True)
class SampledGaussian:
    """Gaussian noise on a sum of clipped contributions of a Poisson sample: a step of DP-SGD."""

    noise_multiplier: float
    sampling_rate: float

    def __post_init__(self) -> None:
        _require_positive("noise_multiplier", self.noise_multiplier)
        _require_rate(self.sampling_rate)


@dataclass(frozen=True)
class GroupedSampledGaussian:
    """One step of DP-SGD in which groups of parameters have their own clip norm and noise, on the same Poisson sample.

    Jointly one Gaussian mechanism of multiplier (sum of sigma_g ** -2) ** -1/2; accounting the groups as independently
    sampled mechanisms would state too small an epsilon.
    """

    noise_multipliers: tuple[float, ...]
    sampling_rate: float

    def __post_init__(self) -> None:
        _require(bool(self.noise_multipliers), "noise_multipliers must name at least one group")
        for value in self.noise_multipliers:
            _require_positive("noise_multipliers", value)
        _require_rate(self.sampling_rate)

    @property
    def noise_multiplier(self) -> float:
        """The multiplier of the equivalent single mechanism."""
        return 1 / math.sqrt(sum(value**-2 for value in self.noise_multipliers))


@dataclass(frozen=True)
class Skellam:
    """A sum of integer vectors with independent Skellam noise in every share.

    Attributes:
        l1: L1 norm that one contribution can have on the grid, after rounding.
        l2: The same for the L2 norm.
        share_variance: Variance of one share of noise in one coordinate.
        shares: Shares in the sum whose noise the adversary does not know.
        sampling_rate: Poisson rate at which records enter; 1 for all.
        least_share_variance: What is left of a share's variance once all that can be removed from it is removed, which
            whoever breaks the aggregation can do; 0 where nothing can be removed.
    """

    l1: float
    l2: float
    share_variance: float
    shares: int
    sampling_rate: float = 1.0
    least_share_variance: float = 0.0

    def __post_init__(self) -> None:
        _require_positive("l1", self.l1)
        _require_positive("l2", self.l2)
        _require_positive("share_variance", self.share_variance)
        _require(
            0 <= self.least_share_variance <= self.share_variance,
            f"least_share_variance must be 0 to share_variance, is {self.least_share_variance}",
        )
        _require(self.shares >= 1, f"shares must be at least 1, is {self.shares}")
        _require_rate(self.sampling_rate)


@dataclass(frozen=True)
class DiscreteGaussian:
    """A sum of integer vectors with independent discrete Gaussian noise in every share.

    Attributes:
        l1: L1 norm that one contribution can have on the grid, after rounding.
        l2: The same for the L2 norm.
        share_sigma: Parameter sigma of one share.
        shares: Shares in the sum whose noise the adversary does not know.
        dimension: Coordinates of the vector.
        sampling_rate: Poisson rate at which records enter; 1 for all.
    """

    l1: float
    l2: float
    share_sigma: float
    shares: int
    dimension: int
    sampling_rate: float = 1.0

    def __post_init__(self) -> None:
        _require_positive("l1", self.l1)
        _require_positive("l2", self.l2)
        _require_positive("share_sigma", self.share_sigma)
        _require(self.shares >= 1, f"shares must be at least 1, is {self.shares}")
        _require(self.dimension >= 1, f"dimension must be at least 1, is {self.dimension}")
        _require_rate(self.sampling_rate)


@dataclass(frozen=True)
class Unknown:
    """Something left whose privacy nobody can state: it costs infinity."""

    reason: str


Mechanism = Gaussian | SampledGaussian | GroupedSampledGaussian | Skellam | DiscreteGaussian | Unknown


@dataclass(frozen=True)
class Repeated:
    """A mechanism used `count` times on the same data, each with fresh noise (and a fresh sample).

    Attributes:
        mechanism: The noise.
        count: How often.
        replaced: Whether neighbours differ in what one contribution is, and not in whether it is there: it then costs
            what replacing one costs, whatever relation the whole is accounted in.
    """

    mechanism: Mechanism
    count: int = 1
    replaced: bool = False

    def __post_init__(self) -> None:
        _require(self.count >= 1, f"count must be at least 1, is {self.count}")

    def relation(self, adjacency: Adjacency) -> Adjacency:
        """Return the neighbouring relation in which this part counts."""
        return Adjacency.REPLACE_ONE if self.replaced else adjacency


Composition = Sequence[Repeated]
"""All that was released about the same data; the order does not matter."""


def merged(composition: Composition) -> tuple[Repeated, ...]:
    """Return the composition with equal mechanisms counted together.

    Grouped steps become the equivalent single ones, and steps that take all records become plain Gaussians.
    """
    counts: dict[tuple[Mechanism, bool], int] = {}
    for repeated in composition:
        mechanism = repeated.mechanism
        if isinstance(mechanism, GroupedSampledGaussian):
            mechanism = SampledGaussian(mechanism.noise_multiplier, mechanism.sampling_rate)
        if isinstance(mechanism, SampledGaussian) and mechanism.sampling_rate == 1:
            mechanism = Gaussian(mechanism.noise_multiplier)
        key = (mechanism, repeated.replaced)
        counts[key] = counts.get(key, 0) + repeated.count
    return tuple(Repeated(mechanism, count, replaced) for (mechanism, replaced), count in counts.items())
