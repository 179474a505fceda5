"""Simulated federations whose clients add noise."""

from functools import cached_property

from protocols.client.session import RoundContext
from protocols.noise import DropoutNoise, NoiseRequest, NoisyCodec, plan_noise
from protocols.simulator import SimulatedFederation
from protocols.vectors import EncodedVector
from tests.protocols.noise.checks import source, vectors_of


class NoisyFederation(SimulatedFederation):
    """Clients that contribute noisy vectors of a codec: the same each time a round is run."""

    def contribute(self, context: RoundContext) -> EncodedVector:
        entropy = source(f"{context.client} {context.round}")
        return self.codec.encode(self.vector(context.client), entropy, context.excess)

    def vector(self, name: str):
        return self.vectors[self.names.index(name)]

    @cached_property
    def vectors(self):
        return vectors_of(self.codec, self.clients)


def noisy_federation(clients: int, min_survivors: int, dimension: int = 64, **changes) -> NoisyFederation:
    asked = {
        "dimension": dimension,
        "clip_norm": 1.0,
        "noise_multiplier": 1.0,
        "clients": clients,
        "min_survivors": min_survivors,
        **changes,
    }
    codec = NoisyCodec(plan_noise(NoiseRequest(**asked)), bytes(32))
    choices = {
        "noise_tail": codec.plan.noise_tail,
        "corrupt": 0,
        "threshold": min_survivors,
        "min_survivors": min_survivors,
        "excess": codec.plan.excess,
    }
    return NoisyFederation(clients, codec, choices=choices, excess_noise=codec)


def excess_federation(clients: int, min_survivors: int = 4, **changes) -> NoisyFederation:
    return noisy_federation(clients, min_survivors, dropout=DropoutNoise.XNOISE, **changes)
