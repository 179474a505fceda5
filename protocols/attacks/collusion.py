"""A15: colluders pool their shares with the server: t - 1 of them have nothing, t have what the threshold says."""

import numpy as np

from protocols.attacks.adversary import Loot, knows_seed, open_victim
from protocols.attacks.records import Attack, Finding, Outcome, broken, harmless
from protocols.attacks.scene import Scene
from protocols.stages import Stage


def pool_shares() -> Finding:
    """Pool the shares of t - 1 colluders, then of t."""
    scene = Scene(7)
    scene.play(Stage.CONSISTENCY_CHECK)
    victim, threshold = scene.names[0], scene.parameters.threshold
    colluders = scene.names[1 : threshold + 1]
    loot = Loot()
    for name in colluders[:-1]:
        loot.add_colluder(scene, name)
    if knows_seed(scene, victim, loot) or np.array_equal(open_victim(scene, victim, loot), scene.secret_of(victim)):
        return broken(f"{threshold - 1} colluders and the server opened the vector of {victim}")
    loot.add_colluder(scene, colluders[-1])
    if not np.array_equal(open_victim(scene, victim, loot), scene.secret_of(victim)):
        return broken(f"{threshold} colluders cannot rebuild the secrets: neither could an honest server")
    return harmless(
        f"{threshold - 1} colluders with the server have nothing, {threshold} open the vector: t = {threshold}"
    )


ATTACKS = (
    Attack(
        "A15",
        "Collusion",
        "t - 1 colluders, then t, pool their shares with the server",
        Outcome.HARMLESS,
        pool_shares,
    ),
)
