"""A10: sealed shares that are changed, exchanged, sent to another holder or taken from an earlier round."""

from collections.abc import Callable, Mapping

import numpy as np

from protocols.attacks.records import Attack, Finding, Outcome, broken, refused
from protocols.attacks.scene import Scene, read
from protocols.errors import AuthenticationError, ProtocolError
from protocols.messages import DealtShares, MaskedInputRequest, encode_message
from protocols.stages import Stage

Dealt = Mapping[int, DealtShares]
Change = Callable[[Dealt, Dealt, Dealt], dict[int, DealtShares]]
"""(what the holder should get, what another holder gets, what it got a round ago) -> what it gets."""

HOLDER, OTHER = 0, 3
TARGETS = (1, 2)


def _flipped(own: Dealt, other: Dealt, earlier: Dealt) -> dict[int, DealtShares]:
    del other, earlier
    return {
        **own,
        **{
            dealer: DealtShares(
                own[dealer].self_mask_commitment,
                own[dealer].mask_key_commitment,
                own[dealer].sealed[:20] + bytes([own[dealer].sealed[20] ^ 1]) + own[dealer].sealed[21:],
            )
            for dealer in TARGETS
        },
    }


def _exchanged(own: Dealt, other: Dealt, earlier: Dealt) -> dict[int, DealtShares]:
    del other, earlier
    first, second = TARGETS
    return {**own, first: own[second], second: own[first]}


def _for_another_holder(own: Dealt, other: Dealt, earlier: Dealt) -> dict[int, DealtShares]:
    del earlier
    return {**own, **{dealer: other[dealer] for dealer in TARGETS}}


def _from_an_earlier_round(own: Dealt, other: Dealt, earlier: Dealt) -> dict[int, DealtShares]:
    del other
    return {**own, **{dealer: earlier[dealer] for dealer in TARGETS}}


def _other_commitments(own: Dealt, other: Dealt, earlier: Dealt) -> dict[int, DealtShares]:
    del other, earlier
    return {**own, **{dealer: DealtShares(bytes(16), bytes(16), own[dealer].sealed) for dealer in TARGETS}}


CHANGES: Mapping[str, Change] = {
    "a flipped bit": _flipped,
    "exchanged sources": _exchanged,
    "another destination": _for_another_holder,
    "an earlier round": _from_an_earlier_round,
    "other commitments": _other_commitments,
}


def change_ciphertexts() -> Finding:
    """Deliver changed ciphertexts of two dealers to one holder, in each of several ways."""
    for what, change in CHANGES.items():
        finding = _deliver(what, change)
        if finding is not None:
            return finding
    error = AuthenticationError("sealed shares", "both dealers")
    return refused(error, f"{', '.join(CHANGES)}; the holder complained each time and the sum was exact")


def _deliver(what: str, change: Change) -> Finding | None:
    scene = Scene(6)
    scene.play()
    earlier = scene.received(MaskedInputRequest, Stage.MASKED_INPUT_COLLECTION, scene.names[HOLDER]).shares
    scene.begin(2)
    scene.play(Stage.MASKED_INPUT_COLLECTION)
    names = scene.names

    def request(name: str, frame: bytes) -> bytes:
        if name != names[HOLDER]:
            return frame
        own = read(MaskedInputRequest, frame).shares
        changed = change(own, _dealt_to(scene, OTHER), earlier)
        return encode_message(MaskedInputRequest(changed), scene.parameters.round, scene.server.session_id)

    try:
        scene.step(Stage.MASKED_INPUT_COLLECTION, request=request)
        scene.play()
    except ProtocolError as error:
        return broken(f"{what}: one holder's ciphertexts ended the round: {error}")
    result = scene.server.result
    if result is None or not np.array_equal(result.total.integers(), scene.federation.expected(names, 2)):
        return broken(f"{what}: the total is wrong")
    if result.complaints.get(names[HOLDER]) != tuple(names[dealer] for dealer in TARGETS):
        return broken(f"{what}: the holder took the shares for those of their dealers")
    return None


def _dealt_to(scene: Scene, holder: int) -> Dealt:
    """What the honest server has for a holder."""
    frames = scene.pending
    return read(MaskedInputRequest, frames[scene.names[holder]]).shares


ATTACKS = (
    Attack(
        "A10",
        "Tampered ciphertexts",
        "the server flips bits of sealed shares, exchanges source and destination, replays them from an earlier round",
        Outcome.REFUSED,
        change_ciphertexts,
    ),
)
