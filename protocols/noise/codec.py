"""Clipped real vectors to noisy ring integers, and the opened sum back: rotate, scale, round, add noise; undo, decode.

The privacy of an opened sum rests on `NoisePlan.l1`, `l2` and the variances alone: a record changes a client's integers
by a vector within these norms, whatever the client's other records are, since rotating preserves norms, clamping a
coordinate never enlarges a difference, and rounding is bounded in rounding.py.
"""

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.entropy import Entropy
from protocols.errors import OutOfRangeError, ParameterError
from protocols.labels import Label
from protocols.noise.plan import LEEWAY, DropoutNoise, NoisePlan
from protocols.noise.rotation import Reals, Rotation
from protocols.noise.rounding import Integers, round_once, round_within
from protocols.noise.sampler import draw
from protocols.noise.tables import NoiseKind, noise_table
from protocols.secret_values import NoiseSeed
from protocols.vectors import Aggregate, NoisyVector, check_update

_KINDS = {NoiseKind.SKELLAM: 1, NoiseKind.DISCRETE_GAUSSIAN: 2}
_DROPOUTS = {DropoutNoise.CONSERVATIVE: 1, DropoutNoise.XNOISE: 2}
_DESCRIPTION = struct.Struct("<BBBBHHHQQQdddd32s")


class NoisyCodec:
    """Encodes float32 or float64 vectors with each client's share of the noise.

    Args:
        plan: Grid, ring and noise.
        rotation_seed: 32 public bytes that nobody chose who knows the vectors; privacy does not rest on them.
    """

    def __init__(self, plan: NoisePlan, rotation_seed: bytes) -> None:
        self.plan = plan
        self._rotation = Rotation(plan.request.dimension, rotation_seed)
        self._seed = bytes(rotation_seed)

    @property
    def vector_length(self) -> int:
        """Coordinates of an encoded vector."""
        return self.plan.request.dimension

    @property
    def max_coordinate(self) -> int:
        """Largest integer that a coordinate of one client holds before noise: 2 * limit."""
        return 2 * self.plan.limit

    @property
    def digest(self) -> bytes:
        """SHA-256 of the public description (protocols/noise/SPEC.md, "Encoding")."""
        plan, request = self.plan, self.plan.request
        description = _DESCRIPTION.pack(
            _KINDS[request.kind],
            _DROPOUTS[request.dropout],
            int(request.whole_vector),
            plan.ring_bits,
            request.clients,
            request.min_survivors,
            request.colluders,
            request.dimension,
            plan.limit,
            plan.noise_tail,
            request.clip_norm,
            plan.scale,
            plan.variance,
            plan.beta,
            self._seed,
        )
        return hashlib.sha256(Label.ENCODING.encoded + b"noisy" + description).digest()

    def clip(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return float32 [d], the vector scaled down to the clip norm if it is longer: where it is itself the unit.

        Raises:
            ShapeError, DtypeError, NonFiniteError: It is not a finite float32 [d].
        """
        check_update(vector, self.vector_length)
        norm = float(np.linalg.norm(vector.astype(np.float64)))
        factor = min(1.0, self.plan.request.clip_norm / norm) if norm else 1.0
        return (vector * factor).astype(np.float32)

    def encode(
        self, vector: NDArray[np.floating[Any]], entropy: Entropy, excess: Sequence[NoiseSeed] = ()
    ) -> NoisyVector:
        """Return the vector as integers with this client's noise.

        Args:
            vector: float32 or float64 [d]; a whole vector must be clipped, a sum of clipped records may have any norm.
            entropy: Cryptographic source of rounding and of the share that stays.
            excess: Seeds of the components 1, 2, ... that may be removed; as many as the plan says.

        Raises:
            ShapeError, DtypeError, NonFiniteError, OutOfRangeError: The vector is refused.
            ParameterError: The number of seeds is wrong.

        Privacy: the release is the opened sum; `plan` holds norms and variances for the event that records it.
        """
        if len(excess) != self.plan.excess:
            raise ParameterError("excess", f"takes {self.plan.excess} seeds, got {len(excess)}")
        values = self.integers(vector, entropy) + self.plan.limit
        seed = NoiseSeed(entropy(NoiseSeed.length))
        noise = self.component(0, seed)
        seed.erase()
        for component, given in enumerate(excess, start=1):
            noise += self.component(component, given)
        return NoisyVector(values.astype(np.uint64), self.max_coordinate, noise)

    def integers(self, vector: NDArray[np.floating[Any]], entropy: Entropy) -> Integers:
        """Return int64 [d], the rotated, scaled, clamped and rounded vector, without noise: private."""
        check_update(vector, self.vector_length, double=True)
        plan = self.plan
        if plan.request.whole_vector:
            norm = float(np.linalg.norm(vector.astype(np.float64)))
            if norm > plan.request.clip_norm * LEEWAY:
                raise OutOfRangeError(len(vector), 0)
        grid = self._rotation.apply(vector)
        grid *= plan.scale
        np.clip(grid, -plan.limit, plan.limit, out=grid)
        if plan.is_conditional:
            return round_within(grid, plan.l2, entropy)
        return round_once(grid, entropy(32))

    def component(self, component: int, seed: NoiseSeed) -> Integers:
        """Return int64 [d], one component of a client's noise: the same at every party that knows the seed."""
        table = noise_table(self.plan.request.kind, self.plan.component_variance(component))
        return draw(table, seed, self.vector_length)

    def decode_sum(self, total: Aggregate, num_survivors: int) -> Reals:
        """Return float64 [d], the sum of the survivors' vectors plus noise of deviation `plan.deviation(survivors)`.

        Raises:
            ShapeError: The total belongs to another codec.
        """
        integers = total.integers_of(self.vector_length)
        centred = integers - num_survivors * self.plan.limit
        return self._rotation.invert(centred / self.plan.scale)
