"""The shares that a client holds for others, and the rule by which one kind of each is returned."""

from collections.abc import Iterable, Mapping

from protocols.client.noise_shares import HeldNoise, return_noise
from protocols.messages import NoisyUnmaskingReply, UnmaskingReply
from protocols.messages.consistency import SurvivorSet
from protocols.parameters import RoundParameters
from protocols.secret_values import MaskKeyShare, Secret, SelfMaskShare
from protocols.wire import Reader, u8, u16

ShareOf = tuple[SelfMaskShare, MaskKeyShare | None]
"""Both shares of one owner; a client keeps no share of its own mask key."""


def return_shares(shares: Mapping[int, ShareOf], survivors: SurvivorSet) -> UnmaskingReply:
    """Choose for each owner the one share that opens the sum over this survivor set.

    Of a survivor its self-mask share, of a dropout its mask-key share. The server has no part in the choice, and the
    reply has room for one share an owner only.
    """
    chosen: dict[int, SelfMaskShare | MaskKeyShare] = {}
    for owner, (self_mask_share, mask_key_share) in shares.items():
        share = self_mask_share if owner in survivors.positions else mask_key_share
        if share is not None:
            chosen[owner] = share
    return UnmaskingReply(chosen)


def return_all(
    shares: Mapping[int, ShareOf], noise: HeldNoise, survivors: SurvivorSet, parameters: RoundParameters
) -> UnmaskingReply | NoisyUnmaskingReply:
    """Return a client's reply to Unmasking: shares of pads, and of the noise that the survivor set says to remove."""
    reply = return_shares(shares, survivors)
    if not parameters.excess:
        return reply
    removed = parameters.excess - (parameters.clients - len(survivors.positions))
    return NoisyUnmaskingReply(reply, removed, return_noise(noise, survivors, parameters))


def held_secrets(shares: Mapping[int, ShareOf], noise: HeldNoise) -> Iterable[Secret]:
    """Return every share."""
    yield from (share for both in shares.values() for share in both if share is not None)
    for held in noise.values():
        yield from held


def share_fields(shares: Mapping[int, ShareOf]) -> Iterable[bytes]:
    """Return the bytes for a dump."""
    yield u16(len(shares))
    for owner, (self_mask_share, mask_key_share) in shares.items():
        second = b"" if mask_key_share is None else mask_key_share.expose()
        yield u16(owner) + self_mask_share.expose() + u8(len(second)) + second


def read_shares(reader: Reader) -> dict[int, ShareOf]:
    """Read what `share_fields` wrote.

    Raises:
        DecodeError: The bytes are not that.
    """
    shares: dict[int, ShareOf] = {}
    for _ in range(reader.count(3 + SelfMaskShare.length)):
        owner, first = reader.u16(), SelfMaskShare(reader.view(SelfMaskShare.length))
        shares[owner] = first, MaskKeyShare(reader.view(MaskKeyShare.length)) if reader.u8() else None
    return shares
