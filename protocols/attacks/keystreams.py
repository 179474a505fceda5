"""A13 and A14: seeds that are shorter or fewer than they seem, and masked vectors that are not uniform."""

from math import log, sqrt

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from protocols.attacks.adversary import endpoints, session_keys
from protocols.attacks.records import Attack, Finding, Outcome, broken, harmless
from protocols.attacks.scene import Scene
from protocols.client.session import RoundContext
from protocols.codec import FixedPointCodec
from protocols.key_agreement import AgreementKey, pairwise_seed, public_key, self_mask_key
from protocols.messages import MaskedInputReply
from protocols.pads import Pad, apply_pads
from protocols.secret_values import MaskKey, PairwiseSeed, SelfMaskSeed
from protocols.stages import Stage
from protocols.vectors import EncodedVector, MaskedVector

FALSE_ALARM = 1e-9
"""Chance that a statistical check of this module fails on a perfect build, for each attack as a whole."""

FOLDED_BITS = 16
"""Size of the folded seed that is searched for: a scaled-down 32-bit fold."""


def search_folded_seeds() -> Finding:
    """Take 16 known bytes of a keystream and try every key that comes from a folded seed; then try to fold by hand."""
    target = _keystream(bytes(range(100, 132)))
    for guess in range(1 << FOLDED_BITS):
        if _raw_keystream(guess.to_bytes(2, "big") + bytes(30)) == target:
            return broken(f"the keystream comes from one of 2**{FOLDED_BITS} keys")
    for distance in (8, 16, 32, 64, 128):
        for bit in range(0, 256 - distance, 5):
            pair = (1 << bit) | (1 << (bit + distance))
            key = int.from_bytes(bytes(range(100, 132)), "big") ^ pair
            if _keystream(key.to_bytes(32, "big")) == target:
                return broken(f"seeds are folded: bits {bit} and {bit + distance} cancel")
    return harmless(f"2**{FOLDED_BITS} folded keys and all pairs of bits tried: each bit of 256 counts")


def _keystream(seed: bytes) -> bytes:
    lanes = np.zeros(4, dtype="<u4")
    apply_pads(lanes, [Pad(PairwiseSeed(seed), negative=False)])
    return lanes.tobytes()


def _raw_keystream(key: bytes) -> bytes:
    """What AES-256-CTR gives for a key, without the build's pads."""
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(16))


def collect_seeds() -> Finding:
    """Gather every seed of four sessions (two rounds, two models) and look for repetition and for constant bits."""
    seeds: list[bytes] = []
    for payload in (b"model one", b"model two"):
        scene = Scene(12)
        for number in (1, 2):
            scene.server = scene.federation.server(number, payload=payload)
            scene.restart()
            scene.play(Stage.CONSISTENCY_CHECK)
            seeds += _seeds_of(scene)
    if len(set(seeds)) != len(seeds):
        return broken(f"{len(seeds) - len(set(seeds))} of {len(seeds)} seeds occur twice")
    bits = np.unpackbits(np.frombuffer(b"".join(seeds), dtype=np.uint8).reshape(len(seeds), 32), axis=1)
    limit = sqrt(log(2 * 256 / FALSE_ALARM) / (2 * len(seeds)))
    worst = float(np.abs(bits.mean(axis=0) - 0.5).max())
    if worst > limit:
        return broken(f"a bit of the seeds is one with frequency {0.5 + worst:.2f}")
    return harmless(f"{len(seeds)} seeds of 4 sessions: all distinct, 256 bits each within {limit:.2f} of one half")


def _seeds_of(scene: Scene) -> list[bytes]:
    """All pairwise seeds and self-mask keys of a session, from the clients' draws."""
    name = scene.names[0]
    session, ends = session_keys(scene, name), endpoints(scene, name)
    private: dict[int, MaskKey] = {}
    seeds: list[bytes] = []
    for position, end in ends.items():
        draws = [draw for draw in scene.taps[scene.names[position]].draws if len(draw) == MaskKey.length][-3:]
        for draw in draws:
            if public_key(MaskKey(draw)) == end.public:
                private[position] = MaskKey(draw)
        seeds += [self_mask_key(SelfMaskSeed(draw), session, position).expose() for draw in draws[2:]]
    for position, key in private.items():
        for peer in ends:
            if peer > position:
                seeds.append(pairwise_seed(AgreementKey(key), ends[position], ends[peer], session).expose())
    return seeds


def _masked(scene: Scene) -> NDArray[np.int64]:
    """int64 [n, d], the masked vectors as the server gets them."""
    scene.play(Stage.CONSISTENCY_CHECK)
    replies = [scene.sent(MaskedInputReply, Stage.MASKED_INPUT_COLLECTION, name) for name in scene.names]
    lanes = [MaskedVector.decode(reply.packed, reply.length, reply.ring_bits).lanes for reply in replies]
    return np.stack(lanes).astype(np.int64)


def _constant(value: int, codec: FixedPointCodec) -> Scene:
    """A scene in which everybody contributes one value everywhere; the value alternates with zero."""
    scene = Scene(5, codec=codec)

    def contribute(context: RoundContext) -> EncodedVector:
        values = np.zeros(context.parameters.vector_length, dtype=np.uint32)
        values[::2] = value
        return EncodedVector(values, context.parameters.max_coordinate)

    for name in scene.names:
        scene.replace(name, contribute=contribute)
    return scene


def chi_square_limit(bins: int, false_alarm: float) -> float:
    """Return what a chi-square statistic with bins - 1 degrees of freedom exceeds with at most that probability.

    Paper: Laurent and Massart 2000, lemma 1: P(X >= k + 2 sqrt(k x) + 2 x) <= exp(-x).
    """
    k, x = bins - 1, log(1 / false_alarm)
    return k + 2 * sqrt(k * x) + 2 * x


def _chi_square(values: NDArray[np.int64], bins: int) -> float:
    counts = np.bincount(values.ravel(), minlength=bins)
    expected = values.size / bins
    return float(((counts - expected) ** 2 / expected).sum())


def look_for_a_pattern() -> Finding:
    """Let all clients contribute a pattern of extremes and look for it in the masked vectors."""
    share = FALSE_ALARM / 4
    small = FixedPointCodec([1 << 12], [0.5], 2)
    wide = FixedPointCodec([1 << 13], [0.5], 16)
    narrow, large = _masked(_constant(2, small)), _masked(_constant(65534, wide))
    ring = 1 << 4
    if narrow.max() >= ring or set(np.unique(narrow)) != set(range(ring)):
        return broken("some elements of a ring of four bits never occur")
    statistics = {
        "all 16 values": (_chi_square(narrow, ring), chi_square_limit(ring, share)),
        "high byte of 19 bits": (_chi_square(large >> 11, 256), chi_square_limit(256, share)),
        "low byte of 19 bits": (_chi_square(large & 255, 256), chi_square_limit(256, share)),
    }
    for what, (value, limit) in statistics.items():
        if value > limit:
            return broken(f"{what}: chi-square {value:.0f} above {limit:.0f}")
    scaled = large / (1 << 19)
    gap = abs(float(scaled[:, ::2].mean() - scaled[:, 1::2].mean()))
    limit = 2 * sqrt(log(4 / share) / (2 * scaled[:, ::2].size))
    if gap > limit:
        return broken(f"the pattern shows: halves differ by {gap:.4f}, above {limit:.4f}")
    worst = max(value / limit for value, limit in statistics.values())
    return harmless(
        f"uniform over the ring (chi-square at most {worst:.2f} of its limit at {FALSE_ALARM:g}), no pattern"
    )


ATTACKS = (
    Attack(
        "A13a",
        "Seed entropy",
        "the adversary knows 16 bytes of a keystream and searches all keys that a folded seed could give",
        Outcome.HARMLESS,
        search_folded_seeds,
    ),
    Attack(
        "A13b",
        "Seed reuse",
        "the adversary compares the seeds of all pairs, directions, rounds and models",
        Outcome.HARMLESS,
        collect_seeds,
    ),
    Attack(
        "A14",
        "Statistics of masked vectors",
        "the server looks for values that never occur and for the pattern of the inputs in masked vectors",
        Outcome.HARMLESS,
        look_for_a_pattern,
    ),
)
