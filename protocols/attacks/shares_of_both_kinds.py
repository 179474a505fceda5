"""A1: the server wants the self-mask seed and the mask key of one client. Together they open its vector."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from protocols.attacks.adversary import Loot, open_victim, session_keys
from protocols.attacks.records import Attack, Finding, Outcome, broken, harmless, refused
from protocols.attacks.scene import Scene, first_refusal, read
from protocols.errors import ProtocolError
from protocols.messages import ConsistencyCheckReply, ConsistencyCheckRequest, UnmaskingRequest
from protocols.messages.consistency import SurvivorSet
from protocols.stages import Stage, ThreatModel
from protocols.statements import survivors_message


def ask_twice() -> Finding:
    """Ask all holders as if the victim had survived, then as if it had dropped out."""
    scene = Scene(5, ThreatModel.SEMI_HONEST)
    scene.play(Stage.UNMASKING)
    victim, loot, refusals = scene.names[2], Loot(), list[ProtocolError]()
    for missing in ((), (2,)):
        request = UnmaskingRequest(survivors_without(scene, missing), {})
        replies, refused_now = scene.ask_all(Stage.UNMASKING, lambda _, request=request: request)  # type: ignore[misc]
        refusals += refused_now if missing else []
        for name, frame in replies.items():
            loot.add_reply(scene.names.index(name), frame)
    return judge(scene, victim, open_victim(scene, victim, loot), refusals, "second request for the other kind")


def split_the_holders() -> Finding:
    """Tell half of the holders that the victim survived, the others that it did not, with one colluder in both."""
    scene = Scene(6)
    scene.play(Stage.CONSISTENCY_CHECK)
    victim, colluder, names = 0, 5, scene.names
    views = {name: survivors_without(scene, () if i in (0, 1) else (victim,)) for i, name in enumerate(names)}
    keys, loot = session_keys(scene, names[0]), Loot()
    loot.add_colluder(scene, names[colluder])
    signatures: dict[SurvivorSet, dict[int, bytes]] = {}
    for survivors in set(views.values()):
        forged = scene.federation.identities[names[colluder]].sign(survivors_message(keys, survivors))
        signatures[survivors] = {colluder: forged}
    refusals = list[ProtocolError]()
    for position, name in enumerate(names[:colluder]):
        request = ConsistencyCheckRequest(views[name])
        signature = read(ConsistencyCheckReply, scene.ask(name, Stage.CONSISTENCY_CHECK, request)).signature
        signatures[views[name]][position] = signature
    for position, name in enumerate(names[:colluder]):
        try:
            frame = scene.ask(name, Stage.UNMASKING, UnmaskingRequest(views[name], signatures[views[name]]))
            loot.add_reply(position, frame)
        except ProtocolError as error:
            refusals.append(error)
    return judge(scene, names[0], open_victim(scene, names[0], loot), refusals, "two quorums with a colluder in both")


def survivors_without(scene: Scene, missing: Collection[int]) -> SurvivorSet:
    """Return the set of all clients but some."""
    everybody = range(scene.parameters.clients)
    return SurvivorSet.of(scene.parameters.clients, {position for position in everybody if position not in missing})


def judge(scene: Scene, victim: str, guess: NDArray[np.int64], refusals: list[ProtocolError], tried: str) -> Finding:
    """Say whether the adversary's guess is the victim's vector."""
    if np.array_equal(guess, scene.secret_of(victim)):
        return broken(f"{tried}: the vector of {victim} is open")
    if refusals:
        return refused(first_refusal(refusals), tried)
    return harmless(f"{tried}: what the server holds does not open the vector of {victim}")


ATTACKS = (
    Attack(
        "A1a",
        "Both shares of one client",
        "the server asks every holder twice: once as if the victim survived, once as if it dropped out",
        Outcome.REFUSED,
        ask_twice,
    ),
    Attack(
        "A1b",
        "Both shares of one client",
        "the server asks half of the holders for one kind and the others for the other kind, with a colluder in both",
        Outcome.REFUSED,
        split_the_holders,
    ),
)
