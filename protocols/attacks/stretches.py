"""What a server tries along a ring, where every client knows its neighbours only."""

import numpy as np

from protocols.attacks.records import Attack, Finding, Outcome, broken, refused
from protocols.attacks.scene import Scene, read
from protocols.attacks.several_rounds import Forgetful, steady
from protocols.errors import ProtocolError
from protocols.graph import graph_seed, ring_order
from protocols.messages import (
    ConsistencyCheckReply,
    ConsistencyCheckRequest,
    RevealNoncesRequest,
    ShareKeysRequest,
    UnmaskingRequest,
)
from protocols.messages.consistency import SurvivorSet
from protocols.policy import ClientPolicy
from protocols.session import SessionKeys
from protocols.stages import Stage
from protocols.statements import survivors_message

CLIENTS, COLLUDERS = 24, frozenset(range(18, 24))


def _ring() -> Scene:
    """A small ring; hospitals would refuse one of this size, so the policy is wide."""
    policy = ClientPolicy(min_corrupt=0, complete_up_to=2, min_sigma=None)
    return Scene(CLIENTS, policy=policy, choices={"neighbours": 8, "threshold": 6, "corrupt": 6, "min_survivors": 20})


def _keys(scene: Scene) -> SessionKeys:
    request, identifier = scene.received(ShareKeysRequest, Stage.SHARE_KEYS, scene.names[0]), scene.server.session_id
    commitments = scene.received(RevealNoncesRequest, Stage.REVEAL_NONCES, scene.names[0]).commitments
    return SessionKeys(identifier, graph_seed(identifier, commitments.encode(), request.nonces.encode()))


def show_two_stretches_two_sets() -> Finding:
    """Show one half of the ring another survivor set than the other half; the colluders sign both."""
    scene = _ring()
    scene.play(Stage.CONSISTENCY_CHECK)
    keys = _keys(scene)
    seats = [position for position in ring_order(keys.keys_digest, CLIENTS) if position not in COLLUDERS]
    halves = seats[: len(seats) // 2], seats[len(seats) // 2 :]
    returned, refusals = list[int](), list[ProtocolError]()
    for here, there in (halves, halves[::-1]):
        survivors = SurvivorSet.of(CLIENTS, set(range(CLIENTS)) - {there[len(there) // 2]})
        message, signatures = survivors_message(keys, survivors), dict[int, bytes]()
        for position in here:
            reply = scene.ask(scene.names[position], Stage.CONSISTENCY_CHECK, ConsistencyCheckRequest(survivors))
            signatures[position] = read(ConsistencyCheckReply, reply).signature
        for position in COLLUDERS:
            signatures[position] = scene.federation.identities[scene.names[position]].sign(message)
        for position in here:
            try:
                scene.ask(scene.names[position], Stage.UNMASKING, UnmaskingRequest(survivors, signatures))
                returned.append(position)
            except ProtocolError as error:
                refusals.append(error)
    if any(set(half) & set(returned) for half in halves):
        return broken(f"{len(returned)} clients returned shares, in each half for another survivor set")
    return refused(refusals[0], "a survivor set for each half of the ring")


def leave_a_quarter_unasked() -> Finding:
    """Open a sum with three of four neighbours of everybody, then one over the same model with those who were left."""
    scene = _ring()
    for position, name in enumerate(scene.names):
        changes = {"participation": Forgetful(0)} if position in COLLUDERS else {}
        scene.replace(name, contribute=steady(scene), **changes)
    scene.play(Stage.UNMASKING)
    seats = ring_order(_keys(scene).keys_digest, CLIENTS)
    unasked = {position for position in seats[::4] if position not in COLLUDERS}
    scene.play(lost={scene.names[position]: Stage.UNMASKING for position in unasked})
    whole, again = scene.server.result, [scene.names[position] for position in sorted(unasked | COLLUDERS)]
    scene.begin(2, cohort=again, neighbours=len(again) - 2 - len(again) % 2, min_survivors=len(again))
    tried = "a second sum over the same model, opened by clients that were not asked to open the first"
    try:
        scene.play()
    except ProtocolError:
        return refused(scene.server.rejections[0].error, tried)
    part = scene.server.result
    if whole is None or part is None:
        return broken(f"{tried}: a round ended without result and without an error")
    others = [name for name in scene.names if name not in again]
    if np.array_equal(whole.total.integers() - part.total.integers(), scene.federation.expected(others, 1)):
        return broken(f"{tried}: the difference is the sum of {len(others)} clients that a quorum never agreed on")
    return broken(f"{tried}: accepted")


ATTACKS = (
    Attack(
        "A2e",
        "Split view of the survivors",
        "the server shows one half of a ring another survivor set than the other half",
        Outcome.REFUSED,
        show_two_stretches_two_sets,
    ),
    Attack(
        "A18e",
        "Differencing",
        "the server asks part of every neighbourhood of a ring to open a sum, then the rest to open another",
        Outcome.REFUSED,
        leave_a_quarter_unasked,
    ),
)
