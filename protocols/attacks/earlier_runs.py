"""A4: keys of earlier runs. A run that is started again with the same configuration and model has the same session."""

import hashlib

import numpy as np

from protocols.attacks.adversary import Loot, pads_from_keys, session_keys, strip_reply
from protocols.attacks.records import Attack, Finding, Outcome, broken, harmless, refused
from protocols.attacks.scene import Scene, read
from protocols.entropy import ReproducibleEntropy
from protocols.errors import ProtocolError
from protocols.messages import (
    AdvertiseKeysReply,
    Advertisement,
    DealtShares,
    MaskedInputReply,
    MaskedInputRequest,
    ShareKeysRequest,
)
from protocols.sealing import SEALED_BYTES
from protocols.secret_values import MaskKey
from protocols.stages import Stage

VICTIM = 0


def keys_that_fell_in_earlier_runs() -> Finding:
    """Lose each peer in one run of its own and gather its mask key; then show these keys to the victim in a new run."""
    shown: dict[int, Advertisement] = {}
    known: dict[int, MaskKey] = {}
    for lost in range(1, 5):
        shown[lost], known[lost] = _lose_in_a_run_of_its_own(lost)
    scene = _restarted(b"the last run")
    scene.play(Stage.SHARE_KEYS)
    name = scene.names[VICTIM]
    shown[VICTIM] = scene.sent(AdvertiseKeysReply, Stage.ADVERTISE_KEYS, name).advertisement
    original = read(ShareKeysRequest, scene.server.requests(Stage.SHARE_KEYS.value)[name])
    garbage = {dealer: DealtShares(bytes(16), bytes(16), bytes(SEALED_BYTES)) for dealer in known}
    try:
        scene.ask(name, Stage.SHARE_KEYS, ShareKeysRequest(shown, original.nonces))
        reply = scene.ask(name, Stage.MASKED_INPUT_COLLECTION, MaskedInputRequest(garbage))
    except ProtocolError as error:
        return refused(error, "keys of earlier runs with the same session id")
    pads = pads_from_keys(scene, name, known)
    guess = strip_reply(read(MaskedInputReply, reply), VICTIM, (), pads, session_keys(scene, name))
    if np.array_equal(guess, scene.secret_of(name)):
        return broken(f"keys of {len(known)} earlier runs opened the vector of {name}")
    return harmless(
        f"all {len(pads)} pairwise pads of {name} are known, its self mask is not: its seed was sealed to lost keys"
    )


def _lose_in_a_run_of_its_own(lost: int) -> tuple[Advertisement, MaskKey]:
    """A client's advertisement of a run in which it was lost, and the mask key that the server rebuilt."""
    scene, loot = _restarted(bytes([lost])), Loot()
    name = scene.names[lost]
    scene.play(lost={name: Stage.MASKED_INPUT_COLLECTION})
    for position, other in enumerate(scene.names):
        if position != lost:
            loot.add_reply(position, scene.transcript[Stage.UNMASKING, other][1])
    advertisement = scene.sent(AdvertiseKeysReply, Stage.ADVERTISE_KEYS, name).advertisement
    key = loot.mask_key_of(lost, scene.parameters.threshold, advertisement.mask_public)
    if key is None:
        raise LookupError("an honest server could not rebuild the mask key of a lost client")
    return advertisement, key


def _restarted(run: bytes) -> Scene:
    """The same clients in new processes: same identities, parameters and model, fresh randomness, no earlier rounds."""
    scene = Scene(5)
    for name in scene.names:
        scene.tap(name, ReproducibleEntropy(hashlib.sha256(run + name.encode()).digest()))
    return scene


ATTACKS = (
    Attack(
        "A4f",
        "Keys of earlier runs",
        "the server shows a restarted client keys from runs in which it could rebuild them, under the same session id",
        Outcome.HARMLESS,
        keys_that_fell_in_earlier_runs,
    ),
)
