"""A2 and A7: the server lies about who is in the sum, to open a sum over fewer clients than was promised."""

import numpy as np

from protocols.attacks.adversary import Loot, endpoints, knows_seed, open_victim, pads_from_keys, session_keys, strip
from protocols.attacks.floors import offer_round
from protocols.attacks.forgery import forged
from protocols.attacks.records import Attack, Finding, Outcome, broken, refused
from protocols.attacks.scene import Scene, first_refusal, read
from protocols.attacks.shares_of_both_kinds import judge, survivors_without
from protocols.errors import ProtocolError, TooFewSurvivorsError
from protocols.messages import (
    ConsistencyCheckReply,
    ConsistencyCheckRequest,
    UnmaskingRequest,
)
from protocols.messages.consistency import SurvivorSet
from protocols.stages import Stage, ThreatModel
from protocols.statements import survivors_message

_LEFT_OUT = {0: (1, 2), 1: (0, 2), 2: (0, 1), 3: (0, 1), 4: (1, 2)}
"""Six clients, of whom number 5 colludes: whom each honest one is told to be missing. Each of 0, 1 and 2 is missing for
three holders, a quorum with the colluder; 3 and 4 are there for all."""


def show_everybody_another_set() -> Finding:
    """Show every client its own survivor set, so that shares add up to a sum over two honest clients."""
    return _open_two(skip_consistency=False)


def skip_the_consistency_check() -> Finding:
    """Ask for shares without any signed survivor set."""
    return _open_two(skip_consistency=True)


def _open_two(*, skip_consistency: bool) -> Finding:
    scene = Scene(6)
    scene.play(Stage.CONSISTENCY_CHECK)
    names, colluder = scene.names, 5
    keys, loot = session_keys(scene, names[0]), Loot()
    loot.add_colluder(scene, names[colluder])
    refusals = list[ProtocolError]()
    for position, missing in _LEFT_OUT.items():
        survivors, name = survivors_without(scene, missing), names[position]
        signatures = {colluder: scene.federation.identities[names[colluder]].sign(survivors_message(keys, survivors))}
        try:
            if skip_consistency:
                signatures = {}
            else:
                reply = scene.ask(name, Stage.CONSISTENCY_CHECK, ConsistencyCheckRequest(survivors))
                signatures[position] = read(ConsistencyCheckReply, reply).signature
            loot.add_reply(position, scene.ask(name, Stage.UNMASKING, UnmaskingRequest(survivors, signatures)))
        except ProtocolError as error:
            refusals.append(error)
    if _two_are_open(scene, loot, (3, 4, colluder), (0, 1, 2)):
        return broken("the sum of two honest clients is open where at least three were promised")
    return refused(first_refusal(refusals), "a survivor set for each client")


def _two_are_open(scene: Scene, loot: Loot, summed: tuple[int, ...], dead: tuple[int, ...]) -> bool:
    """Whether the loot opens the sum over `summed` when the adversary knows the last one's vector."""
    threshold, session = scene.parameters.threshold, session_keys(scene, scene.names[0])
    total = np.zeros(scene.parameters.vector_length, dtype=np.int64)
    for position in summed:
        name, mask_keys = scene.names[position], {}
        for owner in dead:
            key = loot.mask_key_of(owner, threshold, endpoints(scene, name)[owner].public)
            if key is not None:
                mask_keys[owner] = key
        seeds = pads_from_keys(scene, name, mask_keys)
        total += strip(scene, name, loot.seed_of(position, threshold), seeds, session)
    wanted = sum(scene.secret_of(scene.names[position]) for position in summed)
    return np.array_equal(total % (1 << scene.parameters.ring_bits), wanted)


def swap_the_signed_set() -> Finding:
    """Have everybody sign the full set, then ask for shares over a set of one client, with those signatures."""
    scene = Scene(5)
    scene.play(Stage.UNMASKING)
    names, victim, loot = scene.names, scene.names[1], Loot()
    signatures = {
        position: scene.sent(ConsistencyCheckReply, Stage.CONSISTENCY_CHECK, name).signature
        for position, name in enumerate(names)
    }
    alone = SurvivorSet.of(5, {1})
    replies, refusals = scene.ask_all(Stage.UNMASKING, lambda _: UnmaskingRequest(alone, signatures))
    for name, frame in replies.items():
        loot.add_reply(names.index(name), frame)
    return judge(scene, victim, open_victim(scene, victim, loot), refusals, "another set than the signed one")


def ask_for_a_sum_over_one() -> Finding:
    """Declare everybody but the victim dropped out, in a round without signatures."""
    scene = Scene(5, ThreatModel.SEMI_HONEST)
    scene.play(Stage.UNMASKING)
    victim, loot, alone = scene.names[3], Loot(), SurvivorSet.of(5, {3})
    replies, refusals = scene.ask_all(Stage.UNMASKING, lambda _: UnmaskingRequest(alone, {}))
    for name, frame in replies.items():
        loot.add_reply(scene.names.index(name), frame)
    return judge(scene, victim, open_victim(scene, victim, loot), refusals, "a survivor set of one client")


def lose_too_many_at_every_stage() -> Finding:
    """Let two of five clients (one too many) vanish at each stage in turn; a colluder helps the server."""
    ended: list[str] = []
    for stage in Scene(5).server.stages:
        scene = Scene(5)
        lost = {scene.names[1]: stage, scene.names[2]: stage}
        try:
            scene.play(lost=lost)
        except TooFewSurvivorsError as error:
            ended.append(error.stage)
        else:
            return broken(f"a sum was opened although two of five clients were lost at {stage.value}")
        loot = Loot()
        for (at, name), (_, frame) in scene.transcript.items():
            if at is Stage.UNMASKING:
                loot.add_reply(scene.names.index(name), frame)
        for name in [name for at, name in scene.transcript if at is Stage.MASKED_INPUT_COLLECTION]:
            if knows_seed(scene, name, loot):
                return broken(f"the self-mask seed of {name} is known though the round failed at {stage.value}")
            if np.array_equal(open_victim(scene, name, loot), scene.secret_of(name)):
                return broken(f"the vector of {name} is open after {stage.value} failed")
    return Finding(Outcome.REFUSED, f"TooFewSurvivorsError at {', '.join(ended)}; nothing was revealed")


def ask_a_cohort_of_two() -> Finding:
    """Invite the victim and one colluder only: the sum less the colluder's vector is the victim's."""
    scene = Scene(5)
    refusals = list[ProtocolError]()
    for size in (1, 2):
        parameters = forged(
            scene.parameters, cohort=tuple(range(size)), neighbours=size - 1, threshold=size, corrupt=0, min_survivors=1
        )
        try:
            offer_round(scene, parameters)
        except ProtocolError as error:
            refusals.append(error)
            continue
        return broken(f"a client took part in a cohort of {size}")
    return refused(refusals[-1], "cohorts of one and two")


def replay_the_signed_sets_as_a_quorum() -> Finding:
    """Show the victim's holders a quorum of signatures of which most are one colluder's, copied under other names."""
    scene = Scene(5)
    scene.play(Stage.CONSISTENCY_CHECK)
    names, colluder, victim = scene.names, 4, 0
    keys, survivors = session_keys(scene, names[0]), survivors_without(scene, (1,))
    forged_signature = scene.federation.identities[names[colluder]].sign(survivors_message(keys, survivors))
    try:
        scene.ask(names[victim], Stage.CONSISTENCY_CHECK, ConsistencyCheckRequest(survivors))
        signatures = dict.fromkeys(sorted(survivors.positions), forged_signature)
        scene.ask(names[victim], Stage.UNMASKING, UnmaskingRequest(survivors, signatures))
    except ProtocolError as error:
        return refused(error, "one signature under four names")
    return broken("a client gave its shares for a quorum of one")


ATTACKS = (
    Attack(
        "A2a",
        "Split view of the survivors",
        "the server shows every client another survivor set, so that shares add up to a sum over two honest clients",
        Outcome.REFUSED,
        show_everybody_another_set,
    ),
    Attack(
        "A2b",
        "Split view of the survivors",
        "the server has everybody sign the full set, then asks for shares over a set of one",
        Outcome.REFUSED,
        swap_the_signed_set,
    ),
    Attack(
        "A2c",
        "Split view of the survivors",
        "the server puts one colluder's signature under the names of a whole quorum",
        Outcome.REFUSED,
        replay_the_signed_sets_as_a_quorum,
    ),
    Attack(
        "A2d",
        "Split view of the survivors",
        "the server leaves out ConsistencyCheck and asks for shares at once",
        Outcome.REFUSED,
        skip_the_consistency_check,
    ),
    Attack(
        "A7a",
        "Too few survivors",
        "one client too many vanishes, at each stage in turn",
        Outcome.REFUSED,
        lose_too_many_at_every_stage,
    ),
    Attack(
        "A7b",
        "Too few survivors",
        "the server invites a cohort of one or two",
        Outcome.REFUSED,
        ask_a_cohort_of_two,
    ),
    Attack(
        "A7c",
        "Too few survivors",
        "the server declares everybody but the victim dropped out",
        Outcome.REFUSED,
        ask_for_a_sum_over_one,
    ),
)
