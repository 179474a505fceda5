"""A8: clients vanish at any stage; a masked vector arrives after its client was declared dead."""

import numpy as np

from protocols.attacks.adversary import Loot, open_victim
from protocols.attacks.records import Attack, Finding, Outcome, broken, harmless
from protocols.attacks.scene import Scene
from protocols.errors import ProtocolError
from protocols.stages import Stage


def lose_one_at_every_stage() -> Finding:
    """Lose one of five clients at each stage in turn and compare the total with the plain sum of the survivors."""
    stages = Scene(5).server.stages
    for stage in stages:
        scene = Scene(5)
        gone = scene.names[1]
        survivors = [name for name in scene.names if name != gone or stage.rank > Stage.MASKED_INPUT_COLLECTION.rank]
        try:
            scene.play(lost={gone: stage})
        except ProtocolError as error:
            return broken(f"one loss of five at {stage.value} ended the round: {error}")
        result = scene.server.result
        if result is None or result.survivors != tuple(survivors):
            return broken(f"wrong survivors after a loss at {stage.value}")
        if not np.array_equal(result.total.integers(), scene.federation.expected(survivors)):
            return broken(f"the total after a loss at {stage.value} is not the sum of the survivors")
    return harmless(f"exact sum of the survivors for a loss at each of {len(stages)} stages")


def late_vector() -> Finding:
    """Keep a masked vector back, declare its client dead, gather its mask key, and open the vector."""
    scene = Scene(5)
    victim, loot = scene.names[0], Loot()
    scene.play(Stage.MASKED_INPUT_COLLECTION)
    scene.step(Stage.MASKED_INPUT_COLLECTION, replies=lambda name, frame: () if name == victim else (frame,))
    scene.play(lost={victim: Stage.CONSISTENCY_CHECK})
    for name in scene.names:
        if name != victim:
            loot.add_reply(scene.names.index(name), scene.transcript[Stage.UNMASKING, name][1])
    guess, secret = open_victim(scene, victim, loot), scene.secret_of(victim)
    if np.array_equal(guess, secret):
        return broken(f"the late vector of {victim} is open")
    matches = int(np.count_nonzero(guess == secret))
    return harmless(f"all pairwise pads removed, the self mask stays: {matches} of {len(secret)} coordinates match")


ATTACKS = (
    Attack("A8a", "Dropouts", "a client vanishes, at each stage in turn", Outcome.HARMLESS, lose_one_at_every_stage),
    Attack(
        "A8b",
        "Late vector",
        "the server keeps a masked vector back, declares its client dead and removes all its pairwise pads",
        Outcome.HARMLESS,
        late_vector,
    ),
)
