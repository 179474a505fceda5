"""Noise that is added in shares inside the ring, for differential privacy of an opened sum (SPEC.md there)."""

from protocols.noise.codec import NoisyCodec
from protocols.noise.plan import DropoutNoise, NoisePlan, NoiseRequest, plan_noise
from protocols.noise.tables import NoiseKind

__all__ = ["DropoutNoise", "NoiseKind", "NoisePlan", "NoiseRequest", "NoisyCodec", "plan_noise"]
