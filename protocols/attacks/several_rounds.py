"""A18: what several sums give away together."""

from collections.abc import Collection

import numpy as np

from protocols.attacks.records import Attack, Finding, Outcome, broken, refused
from protocols.attacks.scene import Scene
from protocols.client.session import Contribute, RoundContext
from protocols.errors import ProtocolError
from protocols.participation import Participation, isolated
from protocols.server.machine import ServerMachine
from protocols.simulator import DEFAULT_PAYLOAD
from protocols.stages import Stage
from protocols.vectors import EncodedVector


def same_model_without_one() -> Finding:
    """Open the sum over all clients, then the sum over all but one on the same model, and subtract."""
    scene, victim = _steady_scene(), 0
    scene.play()
    return _subtract(scene, victim, DEFAULT_PAYLOAD, "the same model again without one client")


def nearly_the_same_model_without_one() -> Finding:
    """The same with one bit of the model changed: a difference that training does not notice."""
    scene, victim = _steady_scene(), 0
    scene.play()
    payload = DEFAULT_PAYLOAD[:-1] + bytes([DEFAULT_PAYLOAD[-1] ^ 1])
    return _subtract(scene, victim, payload, "a model with one bit changed, without one client")


def _steady_scene(clients: int = 6) -> Scene:
    """Clients whose contributions do not change from round to round."""
    scene = Scene(clients)
    for name in scene.names:
        scene.replace(name, contribute=steady(scene))
    return scene


def steady(scene: Scene) -> Contribute:
    """Return contributions that do not change from round to round."""

    def contribute(context: RoundContext) -> EncodedVector:
        steady = RoundContext(1, context.payload, context.parameters, context.client)
        return scene.federation.contribute(steady)

    return contribute


def _subtract(scene: Scene, victim: int, payload: bytes, tried: str) -> Finding:
    first, name = scene.server.result, scene.names[victim]
    scene.server = ServerMachine(scene.federation.parameters(2), scene.federation.roster, payload)
    scene.restart()
    try:
        scene.play(lost={name: Stage.MASKED_INPUT_COLLECTION})
    except ProtocolError:
        reasons = {rejection.error for rejection in scene.server.rejections}
        return refused(next(iter(reasons)), tried)
    second = scene.server.result
    if first is None or second is None:
        return broken(f"{tried}: a round ended without result and without an error")
    difference = first.total.integers() - second.total.integers()
    open_ = np.array_equal(difference, scene.federation.expected([name], 1))
    witness = scene.federation.machines[scene.names[-1]].participation
    named = isolated(witness.rows)
    if open_ and name in named:
        return Finding(Outcome.REPORTED, f"{tried}: the difference is its vector; every client's record names {name}")
    if open_:
        return broken(f"{tried}: the difference is the vector of {name}, and no record names it")
    return broken(f"{tried}: accepted, though the two sums differ in {name} only")


def overlapping_sums() -> Finding:
    """Open four sums over one model that differ in four clients each; half a combination of them is a sum over two."""
    scene, colluder = _steady_scene(12), 1
    pairs = (frozenset({0, colluder}), frozenset({2, 3}), frozenset({4, 5}))
    totals = []
    left_out: tuple[frozenset[int], ...] = (frozenset(), pairs[0] | pairs[1], pairs[1] | pairs[2], pairs[2] | pairs[0])
    for number, missing in enumerate(left_out, start=1):
        scene.begin(number)
        lost = {scene.names[position]: Stage.MASKED_INPUT_COLLECTION for position in missing}
        try:
            scene.play(lost=lost)
        except ProtocolError:
            return refused(scene.server.rejections[0].error, "sums over one model that overlap in pairs")
        if scene.server.result is not None:
            totals.append(scene.server.result.total.integers())
    whole, *parts = totals
    first, second, third = (whole - part for part in parts)
    guess = (first - second + third) // 2 - scene.federation.expected([scene.names[colluder]], 1)
    if np.array_equal(guess, scene.federation.expected([scene.names[0]], 1)):
        return broken(f"four sums and one colluder opened the vector of {scene.names[0]}")
    return broken("four sums over one model that overlap in pairs were opened")


class Forgetful(Participation):
    """The record of a colluder, which helps to open whatever it is asked for."""

    def check(self, model: bytes, survivors: Collection[str]) -> None:
        """Refuse nothing."""


def quorums_apart() -> Finding:
    """Open a sum with a threshold of clients, then one over the same model with the clients that were not asked."""
    scene, late = _steady_scene(6), Stage.CONSISTENCY_CHECK
    first, second, third, colluder, *rest = scene.names
    scene.replace(colluder, contribute=steady(scene), participation=Forgetful(0))
    scene.play(lost=dict.fromkeys(rest, late))
    whole = scene.server.result
    scene.begin(2, cohort=[first, colluder, *rest], threshold=3, min_survivors=4)
    tried = "a second sum over the same model, opened by clients that were not asked to open the first"
    try:
        scene.play(lost={first: late})
    except ProtocolError:
        return refused(scene.server.rejections[0].error, tried)
    part = scene.server.result
    if whole is None or part is None:
        return broken(f"{tried}: a round ended without result and without an error")
    difference = whole.total.integers() - part.total.integers()
    if np.array_equal(difference, scene.federation.expected([second, third], 1)):
        return broken(f"{tried}: the difference is the sum of {second} and {third}")
    return broken(f"{tried}: accepted")


ATTACKS = (
    Attack(
        "A18a",
        "Differencing",
        "the server opens a sum over all clients, then one over all but one on the same model, and subtracts",
        Outcome.REFUSED,
        same_model_without_one,
    ),
    Attack(
        "A18b",
        "Differencing",
        "the same, with one bit of the model changed in between",
        Outcome.REPORTED,
        nearly_the_same_model_without_one,
    ),
    Attack(
        "A18c",
        "Differencing",
        "the server opens four sums over the same model whose differences overlap in pairs, with one colluder",
        Outcome.REFUSED,
        overlapping_sums,
    ),
    Attack(
        "A18d",
        "Differencing",
        "the server asks a threshold to open a sum, then others to open one over fewer clients on the same model",
        Outcome.REFUSED,
        quorums_apart,
    ),
)
