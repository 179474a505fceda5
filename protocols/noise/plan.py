"""From a clip norm and a noise multiplier to integers: grid, ring, norms after rounding, each client's share of noise.

All of it follows from public constants. What is guaranteed for every choice: no sum of signals can wrap around, and
the norms given to the accountant hold. The summed noise wraps with a probability below 2e-17 a coordinate where its
variance is at least 200 squared grid steps; Skellam noise of fewer steps has heavier tails (`DEVIATIONS`).
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from protocols.errors import ParameterError
from protocols.noise.rounding import rounded_l1, rounded_l2
from protocols.noise.tables import MAX_SIGMA, NoiseKind

DEVIATIONS = 8.5
"""Standard deviations of a coordinate for which there is room, in noise and in rotated signals.

Beyond lies less than 2e-17, so that with 2**19 coordinates and 50 rounds something wraps with a probability below 1e-9;
with 4 deviations 33 coordinates would wrap in every round. That is the tail of a Gaussian, and of Skellam noise from a
variance of 200 squared grid steps on. Below (rings of 16 bits with many clients, or signals far wider than the noise)
it is less than 6e-15 down to a variance of 10, and 1.1e-7 at worst. A wrap spoils a round's sum and tells nothing."""

MIN_RING_BITS = 16
MAX_RING_BITS = 32
"""Narrowest and widest ring of a noisy sum: below, rounding ruins epsilon; above, nothing is gained."""

UNCONDITIONAL_FROM_BITS = 20
"""From this width on a vector is rounded once, whatever comes out: the grid is fine enough for the rarer bound."""

CONDITIONAL_BETA = math.exp(-0.5)
"""Below, rounding is repeated until the norm is within the bound that a try exceeds with at most this probability."""

RARE_BETA = 2.0**-80
"""Probability with which a contribution exceeds its bound where rounding is not repeated. It adds to delta: 50 rounds
less than 1e-22."""

LEEWAY = 1 + 2.0**-14
"""Factor on the clip norm that covers the arithmetic of clipping and summing (noise/SPEC.md, section 1)."""

WORTHWHILE_INFLATION = 1.002
"""An automatically chosen ring is wide enough that rounding raises the norm by at most this factor."""

MIN_GAUSSIAN_SIGMA = 2.5
"""Least parameter of a discrete Gaussian share, in grid steps: sums of narrower ones are no discrete Gaussians."""


class DropoutNoise(StrEnum):
    """What happens to the noise when clients are lost."""

    CONSERVATIVE = "conservative"
    XNOISE = "xnoise"


_ROUNDED_DOWN = 1 - 2.0**-40
"""Keeps a variance that is computed from the finest grid within what the sampler takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseRequest:
    """What the noise shall do.

    Attributes:
        dimension: Coordinates d.
        clip_norm: C, the L2 norm that one protected contribution has at most, in model units.
        noise_multiplier: z: the noise of the honest survivors has standard deviation z * C or more in each coordinate.
        clients: n, the cohort.
        min_survivors: Fewest clients in an opened sum.
        colluders: Clients whose noise does not count, as they know it.
        kind: Skellam or discrete Gaussian.
        dropout: Shares sized for the fewest survivors, or excess that is removed.
        vector_norm: Norm that a client's whole vector is meant to have at most, in multiples of C; a vector beyond it
            loses what lies outside the public range of a coordinate, and nothing else.
        whole_vector: Whether the protected contribution is a client's whole vector (unit hospital), and not one of the
            records whose sum it is.
        ring_bits: Width of the ring, 16 to 32; 0 takes the least that keeps the cost of rounding below 0.2 %.
    """

    dimension: int
    clip_norm: float
    noise_multiplier: float
    clients: int
    min_survivors: int
    colluders: int = 0
    kind: NoiseKind = NoiseKind.SKELLAM
    dropout: DropoutNoise = DropoutNoise.CONSERVATIVE
    vector_norm: float = 1.0
    whole_vector: bool = False
    ring_bits: int = 0

    def __post_init__(self) -> None:
        _require(self.dimension >= 1, "dimension", "must be at least 1")
        for name in ("clip_norm", "noise_multiplier", "vector_norm"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, name, "must be positive and finite")
        _require(1 <= self.min_survivors <= self.clients, "min_survivors", "must be 1 to the number of clients")
        _require(0 <= self.colluders < self.min_survivors, "colluders", "must leave an honest survivor")
        wide = self.ring_bits == 0 or MIN_RING_BITS <= self.ring_bits <= MAX_RING_BITS
        _require(wide, "ring_bits", f"must be {MIN_RING_BITS} to {MAX_RING_BITS}, or 0")
        _require(not self.whole_vector or self.vector_norm == 1, "vector_norm", "is 1 where a whole vector is clipped")
        sums = self.dropout is DropoutNoise.CONSERVATIVE or self.kind is NoiseKind.SKELLAM
        _require(sums, "dropout", "noise is removed exactly from Skellam noise only, which is closed under sums")


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisePlan:
    """Integers for a noisy sum. Grid quantities are in steps of 1 / scale.

    Attributes:
        request: What was asked for.
        scale: s, grid steps a model unit.
        limit: m: integers of a client's signal are in [-m, m].
        ring_bits: b.
        noise_tail: Bound of the summed noise.
        variance: Variance of the honest survivors' noise in one coordinate, (z C s)**2.
        beta: Probability with which a try of rounding exceeds `l2`.
        l2: L2 norm of one contribution after rounding.
        l1: The same for the L1 norm.
    """

    request: NoiseRequest
    scale: float
    limit: int
    ring_bits: int
    noise_tail: int
    variance: float
    beta: float
    l2: float
    l1: float

    @property
    def is_conditional(self) -> bool:
        """Whether rounding is repeated until the norm is within `l2`; else `l2` fails with probability `beta`."""
        return self.beta == CONDITIONAL_BETA

    @property
    def max_dropouts(self) -> int:
        """Losses that leave enough survivors."""
        return self.request.clients - self.request.min_survivors

    @property
    def excess(self) -> int:
        """Components of noise beyond the first share: one for each loss if excess noise is removed, else none."""
        return self.max_dropouts if self.request.dropout is DropoutNoise.XNOISE else 0

    def component_variance(self, component: int) -> float:
        """Return the variance of one component of a client's noise.

        With n' = clients - colluders, component 0 has variance / n', component k variance / ((n' - k + 1)(n' - k)):
        the first D + 1 of them add up to variance / (n' - D). Without removal all of the share is component 0.

        Args:
            component: 0 to `excess`.

        Paper: Zhang et al. 2022 (XNoise; arXiv 2209.12528), section 3.2, with n' for the number of clients.
        """
        if not 0 <= component <= self.excess:
            raise ParameterError("component", f"must be 0 to {self.excess}")
        request = self.request
        if request.dropout is DropoutNoise.CONSERVATIVE:
            return self.variance / (request.min_survivors - request.colluders)
        honest = request.clients - request.colluders
        if component == 0:
            return self.variance / honest
        return self.variance / ((honest - component + 1) * (honest - component))

    def share_variance(self, survivors: int) -> float:
        """Return the variance of the noise that one survivor has in an opened sum over so many.

        Raises:
            ParameterError: So few or so many survivors cannot be.
        """
        request = self.request
        if not request.min_survivors <= survivors <= request.clients:
            raise ParameterError("survivors", f"must be {request.min_survivors} to {request.clients}")
        if request.dropout is DropoutNoise.CONSERVATIVE:
            return self.component_variance(0)
        return self.variance / (survivors - request.colluders)

    def deviation(self, survivors: int) -> float:
        """Return the standard deviation of all noise in a decoded sum over so many survivors, in model units."""
        return math.sqrt(survivors * self.share_variance(survivors)) / self.scale


def plan_noise(request: NoiseRequest) -> NoisePlan:
    """Choose grid and ring.

    Raises:
        ParameterError: No ring holds the sum at a grid that is fine enough.
    """
    if request.ring_bits:
        return _plan(request, request.ring_bits)
    for bits in range(MIN_RING_BITS, MAX_RING_BITS + 1):
        try:
            plan = _plan(request, bits)
        except ParameterError:
            continue
        if plan.l2 <= WORTHWHILE_INFLATION * request.clip_norm * plan.scale or plan.scale == _finest(request):
            return plan
    raise ParameterError("ring_bits", f"no ring of up to {MAX_RING_BITS} bits is wide enough for this noise")


def _plan(request: NoiseRequest, bits: int) -> NoisePlan:
    """The finest grid in which clients * 2 * limit + 2 * tail < 2**bits."""
    reach = DEVIATIONS / math.sqrt(1 << (request.dimension.bit_length() - 1))
    signal = request.vector_norm * request.clip_norm * min(1.0, reach) * LEEWAY
    deviation = request.noise_multiplier * request.clip_norm * math.sqrt(_most_noise(request))
    room = (1 << bits) - 1 - 2 * request.clients - 4  # one step each that rounding up takes
    scale = min(room / (2 * (request.clients * signal + DEVIATIONS * deviation)), _finest(request))
    limit, tail = math.ceil(signal * scale), math.ceil(DEVIATIONS * deviation * scale) + 1
    _require(scale > 0 and limit >= 1, "ring_bits", f"{bits} bits hold no grid for {request.clients} clients")
    beta = _beta(request, bits)
    l2 = rounded_l2(request.clip_norm * scale * LEEWAY, request.dimension, beta)
    plan = NoisePlan(
        request=request,
        scale=scale,
        limit=limit,
        ring_bits=bits,
        noise_tail=tail,
        variance=(request.noise_multiplier * request.clip_norm * scale) ** 2,
        beta=beta,
        l2=l2,
        l1=rounded_l1(l2, request.dimension),
    )
    narrow = request.kind is NoiseKind.DISCRETE_GAUSSIAN and plan.component_variance(0) < MIN_GAUSSIAN_SIGMA**2
    _require(not narrow, "ring_bits", f"{bits} bits leave a share of noise below {MIN_GAUSSIAN_SIGMA} grid steps")
    return plan


def _beta(request: NoiseRequest, bits: int) -> float:
    """A whole vector can be rounded again; a sum of records cannot, as its norm says nothing about one record."""
    conditional = request.whole_vector and bits < UNCONDITIONAL_FROM_BITS
    return CONDITIONAL_BETA if conditional else RARE_BETA


def _most_noise(request: NoiseRequest) -> float:
    """The largest variance of all noise in a sum, as a multiple of what honest survivors must add."""
    least = request.min_survivors - request.colluders
    most = request.clients if request.dropout is DropoutNoise.CONSERVATIVE else request.min_survivors
    return most / least


def _finest(request: NoiseRequest) -> float:
    """The scale at which the widest component has the widest table, less what rounding its variance could add."""
    widest = 1.0 / (request.min_survivors - request.colluders)
    return _ROUNDED_DOWN * MAX_SIGMA / (request.noise_multiplier * request.clip_norm * math.sqrt(widest))


def _require(condition: bool, name: str, reason: str) -> None:
    if not condition:
        raise ParameterError(name, reason)
