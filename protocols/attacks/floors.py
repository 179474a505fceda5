"""A5: the server offers a round with less protection than the client insists on, or one that cannot be right."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from protocols.attacks.adversary import Loot, open_victim
from protocols.attacks.forgery import forged
from protocols.attacks.records import Attack, Finding, Outcome, broken, refused
from protocols.attacks.scene import Scene, first_refusal
from protocols.errors import ProtocolError
from protocols.messages import AdvertiseKeysRequest, encode_message
from protocols.parameters import RoundParameters
from protocols.server.machine import ServerMachine
from protocols.session import payload_digest, session_id
from protocols.simulator import DEFAULT_PAYLOAD
from protocols.stages import Stage, ThreatModel


@dataclass(frozen=True)
class Offer:
    """What a server may offer instead of safe parameters.

    Attributes:
        what: In a few words.
        clients: Size of the roster.
        changes: Parameters that differ from the safe ones.
    """

    what: str
    clients: int
    changes: Mapping[str, Any] = field(default_factory=dict)


def _offers() -> Iterator[Offer]:
    yield Offer("threshold 0", 10, {"threshold": 0})
    yield Offer("threshold 2", 10, {"threshold": 2, "corrupt": 0, "min_survivors": 3})
    yield Offer("threshold one below 2 t > n + C", 10, {"threshold": 6, "min_survivors": 6})
    yield Offer("no colluders tolerated", 10, {"threshold": 6, "corrupt": 0, "min_survivors": 6})
    yield Offer("sum over one survivor", 10, {"min_survivors": 1})
    yield Offer("sum over two honest survivors", 10, {"min_survivors": 4})
    yield Offer("semi-honest instead of active", 10, {"threat_model": ThreatModel.SEMI_HONEST})
    yield Offer("ring one bit too narrow", 10, {"ring_bits": 19})
    yield Offer("ring of one bit", 10, {"ring_bits": 1})
    yield Offer("two neighbours of ten", 10, {"neighbours": 2, "threshold": 2})
    yield Offer("graph with too few neighbours", 130, {"neighbours": 20, "threshold": 11, "min_survivors": 104})
    yield Offer("graph with too low a threshold", 130, {"neighbours": 90, "threshold": 46, "min_survivors": 104})
    yield Offer("roster of others", 10, {"roster_digest": bytes(32)})
    yield Offer("another configuration", 10, {"config_digest": bytes(32)})
    yield Offer("another encoding", 10, {"encoding_digest": bytes(32)})
    yield Offer("vector that fills the memory", 10, {"vector_length": (1 << 28) - 1})


def offer_less() -> Finding:
    """Offer one weak round after the other to a client with the default policy."""
    refusals = list[ProtocolError]()
    scenes = {clients: Scene(clients, choices=_graph(clients)) for clients in {offer.clients for offer in _offers()}}
    for offer in _offers():
        scene = scenes[offer.clients]
        try:
            offer_round(scene, forged(scene.parameters, **offer.changes))
        except ProtocolError as error:
            refusals.append(error)
            continue
        return broken(f"a client advertised keys for: {offer.what}")
    return refused(first_refusal(refusals), f"{len(refusals)} weak rounds")


def invite_the_victim_among_colluders() -> Finding:
    """Invite three of twenty clients, of whom two collude: their sum less two known vectors is the victim's."""
    scene = Scene(20)
    cohort = forged(scene.parameters, cohort=(0, 18, 19), neighbours=2, threshold=3, corrupt=0, min_survivors=3)
    try:
        offer_round(scene, cohort)
    except ProtocolError as error:
        return refused(error, "three of twenty, two of them colluders")
    return broken("a client accepted a cohort in which colluders of the roster are all its peers")


def _graph(clients: int) -> dict[str, int]:
    return {} if clients <= 100 else {"neighbours": 128, "threshold": 90, "min_survivors": 104}


def offer_round(scene: Scene, parameters: RoundParameters) -> bytes:
    """Send the first request of a round to the first client of its cohort.

    Raises:
        ProtocolError: The client refuses.
    """
    request = AdvertiseKeysRequest(parameters.encode(), DEFAULT_PAYLOAD)
    frame = encode_message(request, parameters.round, session_id(parameters, payload_digest(DEFAULT_PAYLOAD)))
    return scene.send(scene.names[parameters.cohort[0]], Stage.ADVERTISE_KEYS, frame)


def threshold_of_one() -> Finding:
    """Run a round with threshold 1: every holder, the colluder too, has the secrets of all."""
    scene = Scene(5)
    weak = forged(scene.parameters, threshold=1)
    scene.server = ServerMachine(weak, scene.federation.roster, DEFAULT_PAYLOAD)
    try:
        scene.play(Stage.CONSISTENCY_CHECK)
    except ProtocolError:
        error = scene.server.rejections[0].error
        return refused(error, "threshold 1")
    victim, colluder, loot = scene.names[0], scene.names[4], Loot()
    loot.add_colluder(scene, colluder)
    if np.array_equal(open_victim(scene, victim, loot), scene.secret_of(victim)):
        return broken(f"with threshold 1 one colluder opened the vector of {victim}")
    return broken("clients took part in a round with threshold 1")


ATTACKS = (
    Attack(
        "A5a",
        "Threshold lowered",
        "the server sets the threshold to 1 and one colluder opens a vector with its single share",
        Outcome.REFUSED,
        threshold_of_one,
    ),
    Attack(
        "A5b",
        "Protection lowered",
        "the server offers weak thresholds, graphs, rings, survivor counts, threat models and foreign digests",
        Outcome.REFUSED,
        offer_less,
    ),
    Attack(
        "A5c",
        "Cohort lowered",
        "the server invites the victim and two of the roster's colluders",
        Outcome.REFUSED,
        invite_the_victim_among_colluders,
    ),
)
