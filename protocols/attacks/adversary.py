"""What a server can compute from what it holds: shares of both kinds, its own private keys, colluders' states."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protocols.attacks.scene import Scene, read
from protocols.commitments import commit_to_seed
from protocols.errors import DecodeError
from protocols.key_agreement import AgreementKey, Endpoint, pairwise_seed, public_key, sealing_keys, self_mask_key
from protocols.messages import MaskedInputReply, MaskedInputRequest, ShareKeysReply, ShareKeysRequest, UnmaskingReply
from protocols.pads import Pad, apply_pads
from protocols.ring import reduce_in_place
from protocols.sealing import open_shares
from protocols.secret_values import ChannelKey, MaskKey, MaskKeyShare, PairwiseSeed, SelfMaskSeed, SelfMaskShare
from protocols.session import SessionKeys, keys_digest_complete
from protocols.shamir import combine
from protocols.stages import Stage
from protocols.vectors import MaskedVector


@dataclass
class Loot:
    """Shares that came into the adversary's hands: {owner: {holder: bytes}} of each kind."""

    self_mask: dict[int, dict[int, bytes]] = field(default_factory=dict)
    mask_key: dict[int, dict[int, bytes]] = field(default_factory=dict)

    def add(self, owner: int, holder: int, share: SelfMaskShare | MaskKeyShare) -> None:
        """Keep one share."""
        pile = self.self_mask if isinstance(share, SelfMaskShare) else self.mask_key
        pile.setdefault(owner, {})[holder] = share.expose()

    def add_reply(self, holder: int, frame: bytes) -> None:
        """Keep the shares of a reply to Unmasking."""
        for owner, share in read(UnmaskingReply, frame).shares.items():
            self.add(owner, holder, share)

    def add_colluder(self, scene: Scene, colluder: str) -> None:
        """Keep the shares that were dealt to a colluding client, which hands over everything it drew at random."""
        me = scene.names.index(colluder)
        session, ends = session_keys_of(scene, scene.transcript[Stage.SHARE_KEYS, colluder][0])
        own = AgreementKey(channel_key(scene, colluder, ends[me].public))
        for dealer, dealt in scene.received(MaskedInputRequest, Stage.MASKED_INPUT_COLLECTION, colluder).shares.items():
            _, incoming = sealing_keys(own, ends[me], ends[dealer], session)
            shares = open_shares(incoming, dealt.sealed, session.session_id, dealer, me)
            for share in shares or ():
                self.add(dealer, me, share)

    def seed_of(self, owner: int, threshold: int) -> SelfMaskSeed | None:
        """Return a client's self-mask seed that the shares give."""
        secret = _rebuild(self.self_mask.get(owner, {}), threshold)
        return None if secret is None else SelfMaskSeed(secret)

    def mask_key_of(self, owner: int, threshold: int, public: bytes) -> MaskKey | None:
        """Return a client's mask key if the shares give the one that it advertised."""
        secret = _rebuild(self.mask_key.get(owner, {}), threshold)
        if secret is None or public_key(MaskKey(secret)) != public:
            return None
        return MaskKey(secret)


def _rebuild(shares: Mapping[int, bytes], threshold: int) -> bytes | None:
    holders = sorted(shares)[:threshold]  # fewer are tried too: a build that splits too weakly shall be caught
    if not holders:
        return None
    try:
        return combine([holder + 1 for holder in holders], [shares[holder] for holder in holders])
    except DecodeError:
        return None


def session_keys(scene: Scene, name: str) -> SessionKeys:
    """Return what the key derivations of a client took in: the server showed it the keys."""
    return session_keys_of(scene, scene.transcript[Stage.SHARE_KEYS, name][0])[0]


def session_keys_of(scene: Scene, request: bytes) -> tuple[SessionKeys, dict[int, Endpoint]]:
    """Return what key derivations take in after a request of ShareKeys, and {position: channel key}."""
    shown = read(ShareKeysRequest, request).advertisements
    identifier = scene.server.session_id
    digest = keys_digest_complete(identifier, {position: entry.encode() for position, entry in shown.items()})
    ends = {position: Endpoint(position, entry.channel_public, str(position)) for position, entry in shown.items()}
    return SessionKeys(identifier, digest), ends


def endpoints(scene: Scene, name: str) -> dict[int, Endpoint]:
    """Return {position: mask key as it was shown to a client}."""
    request = scene.received(ShareKeysRequest, Stage.SHARE_KEYS, name)
    return {
        position: Endpoint(position, entry.mask_public, str(position))
        for position, entry in request.advertisements.items()
    }


def channel_key(scene: Scene, name: str, public: bytes) -> ChannelKey:
    """Return the draw of a colluder that belongs to its channel key."""
    drawn = (ChannelKey(draw) for draw in scene.taps[name].draws if len(draw) == ChannelKey.length)
    return next(key for key in drawn if public_key(key) == public)


def pads_from_keys(scene: Scene, victim: str, keys: Mapping[int, MaskKey]) -> dict[int, PairwiseSeed]:
    """Return the seeds of a victim's pads with those whose mask keys are known; with its own key, of all its pads.

    Args:
        scene: Where it was played.
        victim: Whose vector is to be opened.
        keys: {position: mask key}.
    """
    session, ends, me = session_keys(scene, victim), endpoints(scene, victim), scene.names.index(victim)
    if me in keys:
        own = AgreementKey(keys[me])
        return {peer: pairwise_seed(own, ends[me], end, session) for peer, end in ends.items() if peer != me}
    return {
        peer: pairwise_seed(AgreementKey(key), ends[peer], ends[me], session)
        for peer, key in keys.items()
        if peer in ends
    }


def strip(
    scene: Scene, victim: str, seed: SelfMaskSeed | None, pairwise: Mapping[int, PairwiseSeed], session: SessionKeys
) -> NDArray[np.int64]:
    """Return int64 [d], a victim's masked vector without the pads that are known."""
    reply, me = scene.sent(MaskedInputReply, Stage.MASKED_INPUT_COLLECTION, victim), scene.names.index(victim)
    return strip_reply(reply, me, () if seed is None else (seed,), pairwise, session)


def strip_reply(
    reply: MaskedInputReply,
    position: int,
    seeds: Iterable[SelfMaskSeed],
    pairwise: Mapping[int, PairwiseSeed],
    session: SessionKeys,
) -> NDArray[np.int64]:
    """Return int64 [d], a masked vector without the pads that are known."""
    lanes = MaskedVector.decode(reply.packed, reply.length, reply.ring_bits).lanes.copy()
    pads = [Pad(self_mask_key(seed, session, position), negative=True) for seed in seeds]
    pads += [Pad(seed, negative=position < peer) for peer, seed in pairwise.items()]
    apply_pads(lanes, pads)
    reduce_in_place(lanes, reply.ring_bits)
    return lanes.astype(np.int64)


def open_victim(scene: Scene, victim: str, loot: Loot) -> NDArray[np.int64]:
    """Return the best guess at a victim's vector: its masked vector without every pad that the loot gives."""
    threshold, session, me = scene.parameters.threshold, session_keys(scene, victim), scene.names.index(victim)
    ends = endpoints(scene, victim)
    keys = {}
    for owner in loot.mask_key:
        key = loot.mask_key_of(owner, threshold, ends[owner].public)
        if key is not None:
            keys[owner] = key
    return strip(scene, victim, loot.seed_of(me, threshold), pads_from_keys(scene, victim, keys), session)


def knows_seed(scene: Scene, name: str, loot: Loot) -> bool:
    """Whether the loot gives the self-mask seed that a client committed to."""
    position = scene.names.index(name)
    seed = loot.seed_of(position, scene.parameters.threshold)
    if seed is None:
        return False
    published = scene.sent(ShareKeysReply, Stage.SHARE_KEYS, name).seed_commitment
    return commit_to_seed(seed, scene.server.session_id, position) == published
