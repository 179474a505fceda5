"""A4: frames of an earlier session, a round that is played twice, stages out of their order."""

import numpy as np

from protocols.attacks.adversary import Loot, knows_seed, session_keys, strip_reply
from protocols.attacks.records import Attack, Finding, Outcome, broken, refused
from protocols.attacks.scene import Scene, first_refusal, read
from protocols.errors import ProtocolError
from protocols.messages import MaskedInputReply, MaskedInputRequest
from protocols.ring import lane_dtype
from protocols.stages import Stage
from protocols.vectors import MaskedVector


def whole_round_again() -> Finding:
    """Play round 1 to its end, then send its first request again."""
    scene = Scene(5)
    scene.play()
    name = scene.names[0]
    first, _ = scene.transcript[Stage.ADVERTISE_KEYS, name]
    try:
        scene.send(name, Stage.ADVERTISE_KEYS, first)
    except ProtocolError as error:
        return refused(error, "round 1 once more")
    return broken("a client took part in the same round twice")


def two_masked_vectors() -> Finding:
    """Ask for the masked vector again and again, each time without one peer: the differences are the pads."""
    scene = Scene(5)
    scene.play(Stage.MASKED_INPUT_COLLECTION)
    requests, victim, name = scene.server.requests(Stage.MASKED_INPUT_COLLECTION.value), 0, scene.names[0]
    everything = read(MaskedInputRequest, requests[name]).shares
    refusals = list[ProtocolError]()
    replies: dict[int | None, MaskedInputReply] = {}
    for left_out in (None, *everything):
        dealt = {dealer: shares for dealer, shares in everything.items() if dealer != left_out}
        try:
            replies[left_out] = read(
                MaskedInputReply, scene.ask(name, Stage.MASKED_INPUT_COLLECTION, MaskedInputRequest(dealt))
            )
        except ProtocolError as error:
            refusals.append(error)
    if refusals:
        return refused(first_refusal(refusals), "a second masked vector")
    total = replies[None]
    for position, peer in enumerate(scene.names):
        if position != victim:
            scene.send(peer, Stage.MASKED_INPUT_COLLECTION, requests[peer])
    dtype = lane_dtype(total.ring_bits)
    lanes = {
        key: MaskedVector.decode(r.packed, r.length, r.ring_bits).lanes.astype(np.int64) for key, r in replies.items()
    }
    pads = sum(lanes[None] - lanes[peer] for peer in everything)
    size = 1 << total.ring_bits
    bare = MaskedVector(((lanes[None] - pads) % size).astype(dtype), total.ring_bits)
    loot = _self_mask_shares(scene, name)
    seed = loot.seed_of(victim, scene.parameters.threshold)
    if seed is None or not knows_seed(scene, name, loot):
        return refused(LookupError("the seed did not come"), "several masked vectors")
    reply = MaskedInputReply((), total.ring_bits, total.length, bare.encode())
    guess = strip_reply(reply, victim, (seed,), {}, session_keys(scene, name))
    if np.array_equal(guess, scene.secret_of(name)):
        return broken(f"the differences of {len(replies)} masked vectors opened the vector of {name}")
    return refused(LookupError("the differences are not pads"), "several masked vectors")


def _self_mask_shares(scene: Scene, victim: str) -> Loot:
    """Shares of the victim's seed, which holders give in an honest ending: it counts as a survivor."""
    loot = Loot()
    for name in scene.names:
        if name != victim:
            loot.add_colluder(scene, name)
    return loot


def stages_in_another_order() -> Finding:
    """At every stage, send the frames of every other stage of the same round."""
    recorded = Scene(5)
    recorded.play()
    name = recorded.names[0]
    refusals = list[ProtocolError]()
    for now in recorded.server.stages:
        for other in recorded.server.stages:
            if other is now:
                continue
            scene = Scene(5)
            scene.play(now)
            frame, _ = recorded.transcript[other, name]
            try:
                scene.send(name, other, frame)
            except ProtocolError as error:
                refusals.append(error)
                continue
            return broken(f"a client answered {other.value} where {now.value} was due")
    return refused(first_refusal(refusals), f"{len(refusals)} frames out of order")


def frames_of_an_earlier_session() -> Finding:
    """Send each request of round 1 in the same stage of round 2."""
    recorded = Scene(5)
    recorded.play()
    name, refusals = recorded.names[0], list[ProtocolError]()
    for stage in recorded.server.stages:
        scene = Scene(5)
        scene.play()
        scene.begin(2)
        scene.play(stage)
        frame, _ = recorded.transcript[stage, name]
        try:
            scene.send(name, stage, frame)
        except ProtocolError as error:
            refusals.append(error)
            continue
        return broken(f"a client answered {stage.value} of round 1 in round 2")
    return refused(first_refusal(refusals), f"{len(refusals)} requests of round 1 in round 2")


ATTACKS = (
    Attack(
        "A4b",
        "Replayed round",
        "the server plays a finished round again with the same client",
        Outcome.REFUSED,
        whole_round_again,
    ),
    Attack(
        "A4c",
        "Two-time pad",
        "the server asks for the masked vector several times, each time without one peer, and takes differences",
        Outcome.REFUSED,
        two_masked_vectors,
    ),
    Attack(
        "A4d",
        "Stages out of order",
        "the server sends the frames of every other stage at every stage",
        Outcome.REFUSED,
        stages_in_another_order,
    ),
    Attack(
        "A4e",
        "Replayed requests",
        "the server sends the requests of an earlier round in a later one",
        Outcome.REFUSED,
        frames_of_an_earlier_session,
    ),
)
