"""Writes the known answers of protocols/noise/SPEC.md from fixed seeds.

Run from the repository root: python -m tests.vectors.generate_noise
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from protocols.noise import NoiseKind, NoiseRequest, NoisyCodec, plan_noise
from protocols.noise.rotation import Rotation
from protocols.noise.sampler import draw
from protocols.noise.tables import noise_table
from protocols.secret_values import NoiseSeed

HERE = Path(__file__).parent
SEED = bytes(range(32))
NOISE = [
    (NoiseKind.SKELLAM, 0.25),
    (NoiseKind.SKELLAM, 2.25),
    (NoiseKind.SKELLAM, 1e4),
    (NoiseKind.DISCRETE_GAUSSIAN, 0.25),
    (NoiseKind.DISCRETE_GAUSSIAN, 2.25),
    (NoiseKind.DISCRETE_GAUSSIAN, 1e4),
]


class Queue:
    """Gives prepared bytes, in order."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = list(parts)

    def __call__(self, length: int, /) -> bytes:
        part = self._parts.pop(0)
        assert len(part) == length
        return part


def noise_vectors() -> dict[str, Any]:
    """Return all known answers."""
    return {
        "rotations": [_rotation(dimension) for dimension in (1, 2, 5, 16)],
        "noise": [_noise(kind, variance) for kind, variance in NOISE],
        "encoded": _encoded(),
    }


def _rotation(dimension: int) -> dict[str, Any]:
    vector = [float(i * i % 7 - 3) for i in range(dimension)]
    rotated = Rotation(dimension, SEED).apply(np.array(vector))
    return {"seed": SEED.hex(), "vector": vector, "rotated": [round(x, 12) for x in rotated.tolist()]}


def _noise(kind: NoiseKind, variance: float) -> dict[str, Any]:
    table = noise_table(kind, variance)
    return {
        "kind": kind.value,
        "variance": variance,
        "row_count": len(table.high),
        "rows": [str(table.row(k)) for k in range(min(12, len(table.high)))],
        "seed": SEED.hex(),
        "draws": draw(table, NoiseSeed(SEED), 24).tolist(),
    }


def _encoded() -> dict[str, Any]:
    request = NoiseRequest(dimension=6, clip_norm=1.0, noise_multiplier=2.0, clients=5, min_survivors=4, ring_bits=16)
    plan = plan_noise(request)
    rotation_seed, rounding_seed, noise_seed = (bytes([i]) * 32 for i in (1, 2, 3))
    codec = NoisyCodec(plan, rotation_seed)
    vector = np.array([0.5, -0.25, 0.125, 0.0, 0.75, -0.0625], dtype=np.float32)
    encoded = codec.encode(vector, Queue(rounding_seed, noise_seed))
    return {
        "dimension": 6,
        "clip_norm": 1.0,
        "noise_multiplier": 2.0,
        "clients": 5,
        "min_survivors": 4,
        "kind": request.kind.value,
        "ring_bits": plan.ring_bits,
        "scale": plan.scale,
        "limit": plan.limit,
        "noise_tail": plan.noise_tail,
        "l2": plan.l2,
        "l1": plan.l1,
        "share_variance": plan.component_variance(0),
        "rotation_seed": rotation_seed.hex(),
        "rounding_seed": rounding_seed.hex(),
        "noise_seed": noise_seed.hex(),
        "encoding_digest": codec.digest.hex(),
        "vector": vector.tolist(),
        "integers": codec.integers(vector, Queue(rounding_seed)).tolist(),
        "noise": codec.component(0, NoiseSeed(noise_seed)).tolist(),
        "lanes": encoded.lanes(plan.ring_bits).tolist(),
    }


if __name__ == "__main__":
    (HERE / "noise.json").write_text(json.dumps(noise_vectors(), indent=1) + "\n", encoding="utf-8")
