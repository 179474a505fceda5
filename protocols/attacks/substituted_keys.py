"""A3 and A4: keys that are not what they seem: the server's own, another client's, of small order, or from earlier."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from protocols.attacks.adversary import Loot, strip_reply
from protocols.attacks.records import Attack, Finding, Outcome, broken, harmless, refused
from protocols.attacks.scene import Scene, read
from protocols.entropy import ReproducibleEntropy
from protocols.errors import ProtocolError
from protocols.key_agreement import AgreementKey, Endpoint, pairwise_seed, public_key, sealing_keys
from protocols.messages import (
    AdvertiseKeysReply,
    Advertisement,
    DealtShares,
    MaskedInputReply,
    MaskedInputRequest,
    ShareKeysReply,
    ShareKeysRequest,
)
from protocols.roster import IdentityKey
from protocols.sealing import SEALED_BYTES, open_shares
from protocols.secret_values import ChannelKey, MaskKey
from protocols.session import SessionKeys, keys_digest_complete
from protocols.stages import Stage, ThreatModel
from protocols.statements import advertisement_message

SMALL_ORDER = tuple(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
    )
)
"""X25519 public keys whose agreement with anybody is zero (RFC 7748, section 6.1)."""


class KnownAgreement(AgreementKey):
    """Stands for a key whose agreements are zero whoever the peer is: what small-order points are for."""

    def __init__(self) -> None:
        super().__init__(ChannelKey(bytes(32)))

    def exchange(self, peer: Endpoint) -> bytes:
        """Return the shared secret that everybody knows."""
        del peer
        return bytes(32)


@dataclass(frozen=True)
class FakePeer:
    """A peer that the server invents in place of an honest client.

    Attributes:
        channel: Agrees on channel keys.
        mask: Agrees on pads.
        shown: What the victim is shown.
    """

    channel: AgreementKey
    mask: AgreementKey
    shown: Advertisement


Invent = Callable[[Scene, int, Advertisement], FakePeer]
"""(scene, position, the honest client's advertisement) -> the fake."""


def take_the_peers_places(threat_model: ThreatModel, clients: int, invent: Invent, tried: str) -> Finding:
    """Show the victim invented keys for all its peers; open its shares and its pads with them."""
    scene = Scene(clients, threat_model)
    scene.play(Stage.SHARE_KEYS)
    victim, name = 0, scene.names[0]
    honest = {
        position: scene.sent(AdvertiseKeysReply, Stage.ADVERTISE_KEYS, peer).advertisement
        for position, peer in enumerate(scene.names)
    }
    fakes = {position: invent(scene, position, entry) for position, entry in honest.items() if position != victim}
    shown = {position: fakes[position].shown if position in fakes else entry for position, entry in honest.items()}
    session = SessionKeys(
        scene.server.session_id,
        keys_digest_complete(scene.server.session_id, {position: entry.encode() for position, entry in shown.items()}),
    )
    original = read(ShareKeysRequest, scene.server.requests(Stage.SHARE_KEYS.value)[name])
    try:
        dealt = read(ShareKeysReply, scene.ask(name, Stage.SHARE_KEYS, ShareKeysRequest(shown, original.nonces))).shares
        garbage = {position: DealtShares(bytes(16), bytes(16), bytes(SEALED_BYTES)) for position in fakes}
        masked = read(MaskedInputReply, scene.ask(name, Stage.MASKED_INPUT_COLLECTION, MaskedInputRequest(garbage)))
    except ProtocolError as error:
        return refused(error, tried)
    loot = _open_all(victim, shown, fakes, dealt, session)
    seed = loot.seed_of(victim, scene.parameters.threshold)
    pads = {
        position: pairwise_seed(
            fake.mask,
            Endpoint(position, fake.shown.mask_public, "fake"),
            Endpoint(victim, shown[victim].mask_public, name),
            session,
        )
        for position, fake in fakes.items()
    }
    guess = strip_reply(masked, victim, () if seed is None else (seed,), pads, session)
    if np.array_equal(guess, scene.secret_of(name)):
        return broken(f"{tried}: the vector of {name} is open")
    return harmless(f"{tried}: accepted, but the vector stayed masked")


def _open_all(
    victim: int,
    shown: Mapping[int, Advertisement],
    fakes: Mapping[int, FakePeer],
    dealt: Mapping[int, DealtShares],
    session: SessionKeys,
) -> Loot:
    loot = Loot()
    there = Endpoint(victim, shown[victim].channel_public, "victim")
    for position, fake in fakes.items():
        here = Endpoint(position, fake.shown.channel_public, "fake")
        _, incoming = sealing_keys(fake.channel, here, there, session)
        for share in open_shares(incoming, dealt[position].sealed, session.session_id, victim, position) or ():
            loot.add(victim, position, share)
    return loot


def _server_keys(position: int) -> tuple[ChannelKey, MaskKey]:
    entropy = ReproducibleEntropy(bytes([position]) * 32)
    return ChannelKey(entropy(32)), MaskKey(entropy(32))


def _fake(position: int, signature: bytes) -> FakePeer:
    channel, mask = _server_keys(position)
    shown = Advertisement(public_key(channel), public_key(mask), b"", signature)
    return FakePeer(AgreementKey(channel), AgreementKey(mask), shown)


def own_keys_in_the_middle() -> Finding:
    """Stand in the middle: the server's own keys for every peer, with the honest signatures."""
    return take_the_peers_places(
        ThreatModel.ACTIVE,
        5,
        lambda _, position, entry: _fake(position, entry.signature),
        "the server's keys in place of all peers'",
    )


def one_identity_in_every_place() -> Finding:
    """Let one colluder sign invented keys for every place: a Sybil with a real identity."""

    def invent(scene: Scene, position: int, entry: Advertisement) -> FakePeer:
        del entry
        colluder: IdentityKey = scene.federation.identities[scene.names[-1]]
        fake = _fake(position, b"")
        message = advertisement_message(scene.server.session_id, position, fake.shown)
        return _fake(position, colluder.sign(message))

    return take_the_peers_places(ThreatModel.ACTIVE, 5, invent, "one colluder's identity in all places")


def small_order_points() -> Finding:
    """Put points of small order in place of the peers' keys: what is agreed with them is known to all."""

    def invent(scene: Scene, position: int, entry: Advertisement) -> FakePeer:
        del scene, entry
        first, second = SMALL_ORDER[2 * position - 2], SMALL_ORDER[2 * position - 1]
        return FakePeer(KnownAgreement(), KnownAgreement(), Advertisement(first, second, b"", b""))

    return take_the_peers_places(
        ThreatModel.SEMI_HONEST, 4, invent, "points of small order in place of all peers' keys"
    )


def own_keys_reflected() -> Finding:
    """Show the victim its own keys under a peer's name."""
    scene = Scene(5, ThreatModel.SEMI_HONEST)
    scene.play(Stage.SHARE_KEYS)
    name = scene.names[0]
    original = read(ShareKeysRequest, scene.server.requests(Stage.SHARE_KEYS.value)[name])
    shown = {**original.advertisements, 1: original.advertisements[0]}
    try:
        scene.ask(name, Stage.SHARE_KEYS, ShareKeysRequest(shown, original.nonces))
    except ProtocolError as error:
        return refused(error, "the victim's own keys as a peer's")
    return broken("a client agreed on keys with itself")


def keys_of_an_earlier_round() -> Finding:
    """Show the victim keys that its peers advertised, and signed, in an earlier round."""
    scene = Scene(5)
    scene.play()
    earlier = {
        position: scene.sent(AdvertiseKeysReply, Stage.ADVERTISE_KEYS, peer).advertisement
        for position, peer in enumerate(scene.names)
    }
    scene.begin(2)
    scene.play(Stage.SHARE_KEYS)
    name = scene.names[0]
    original = read(ShareKeysRequest, scene.server.requests(Stage.SHARE_KEYS.value)[name])
    shown = {**earlier, 0: original.advertisements[0]}
    try:
        scene.ask(name, Stage.SHARE_KEYS, ShareKeysRequest(shown, original.nonces))
    except ProtocolError as error:
        return refused(error, "keys of round 1 in round 2")
    return broken("a client sealed its shares to keys of an earlier round")


ATTACKS = (
    Attack(
        "A3a",
        "Substituted public keys",
        "the server puts its own keys in the place of every peer's and opens shares and pads with them",
        Outcome.REFUSED,
        own_keys_in_the_middle,
    ),
    Attack(
        "A3b",
        "Identity swap",
        "one colluder signs invented keys for every place of the cohort",
        Outcome.REFUSED,
        one_identity_in_every_place,
    ),
    Attack(
        "A3c",
        "Small-order points",
        "the server shows X25519 points of small order, with which every agreement is zero",
        Outcome.REFUSED,
        small_order_points,
    ),
    Attack(
        "A3d",
        "Reflected keys",
        "the server shows a client its own keys under a peer's name",
        Outcome.REFUSED,
        own_keys_reflected,
    ),
    Attack(
        "A4a",
        "Replayed keys",
        "the server shows keys that the peers signed in an earlier round",
        Outcome.REFUSED,
        keys_of_an_earlier_round,
    ),
)
