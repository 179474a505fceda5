"""The channel of updates whose sum is differentially private: every hospital adds its share of the noise in the ring.

Nothing but the noisy sum leaves: no score, no count of clamped coordinates. What the server makes of the sum (one step
of SGD with momentum, or the mean) uses public constants only.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.entropy import Entropy, ReproducibleEntropy, system_entropy
from protocols.noise import NoisePlan, NoisyCodec
from protocols.result import RoundResult
from protocols.secret_values import NoiseSeed
from protocols.vectors import NoisyVector
from securefed.compression import Contribution, OpenedSum, check_codec
from securefed.config import RunConfig
from securefed.memoryless import MemorylessServer, MemorylessSite
from securefed.nodes.numbering import training_round
from securefed.run_folder import Arrays

Vector = NDArray[np.float32]
Reals = NDArray[np.float64]

_ROTATION = b"securefed/noisy-channel/v1/rotation"


@dataclass(frozen=True)
class MomentumStep:
    """SGD with momentum on a noisy sum of gradients; every number is public.

    Attributes:
        learning_rate: Of the first round.
        decay: Factor on it after each round.
        momentum: Decay of the velocity.
        weight_decay: Decoupled, times the learning rate.
        divisor: By which the sum is divided.
    """

    learning_rate: float
    decay: float
    momentum: float
    weight_decay: float
    divisor: float

    def __call__(self, total: Reals, vector: Reals, velocity: Reals, number: int) -> tuple[Reals, Reals]:
        """Return the update and the new velocity, both float64[d], of round `number` from 1."""
        velocity = self.momentum * velocity + total / self.divisor
        rate = self.learning_rate * self.decay ** (number - 1)
        return -rate * velocity - rate * self.weight_decay * vector, velocity


@dataclass(frozen=True)
class NoisyChannel:
    """Makes both halves of the channel from what all parties know.

    Attributes:
        config: The run's configuration.
        plan: Grid, ring and noise.
    """

    config: RunConfig
    plan: NoisePlan

    def codec(self) -> NoisyCodec:
        """Return the encoding, the same in all rounds; its public rotation follows from the seed of the run."""
        seed = self.config.federation.seed.to_bytes(8, "little")
        return NoisyCodec(self.plan, hashlib.sha256(_ROTATION + seed).digest())

    def server(self) -> "NoisyServer":
        """Return the server's half."""
        training, privacy = self.config.training, self.config.privacy
        if self.plan.request.whole_vector:
            return NoisyServer(self.codec(), None)
        divisor = privacy.normaliser * self.plan.request.clients
        step = MomentumStep(
            training.fam_learning_rate,
            training.learning_rate_decay,
            training.adam_beta1,
            training.weight_decay,
            divisor,
        )
        return NoisyServer(self.codec(), step)

    def site(self, site: str) -> "NoisySite":
        """Return the half of one site."""
        return NoisySite(self.codec(), self._entropy(site))

    def _entropy(self, site: str) -> Callable[[int], Entropy]:
        if self.config.privacy.noise == "system":
            return lambda _number: system_entropy
        seed = self.config.federation.seed

        def reproducible(number: int) -> Entropy:
            text = "\x1f".join(["securefed noise", str(seed), site, str(number)])
            return ReproducibleEntropy(hashlib.sha256(text.encode()).digest())

        return reproducible


class NoisyServer(MemorylessServer):
    """The server's half: the model in float32 as download; the noisy sum becomes a step.

    Args:
        codec: The encoding.
        step: What is made of a sum of gradients; None takes the mean of whole updates.
    """

    def __init__(self, codec: NoisyCodec, step: MomentumStep | None) -> None:
        self.codec = codec
        self._step = step
        self._vector: Reals = np.zeros(codec.vector_length)
        self._velocity: Reals = np.zeros(codec.vector_length)

    def payload(self, vector: Vector) -> bytes:
        """Return the model's bytes."""
        self._vector = vector.astype(np.float64)
        return np.ascontiguousarray(vector, dtype="<f4").tobytes()

    def open(self, result: RoundResult) -> OpenedSum:
        """Decode the sum and make a step of it."""
        survivors = len(result.survivors)
        total = self.codec.decode_sum(result.total, survivors)
        if self._step is None:
            return OpenedSum(total / survivors, 0.0, 0.0)
        number = training_round(result.parameters.round)
        update, self._velocity = self._step(total, self._vector, self._velocity, number)
        return OpenedSum(update, 0.0, 0.0)

    def state(self) -> Arrays:
        """Return the velocity: it follows from the noisy sums and is public."""
        return {} if self._step is None else {"velocity": self._velocity.copy()}

    def restore(self, state: Arrays, vector: Vector, *, known: bool) -> None:
        """Go on from a velocity."""
        del vector, known  # the next download carries the whole model
        if "velocity" in state:
            self._velocity = state["velocity"].astype(np.float64)


class NoisySite(MemorylessSite):
    """A site's half: clip (where the whole update is the unit), rotate, round, add noise.

    Args:
        codec: The encoding.
        entropy: {round: cryptographic source of rounding and noise}.
    """

    def __init__(self, codec: NoisyCodec, entropy: Callable[[int], Entropy]) -> None:
        self._codec = codec
        self._entropy = entropy

    def receive(self, payload: bytes | memoryview) -> Vector:
        """Return the model."""
        return np.frombuffer(payload, dtype="<f4").astype(np.float32)

    def encode(
        self, number: int, digest: bytes, contribution: Contribution, excess: Sequence[NoiseSeed] = ()
    ) -> NoisyVector:
        """Return the contribution as noisy integers.

        A vector that is not finite counts as zero: to refuse it would tell who had it.
        """
        check_codec(self._codec, digest)
        vector = contribution.update
        if not np.isfinite(vector).all():
            vector = np.zeros_like(vector)
        if self._codec.plan.request.whole_vector:
            vector = self._codec.clip(vector)
        return self._codec.encode(vector, self._entropy(number), excess)
