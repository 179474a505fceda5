"""A19: a server that wants less noise in the sum than was agreed on."""

import numpy as np
from numpy.typing import NDArray

from protocols.attacks.records import Attack, Finding, Outcome, broken, harmless, refused
from protocols.attacks.scene import Scene, first_refusal, read
from protocols.client.session import Contribute, RoundContext
from protocols.entropy import Entropy
from protocols.errors import ProtocolError
from protocols.messages import ConsistencyCheckReply, NoisyUnmaskingReply, UnmaskingRequest
from protocols.messages.consistency import SurvivorSet
from protocols.noise import DropoutNoise, NoiseRequest, NoisyCodec, plan_noise
from protocols.secret_values import NoiseSeed
from protocols.shamir import combine
from protocols.stages import Stage
from protocols.vectors import EncodedVector

CLIENTS, MIN_SURVIVORS, DIMENSION = 6, 5, 4096
_SLACK = 0.08
"""A standard deviation measured on 4,096 coordinates is within 8 % of the true one but for once in 10^12 times."""


def noisy_scene() -> tuple[Scene, NoisyCodec]:
    """Return six clients that add noise to vectors of zeros; one of them may be lost."""
    request = NoiseRequest(
        dimension=DIMENSION,
        clip_norm=1.0,
        noise_multiplier=1.0,
        clients=CLIENTS,
        min_survivors=MIN_SURVIVORS,
        dropout=DropoutNoise.XNOISE,
    )
    codec = NoisyCodec(plan_noise(request), bytes(32))
    plan = codec.plan
    scene = Scene(
        CLIENTS,
        codec=codec,
        choices={"noise_tail": plan.noise_tail, "excess": plan.excess, "min_survivors": MIN_SURVIVORS},
        excess_noise=codec,
    )
    nothing = np.zeros(DIMENSION, dtype=np.float32)
    for name in scene.names:
        scene.replace(name, contribute=_adds_noise(codec, nothing, scene.federation.entropy[name]))
    return scene, codec


def _adds_noise(codec: NoisyCodec, vector: NDArray[np.float32], entropy: Entropy) -> Contribute:
    def contribute(context: RoundContext) -> EncodedVector:
        return codec.encode(vector, entropy, context.excess)

    return contribute


def losses_at_every_stage() -> Finding:
    """Lose nobody, then one client at each stage, and measure the noise that is left in the sum."""
    measured = []
    stages = (None, Stage.SHARE_KEYS, Stage.MASKED_INPUT_COLLECTION, Stage.CONSISTENCY_CHECK, Stage.UNMASKING)
    for stage in stages:
        scene, codec = noisy_scene()
        try:
            scene.play(lost={} if stage is None else {scene.names[2]: stage})
        except ProtocolError as error:
            return broken(f"one loss at {stage}: {error}")
        result = scene.server.result
        if result is None:
            return broken(f"one loss at {stage} was not survived")
        found = float(codec.decode_sum(result.total, len(result.survivors)).std())
        if abs(found - 1) > _SLACK:
            return broken(f"one loss at {stage}: the noise has {found:.3f} of the agreed standard deviation")
        measured.append(found)
    return harmless(f"{min(measured):.3f} to {max(measured):.3f} of the agreed standard deviation, whoever is lost")


def count_a_lost_client_as_a_survivor() -> Finding:
    """Lose one client, and ask for shares over the whole cohort, so that one component more would be removed."""
    scene, codec = noisy_scene()
    scene.play(Stage.UNMASKING, lost={scene.names[0]: Stage.MASKED_INPUT_COLLECTION})
    everybody = SurvivorSet.of(CLIENTS, frozenset(range(CLIENTS)))
    there = scene.names[1:]
    signatures = {
        scene.names.index(name): scene.sent(ConsistencyCheckReply, Stage.CONSISTENCY_CHECK, name).signature
        for name in there
    }
    shares: dict[int, dict[int, bytes]] = {}
    refusals: list[ProtocolError] = []
    for name in there:
        try:
            reply = scene.ask(name, Stage.UNMASKING, UnmaskingRequest(everybody, signatures))
        except ProtocolError as error:
            refusals.append(error)
            continue
        for owner, (share,) in read(NoisyUnmaskingReply, reply).noise.items():
            shares.setdefault(owner, {})[scene.names.index(name) + 1] = share.expose()
    removed = _rebuilt(codec, shares, scene.parameters.threshold)
    if removed is not None:
        return broken(f"the component that must stay is known of {len(shares)} clients: {removed.std():.0f} grid steps")
    return refused(first_refusal(refusals), "a larger survivor set than the signed one")


def _rebuilt(codec: NoisyCodec, shares: dict[int, dict[int, bytes]], threshold: int) -> NDArray[np.int64] | None:
    """The sum of the first components whose seeds the shares give."""
    total: NDArray[np.int64] | None = None
    for held in shares.values():
        holders = sorted(held)[:threshold]
        secret = combine(holders, [held[holder] for holder in holders]) if len(holders) == threshold else None
        if secret is not None:
            noise = codec.component(1, NoiseSeed(secret))
            total = noise if total is None else total + noise
    return total


ATTACKS = (
    Attack(
        "A19a",
        "Noise after drops",
        "the server loses one client at each stage and hopes that less noise than agreed is left in the sum",
        Outcome.HARMLESS,
        losses_at_every_stage,
    ),
    Attack(
        "A19b",
        "Noise after drops",
        "the server counts a lost client as a survivor, so that more of the clients' noise would be removed",
        Outcome.REFUSED,
        count_a_lost_client_as_a_survivor,
    ),
)
