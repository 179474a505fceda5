"""A16 and A17: what the server sees beyond masked vectors, and what is left of secrets when a round is over."""

import base64
import copy
import gc
import logging
import pickle
from collections.abc import Iterable, Iterator

import numpy as np

from protocols.attacks.records import Attack, Finding, Outcome, broken, harmless
from protocols.attacks.scene import Scene, read
from protocols.client.session import RoundContext
from protocols.codec import FixedPointCodec
from protocols.errors import ProtocolError
from protocols.messages import ConsistencyCheckRequest, MaskedInputReply
from protocols.messages.consistency import SurvivorSet
from protocols.roster import IdentitySeed
from protocols.secret_values import Secret
from protocols.stages import Stage
from protocols.vectors import EncodedVector, MaskedVector

WEIGHTS = (17, 801, 3, 999, 250)
OTHER_WEIGHTS = (940, 2, 77, 512, 1000)
CLIPPED = 11


def compare_two_hospitals_sizes() -> Finding:
    """Play the same round with the same randomness but other numbers of examples; compare all that the server sees."""
    scenes = [_weighted(weights) for weights in (WEIGHTS, OTHER_WEIGHTS)]
    for scene, weights in zip(scenes, (WEIGHTS, OTHER_WEIGHTS), strict=True):
        scene.play(Stage.CONSISTENCY_CHECK)
        for name, weight in zip(scene.names, weights, strict=True):
            sent = scene.sent(MaskedInputReply, Stage.MASKED_INPUT_COLLECTION, name)
            last = MaskedVector.decode(sent.packed, sent.length, sent.ring_bits).lanes[-2:].tolist()
            if last == [weight, CLIPPED]:
                return broken(f"weight and clip count of {name} stand in clear in its masked vector")
        scene.play()
    first, second = scenes
    for (stage, name), (request, reply) in first.transcript.items():
        others = second.transcript[stage, name]
        for what, mine, other in (("request", request, others[0]), ("reply", reply, others[1])):
            if len(mine) != len(other):
                return broken(f"the length of the {what} of {name} at {stage.value} depends on its number of examples")
            if stage is Stage.MASKED_INPUT_COLLECTION and what == "reply":
                mine, other = _beside_the_vector(mine), _beside_the_vector(other)
            if mine != other:
                return broken(f"the {what} of {name} at {stage.value} depends on its number of examples")
    frames = len(first.transcript) * 2
    return harmless(f"{frames} frames are equal byte for byte but for the masked vectors, whatever the weights")


def _weighted(weights: Iterable[int]) -> Scene:
    codec = FixedPointCodec([32], [0.5], 16, max_weight=1000, max_counters=(32,))
    scene = Scene(5, codec=codec)
    update = np.linspace(-0.4, 0.4, 32, dtype=np.float32)
    for name, weight in zip(scene.names, weights, strict=True):

        def contribute(_: RoundContext, weight: int = weight) -> EncodedVector:
            return codec.encode(update, np.random.default_rng(1), weight=weight, counters=(CLIPPED,))

        scene.replace(name, contribute=contribute)
    return scene


def _beside_the_vector(frame: bytes) -> bytes:
    """A reply with a masked vector without the vector's bytes."""
    return frame[: len(frame) - len(_packed(frame))]


def _packed(frame: bytes) -> bytes:
    return bytes(read(MaskedInputReply, frame).packed)


def look_for_live_secrets() -> Finding:
    """Keep a hold of every secret object during a round, and look which of them still has its bytes afterwards."""
    for how in ("a finished round", "a refused round", "an abandoned round"):
        scene, before = Scene(5), _live_secrets()
        held: list[Secret] = []
        for stage in (Stage.SHARE_KEYS, Stage.MASKED_INPUT_COLLECTION, Stage.CONSISTENCY_CHECK, Stage.UNMASKING):
            scene.play(stage)
            held += _live_secrets()
        _end(scene, how)
        known = {id(secret) for secret in before}
        left = {id(s): s for s in held if id(s) not in known and not s.is_erased}
        kinds = sorted({type(secret).__name__ for secret in left.values() if not isinstance(secret, IdentitySeed)})
        if kinds:
            return broken(f"after {how}, {len(left)} secrets are not erased: {', '.join(kinds)}")
    return harmless("after finished, refused and abandoned rounds every secret that was alive in between is erased")


def _live_secrets() -> list[Secret]:
    return [thing for thing in gc.get_objects() if issubclass(type(thing), Secret) and not thing.is_erased]


def _end(scene: Scene, how: str) -> None:
    if how == "a finished round":
        scene.play()
    elif how == "a refused round":
        for name in scene.names:
            refuse(scene, name)
    else:
        for machine in scene.federation.machines.values():
            machine.abandon()


def refuse(scene: Scene, name: str) -> str:
    """Make a client refuse an expected request; return what it says."""
    try:
        frame = scene.server.requests(scene.federation.machines[name].expects.value)[name]
        scene.send(name, scene.federation.machines[name].expects, frame[:-1] + bytes([frame[-1] ^ 0xFF]))
    except ProtocolError as error:
        return f"{error!r} {error}"
    return ""


def search_what_is_left() -> Finding:
    """Search frames, dumps, representations, errors, pickles and the log for the secrets that clients drew."""
    handler = _Listener(level=0)
    logging.getLogger().addHandler(handler)
    try:
        scene = Scene(5)
        shown: list[bytes] = []
        pickles: list[bytes] = []
        for stage in (*scene.server.stages[1:], None):
            scene.play(stage)
            shown += [repr(thing).encode() for thing in _things()]
            pickles += _pickles(scene)
        dumps = [machine.dump() for machine in scene.federation.machines.values()]
        scene.begin(2)
        scene.play(Stage.CONSISTENCY_CHECK)
        errors = [refuse(scene, name) for name in scene.names]
        wrong = ConsistencyCheckRequest(SurvivorSet.of(5, {0}))
        errors += [f"{error!r} {error}" for error in scene.ask_all(Stage.CONSISTENCY_CHECK, lambda _: wrong)[1]]
    finally:
        logging.getLogger().removeHandler(handler)
    needles = {draw for tap in scene.taps.values() for draw in tap.draws if len(draw) == 32}
    haystacks: dict[str, list[bytes]] = {
        "a representation": shown,
        "an error": [text.encode() for text in errors],
        "the log": [record.getMessage().encode() for record in handler.records],
        "a frame": [frame for pair in scene.transcript.values() for frame in pair],
        "a state after the round": dumps,
        "a pickle": pickles,
    }
    for where, texts in haystacks.items():
        found = sum(form in text for needle in needles for form in _forms(needle) for text in texts)
        if found:
            return broken(f"{where} holds a secret ({found} times)")
    return harmless(f"{len(needles)} secrets searched in {sum(map(len, haystacks.values()))} texts: none found")


class _Listener(logging.Handler):
    """Keeps every log record."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def _forms(secret: bytes) -> tuple[bytes, ...]:
    """How bytes may be written: as they are, in hex, in base 64, as Python writes them."""
    return secret, secret.hex().encode(), base64.b64encode(secret), repr(secret).encode()[2:-1]


def _things() -> Iterator[object]:
    """All living objects of this package."""
    for thing in gc.get_objects():
        module = str(type(thing).__module__)
        if module.startswith("protocols.") and not module.startswith(("protocols.attacks", "protocols.simulator")):
            yield thing


def _pickles(scene: Scene) -> Iterator[bytes]:
    for machine in scene.federation.machines.values():
        for attempt in (pickle.dumps, copy.deepcopy):
            try:
                made = attempt(machine)
            except (TypeError, AttributeError, pickle.PicklingError):
                continue
            yield made if isinstance(made, bytes) else repr(made).encode()


ATTACKS = (
    Attack(
        "A16",
        "Metadata",
        "the server compares two rounds that differ in the hospitals' numbers of examples and clip counts only",
        Outcome.HARMLESS,
        compare_two_hospitals_sizes,
    ),
    Attack(
        "A17a",
        "Secrets left behind",
        "somebody reads a client's memory after a round that finished, was refused or was abandoned",
        Outcome.HARMLESS,
        look_for_live_secrets,
    ),
    Attack(
        "A17b",
        "Secrets left behind",
        "somebody searches frames, states, representations, errors, pickles and the log for the round's secrets",
        Outcome.HARMLESS,
        search_what_is_left,
    ),
)
