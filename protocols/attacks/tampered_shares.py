"""A9: shares that are flipped, swapped, copied, cut or dealt wrongly: the culprit is named, the round goes on."""

from collections.abc import Callable, Mapping

import numpy as np

from protocols.attacks.adversary import channel_key, session_keys_of
from protocols.attacks.records import Attack, Finding, Outcome, broken, harmless, refused
from protocols.attacks.scene import Scene, read
from protocols.commitments import commit_to_share
from protocols.errors import ProtocolError
from protocols.key_agreement import AgreementKey, sealing_keys
from protocols.messages import DealtShares, ShareKeysReply, UnmaskingReply, encode_message
from protocols.sealing import SEALED_BYTES, seal_shares
from protocols.secret_values import MaskKeyShare, SelfMaskShare
from protocols.shamir import PRIME
from protocols.stages import Stage
from protocols.wire import decode_frame

Shares = Mapping[int, SelfMaskShare | MaskKeyShare]


def _flip(share: bytes) -> bytes:
    return bytes([share[0] ^ 1]) + share[1:]


def _flipped(shares: Shares) -> dict[int, SelfMaskShare | MaskKeyShare]:
    return {owner: type(share)(_flip(share.expose())) for owner, share in shares.items()}


def _swapped(shares: Shares) -> dict[int, SelfMaskShare | MaskKeyShare]:
    owners = sorted(shares)
    return {owner: SelfMaskShare(shares[owners[i - 1]].expose()) for i, owner in enumerate(owners)}


def _outside_the_field(shares: Shares) -> dict[int, SelfMaskShare | MaskKeyShare]:
    return {owner: type(share)(PRIME.to_bytes(4, "little") * 9) for owner, share in shares.items()}


def _other_kind(shares: Shares) -> dict[int, SelfMaskShare | MaskKeyShare]:
    return {owner: MaskKeyShare(share.expose()) for owner, share in shares.items()}


_TAMPERED: Mapping[str, Callable[[Shares], dict[int, SelfMaskShare | MaskKeyShare]]] = {
    "flipped bits": _flipped,
    "swapped owners": _swapped,
    "values outside the field": _outside_the_field,
    "the other kind": _other_kind,
}


def tamper_when_unmasking() -> Finding:
    """Let one holder return wrong shares, in each of several ways; one lost client makes every good share count."""
    for what, change in _TAMPERED.items():
        finding = _unmask_with(what, lambda frame, change=change: _rewritten(frame, change))  # type: ignore[misc]
        if finding is not None:
            return finding
    return harmless(f"{', '.join(_TAMPERED)}: site-005 named each time, the sum exact")


def _rewritten(frame: bytes, change: Callable[[Shares], dict[int, SelfMaskShare | MaskKeyShare]]) -> bytes:
    header, _ = decode_frame(frame, len(frame))
    message = UnmaskingReply(change(read(UnmaskingReply, frame).shares))
    return encode_message(message, header.round, header.session_id)


def copy_a_share_of_another_point() -> Finding:
    """Let one holder return the shares of another holder: right values at the wrong x-coordinate."""
    scene = Scene(6)
    culprit = scene.names[5]

    def replies(name: str, frame: bytes) -> tuple[bytes]:
        return (scene.transcript[Stage.UNMASKING, scene.names[0]][1] if name == culprit else frame,)

    return _finish(scene, culprit, "shares of another point", replies) or harmless(
        f"shares of another holder: {culprit} named, the sum exact"
    )


def cut_and_double_shares() -> Finding:
    """Let one holder return a truncated frame, and one that names an owner twice."""

    def doubled(frame: bytes) -> bytes:
        head, entry = frame[:46], frame[46 : 46 + 39]
        body = (2).to_bytes(2, "little") + entry + entry
        return head[:40] + len(body).to_bytes(4, "little") + body

    for what, change in (("truncated", lambda frame: frame[:-7]), ("doubled", doubled)):
        finding = _unmask_with(what, change)
        if finding is not None:
            return finding
    return harmless("truncated and doubled shares: site-005 named each time, the sum exact")


def _unmask_with(what: str, change: Callable[[bytes], bytes]) -> Finding | None:
    scene = Scene(6)
    culprit = scene.names[5]
    return _finish(scene, culprit, what, lambda name, frame: (change(frame) if name == culprit else frame,))


def _finish(scene: Scene, culprit: str, what: str, replies: Callable[[str, bytes], tuple[bytes]]) -> Finding | None:
    """Play to the end with altered replies to Unmasking; None where culprit and sum are right."""
    lost = {scene.names[1]: Stage.UNMASKING}
    try:
        scene.play(Stage.UNMASKING)
        scene.step(Stage.UNMASKING, lost=lost, replies=replies)
    except ProtocolError as error:
        return broken(f"{what}: one holder ended the round: {error}")
    result = scene.server.result
    if result is None or not np.array_equal(result.total.integers(), scene.federation.expected(scene.names)):
        return broken(f"{what}: the total is wrong")
    if culprit not in {rejection.client for rejection in scene.server.rejections}:
        return broken(f"{what}: the sum is right but nobody was named")
    return None


def deal_one_wrong_share() -> Finding:
    """Let a dealer seal to the first holder a share that is not on its polynomial, with a fitting commitment."""
    scene = Scene(6)
    dealer, holder = 5, 0
    scene.play(Stage.SHARE_KEYS)

    def replies(name: str, frame: bytes) -> tuple[bytes]:
        return (_with_wrong_share(scene, frame, dealer, holder) if name == scene.names[dealer] else frame,)

    scene.step(Stage.SHARE_KEYS, replies=replies)
    return _judge_dealer(scene, dealer, "one share off the polynomial")


def deal_garbage_to_all() -> Finding:
    """Let a dealer seal to every holder bytes that do not open, and stay in the round."""
    scene = Scene(6)
    dealer = 5
    scene.play(Stage.SHARE_KEYS)

    def replies(name: str, frame: bytes) -> tuple[bytes]:
        if name != scene.names[dealer]:
            return (frame,)
        reply = read(ShareKeysReply, frame)
        shares = {
            holder: DealtShares(
                dealt.self_mask_commitment, dealt.mask_key_commitment, bytes(SEALED_BYTES) if dealt.sealed else b""
            )
            for holder, dealt in reply.shares.items()
        }
        message = ShareKeysReply(reply.seed_commitment, shares)
        return (encode_message(message, scene.parameters.round, scene.server.session_id),)

    scene.step(Stage.SHARE_KEYS, replies=replies)
    return _judge_dealer(scene, dealer, "shares that do not open, for all holders")


def _with_wrong_share(scene: Scene, frame: bytes, dealer: int, holder: int) -> bytes:
    name, reply = scene.names[dealer], read(ShareKeysReply, frame)
    session, ends = session_keys_of(scene, scene.server.requests(Stage.SHARE_KEYS.value)[name])
    outgoing, _ = sealing_keys(
        AgreementKey(channel_key(scene, name, ends[dealer].public)), ends[dealer], ends[holder], session
    )
    wrong = SelfMaskShare(bytes(range(36))), MaskKeyShare(bytes(range(36)))
    sealed = seal_shares(outgoing, wrong, session.session_id, dealer, holder, scene.taps[name])
    first, second = (commit_to_share(share, session.session_id, dealer, holder) for share in wrong)
    shares = {**reply.shares, holder: DealtShares(first, second, sealed)}
    message = ShareKeysReply(reply.seed_commitment, shares)
    return encode_message(message, scene.parameters.round, scene.server.session_id)


def _judge_dealer(scene: Scene, dealer: int, what: str) -> Finding:
    """A dealer may spoil the round, for its pads are in the sum; but never silently and never without its name."""
    name = scene.names[dealer]
    try:
        scene.play()
    except ProtocolError as error:
        named = {getattr(error, "owner", None), *(rejection.client for rejection in scene.server.rejections)}
        if name in named:
            return refused(error, what)
        return broken(f"{what}: the round ended without naming {name}: {error}")
    result = scene.server.result
    expected = scene.federation.expected(result.survivors if result else ())
    if result is None or not np.array_equal(result.total.integers(), expected):
        return broken(f"{what}: the total is wrong")
    return harmless(f"{what}: the sum is exact")


ATTACKS = (
    Attack(
        "A9a",
        "Tampered shares",
        "a holder returns shares that are flipped, swapped, outside the field or of the other kind",
        Outcome.HARMLESS,
        tamper_when_unmasking,
    ),
    Attack(
        "A9b",
        "Wrong x-coordinate",
        "a holder returns the shares of another holder",
        Outcome.HARMLESS,
        copy_a_share_of_another_point,
    ),
    Attack(
        "A9c",
        "Truncated and duplicated shares",
        "a holder returns a truncated frame, and one that names an owner twice",
        Outcome.HARMLESS,
        cut_and_double_shares,
    ),
    Attack(
        "A9d",
        "Wrongly dealt share",
        "a dealer commits to a share that is not on its polynomial",
        Outcome.HARMLESS,
        deal_one_wrong_share,
    ),
    Attack(
        "A9e",
        "Shares that do not open",
        "a dealer seals garbage to every holder and stays in the round",
        Outcome.REFUSED,
        deal_garbage_to_all,
    ),
)
