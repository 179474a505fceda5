"""A21: one client sends what it should not; it is dropped by name and nobody else is harmed."""

from collections.abc import Callable

import numpy as np

from protocols.attacks.records import Attack, Finding, Outcome, broken, refused
from protocols.attacks.scene import LENGTH, Scene, read
from protocols.attacks.substituted_keys import SMALL_ORDER
from protocols.errors import AuthenticationError, DecodeError, ProtocolError, StageOrderError
from protocols.messages import (
    AdvertiseKeysReply,
    Advertisement,
    ConsistencyCheckReply,
    MaskedInputReply,
    Message,
    ShareKeysReply,
    UnmaskingReply,
    encode_message,
)
from protocols.packing import packed_bytes
from protocols.secret_values import SelfMaskShare
from protocols.stages import Stage
from protocols.statements import advertisement_message

CULPRIT = 5
Replies = Callable[[Scene, bytes], tuple[bytes, ...]]
"""What the malicious client sends instead of its honest reply."""


def _play(stage: Stage, what: str, make: Replies) -> Finding | None:
    """Let one of six clients misbehave at a stage; None where it is named and the others' sum is right."""
    scene = Scene(6)
    culprit = scene.names[CULPRIT]
    try:
        scene.play(stage)
        scene.step(stage, replies=lambda name, frame: make(scene, frame) if name == culprit else (frame,))
        scene.play()
    except ProtocolError as error:
        return broken(f"{what}: one client ended the round of all: {error}")
    result = scene.server.result
    if result is None or not set(scene.names[:CULPRIT]) <= set(result.survivors):
        return broken(f"{what}: honest clients were lost with it")
    if not np.array_equal(result.total.integers(), scene.federation.expected(result.survivors)):
        return broken(f"{what}: the sum of the survivors is wrong")
    if culprit not in {rejection.client for rejection in scene.server.rejections}:
        return broken(f"{what}: accepted without a word")
    return None


def _frame(scene: Scene, message: Message) -> bytes:
    return encode_message(message, scene.parameters.round, scene.server.session_id)


def _vector(scene: Scene, ring_bits: int, length: int) -> bytes:
    return _frame(scene, MaskedInputReply((), ring_bits, length, bytes(packed_bytes(length, ring_bits))))


def malformed_uploads() -> Finding:
    """Send oversized, empty, random and foreign frames and vectors of another ring or length."""
    stage = Stage.MASKED_INPUT_COLLECTION
    tries: dict[str, Replies] = {
        "an oversized frame": lambda _, frame: (frame + bytes(1 << 20),),
        "an empty frame": lambda _, __: (b"",),
        "random bytes": lambda _, __: (bytes(range(256)) * 3,),
        "a wider ring": lambda scene, _: (_vector(scene, 40, LENGTH),),
        "a narrower ring": lambda scene, _: (_vector(scene, 8, LENGTH),),
        "a longer vector": lambda scene, _: (_vector(scene, scene.parameters.ring_bits, LENGTH + 1),),
        "padding that is not zero": lambda _, frame: (frame[:-1] + b"\xff",),
        "a reply to another stage": lambda scene, _: (scene.transcript[Stage.SHARE_KEYS, scene.names[CULPRIT]][1],),
        "a complaint about a stranger": lambda scene, frame: (_complaining(scene, frame),),
    }
    for what, make in tries.items():
        finding = _play(stage, what, make)
        if finding is not None:
            return finding
    return refused(DecodeError("each of them"), f"{len(tries)} malformed uploads; the others' sum is exact")


def _complaining(scene: Scene, frame: bytes) -> bytes:
    reply = read(MaskedInputReply, frame)
    return _frame(scene, MaskedInputReply((900,), reply.ring_bits, reply.length, reply.packed))


def upload_twice() -> Finding:
    """Send the masked vector twice."""
    finding = _play(Stage.MASKED_INPUT_COLLECTION, "two uploads", lambda _, frame: (frame, frame))
    return finding or refused(StageOrderError("one reply", "a second one"), "two uploads; the first one counts")


def shares_for_strangers() -> Finding:
    """Return shares of clients that dealt none, and deal shares to clients that do not exist."""

    def strange(scene: Scene, frame: bytes) -> tuple[bytes]:
        shares = dict(read(UnmaskingReply, frame).shares)
        return (_frame(scene, UnmaskingReply({**shares, 77: SelfMaskShare(bytes(36))})),)

    def dealt(scene: Scene, frame: bytes) -> tuple[bytes]:
        reply = read(ShareKeysReply, frame)
        return (_frame(scene, ShareKeysReply(reply.seed_commitment, {**reply.shares, 99: reply.shares[0]})),)

    def too_few(scene: Scene, frame: bytes) -> tuple[bytes]:
        reply = read(ShareKeysReply, frame)
        return (_frame(scene, ShareKeysReply(reply.seed_commitment, {0: reply.shares[0]})),)

    for stage, what, make in (
        (Stage.UNMASKING, "a share of a stranger", strange),
        (Stage.SHARE_KEYS, "shares for a stranger", dealt),
        (Stage.SHARE_KEYS, "shares for one holder only", too_few),
    ):
        finding = _play(stage, what, make)
        if finding is not None:
            return finding
    return refused(DecodeError("each of them"), "shares of and for strangers; the others' sum is exact")


def small_order_keys() -> Finding:
    """Advertise, and sign, public keys of small order."""
    for channel in (True, False):

        def advertise(scene: Scene, frame: bytes, channel: bool = channel) -> tuple[bytes]:
            own = read(AdvertiseKeysReply, frame).advertisement
            weak = Advertisement(
                SMALL_ORDER[2] if channel else own.channel_public,
                own.mask_public if channel else SMALL_ORDER[2],
                b"",
                b"",
            )
            identity = scene.federation.identities[scene.names[CULPRIT]]
            signature = identity.sign(advertisement_message(scene.server.session_id, CULPRIT, weak))
            signed = Advertisement(weak.channel_public, weak.mask_public, b"", signature)
            return (_frame(scene, AdvertiseKeysReply(signed)),)

        finding = _play(Stage.ADVERTISE_KEYS, f"a small-order {'channel' if channel else 'mask'} key", advertise)
        if finding is not None:
            return finding
    return refused(AuthenticationError("public key", "site-005"), "keys of small order; the others' sum is exact")


def keys_of_somebody_else() -> Finding:
    """Advertise another client's public keys, signed by oneself."""

    def advertise(scene: Scene, frame: bytes) -> tuple[bytes]:
        del frame
        copied = scene.sent(AdvertiseKeysReply, Stage.ADVERTISE_KEYS, scene.names[0]).advertisement
        identity = scene.federation.identities[scene.names[CULPRIT]]
        signature = identity.sign(advertisement_message(scene.server.session_id, CULPRIT, copied))
        return (
            _frame(scene, AdvertiseKeysReply(Advertisement(copied.channel_public, copied.mask_public, b"", signature))),
        )

    finding = _play(Stage.ADVERTISE_KEYS, "another client's keys", advertise)
    return finding or refused(AuthenticationError("public key", "site-005"), "another client's keys")


def worthless_signatures() -> Finding:
    """Sign another survivor set, or nothing."""

    def sign(scene: Scene, frame: bytes) -> tuple[bytes]:
        del frame
        return (_frame(scene, ConsistencyCheckReply(bytes(64))),)

    finding = _play(Stage.CONSISTENCY_CHECK, "a worthless signature", sign)
    return finding or refused(AuthenticationError("survivor set", "site-005"), "a worthless signature")


ATTACKS = (
    Attack(
        "A21a",
        "Malicious client",
        "a client uploads oversized, empty, random and foreign frames and vectors of another ring or length",
        Outcome.REFUSED,
        malformed_uploads,
    ),
    Attack("A21b", "Malicious client", "a client uploads its masked vector twice", Outcome.REFUSED, upload_twice),
    Attack(
        "A21c",
        "Malicious client",
        "a client returns shares of strangers and deals shares to strangers",
        Outcome.REFUSED,
        shares_for_strangers,
    ),
    Attack(
        "A21d",
        "Malicious client",
        "a client advertises, and signs, public keys of small order, to make all others refuse",
        Outcome.REFUSED,
        small_order_keys,
    ),
    Attack(
        "A21e",
        "Malicious client",
        "a client advertises another client's public keys as its own",
        Outcome.REFUSED,
        keys_of_somebody_else,
    ),
    Attack(
        "A21f",
        "Malicious client",
        "a client sends a worthless signature under the survivor set",
        Outcome.REFUSED,
        worthless_signatures,
    ),
)
