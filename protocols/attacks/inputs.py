"""A11 and A12: contributions that would poison the sum silently, and sums that could wrap around."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from protocols.attacks.floors import offer_round
from protocols.attacks.forgery import forged
from protocols.attacks.records import Attack, Finding, Outcome, broken, harmless, refused
from protocols.attacks.scene import LENGTH, Scene, first_refusal
from protocols.client.session import RoundContext
from protocols.codec import FixedPointCodec
from protocols.errors import ParameterError, ProtocolError, RingOverflowError
from protocols.stages import Stage
from protocols.vectors import EncodedVector, NoisyVector


def _updates() -> Iterator[tuple[str, Any]]:
    good = np.full(8, 0.25, dtype=np.float32)
    yield "float64", good.astype(np.float64)
    yield "float16", good.astype(np.float16)
    yield "one coordinate too few", good[:-1]
    yield "one coordinate too many", np.append(good, np.float32(0))
    yield "a matrix", good.reshape(2, 4)
    for what, value in (("NaN", np.nan), ("infinity", np.inf), ("minus infinity", -np.inf)):
        bad = good.copy()
        bad[3] = value
        yield what, bad
    for value in (0.5000001, -0.51, 1e30):
        bad = good.copy()
        bad[5] = value
        yield f"a coordinate of {value:g}", bad


_WEIGHTS: tuple[Any, ...] = (0, -1, 1001, 2**40, 1.5, 1.0, np.nan, None, True, "7")
_COUNTERS: tuple[Any, ...] = (-1, 9, 0.5, None)


def bad_contributions() -> Finding:
    """Offer the codec updates, weights and counters that must not reach a sum."""
    generator = np.random.default_rng(0)
    plain = FixedPointCodec([8], [0.5], 16)
    weighted = FixedPointCodec([8], [0.5], 16, max_weight=1000, max_counters=(8,))
    good = np.full(8, 0.25, dtype=np.float32)
    encode = partial(weighted.encode, good, generator)
    tries: list[tuple[str, Callable[[], EncodedVector]]] = [
        (what, partial(plain.encode, update, generator)) for what, update in _updates()
    ]
    tries += [(f"weight {weight!r}", partial(encode, weight=weight, counters=(1,))) for weight in _WEIGHTS]
    tries += [(f"counter {counter!r}", partial(encode, weight=1, counters=(counter,))) for counter in _COUNTERS]
    refusals: list[ProtocolError] = []
    for what, attempt in tries:
        try:
            attempt()
        except ProtocolError as error:
            refusals.append(error)
            continue
        return broken(f"{what} was encoded")
    return refused(first_refusal(refusals), f"{len(refusals)} bad contributions")


def vector_of_another_round() -> Finding:
    """Let training hand over a vector of another length, and one above the round's bound."""
    refusals: list[ProtocolError] = []
    for what, values, bound in (
        ("a longer vector", np.zeros(LENGTH + 1, dtype=np.uint32), 65534),
        ("a shorter vector", np.zeros(LENGTH - 1, dtype=np.uint32), 65534),
        ("a vector above the bound", np.full(LENGTH, 65535, dtype=np.uint32), 65535),
    ):
        scene = Scene(5)
        scene.replace(scene.names[0], contribute=lambda _, v=values, b=bound: EncodedVector(v, b))
        scene.play(Stage.MASKED_INPUT_COLLECTION)
        frame = scene.server.requests(Stage.MASKED_INPUT_COLLECTION.value)[scene.names[0]]
        try:
            scene.send(scene.names[0], Stage.MASKED_INPUT_COLLECTION, frame)
        except ProtocolError as error:
            refusals.append(error)
            continue
        return broken(f"{what} was masked and sent")
    return refused(first_refusal(refusals), f"{len(refusals)} vectors that do not fit the round")


def everything_at_the_bound() -> Finding:
    """Let all clients contribute the largest value in every coordinate, in rings that just suffice."""
    for clients, value_bits, noise_tail in ((3, 2, 0), (4, 16, 0), (5, 16, 0), (8, 22, 0), (5, 12, 5000)):
        codec = FixedPointCodec([32], [0.5], value_bits)

        def contribute(context: RoundContext) -> EncodedVector:
            parameters = context.parameters
            values = np.full(parameters.vector_length, parameters.max_coordinate, dtype=np.uint32)
            if not parameters.is_noisy:
                return EncodedVector(values, parameters.max_coordinate)
            noise = np.full(parameters.vector_length, parameters.noise_tail // parameters.clients)
            return NoisyVector(values, parameters.max_coordinate, noise)

        scene = Scene(clients, codec=codec, choices={"noise_tail": noise_tail})
        for name in scene.names:
            scene.replace(name, contribute=contribute)
        try:
            scene.play()
        except ProtocolError as error:
            return broken(f"{clients} clients at the bound of {value_bits} bits: {error}")
        result = scene.server.result
        if result is None or not (result.total.integers() == clients * codec.max_coordinate + noise_tail).all():
            return broken(f"{clients} clients at the bound of {value_bits} bits: the sum wrapped around")
    return harmless("sums of largest values and largest noise are exact in five rings that just suffice")


def one_client_too_many() -> Finding:
    """Offer a round with one client more than the ring holds."""
    four = Scene(4).parameters.ring_bits
    scene = Scene(5)
    try:
        offer_round(scene, forged(scene.parameters, ring_bits=four))
    except (RingOverflowError, ParameterError) as error:
        return refused(error, "five clients in a ring for four")
    return broken("a client took part in a sum that can wrap around")


ATTACKS = (
    Attack(
        "A11a",
        "Bad contributions",
        "training hands over NaN, infinity, values out of range, wrong types and shapes, bad weights and counters",
        Outcome.REFUSED,
        bad_contributions,
    ),
    Attack(
        "A11b",
        "Bad contributions",
        "training hands over a vector of another length or above the round's bound",
        Outcome.REFUSED,
        vector_of_another_round,
    ),
    Attack(
        "A12a",
        "Overflow",
        "all clients contribute the largest value in every coordinate, in rings that just suffice",
        Outcome.HARMLESS,
        everything_at_the_bound,
    ),
    Attack(
        "A12b",
        "Overflow",
        "the server invites one client more than the ring holds",
        Outcome.REFUSED,
        one_client_too_many,
    ),
)
