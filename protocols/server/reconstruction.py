"""From shares to pads: rebuild each secret from t shares, verify it against what its owner published, derive pads."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, combinations, islice

from protocols.commitments import commit_to_seed
from protocols.errors import DecodeError, ReconstructionError, TooFewSurvivorsError
from protocols.key_agreement import AgreementKey, Endpoint, pairwise_seed, public_key, self_mask_key
from protocols.messages.consistency import SurvivorSet
from protocols.pads import Pad
from protocols.secret_values import MaskKey, SelfMaskSeed
from protocols.server.dealt import Dealings
from protocols.server.session import ServerSession
from protocols.shamir import combine
from protocols.stages import Stage

MAX_SUBSETS = 64
"""Further subsets of t shares that are tried where no run of t holders rebuilds what the owner published."""

PADS_AT_A_TIME = 256
"""Keystreams that are open at the same time."""


def remaining_pads(
    session: ServerSession,
    dealings: Dealings,
    survivors: SurvivorSet,
    shares: Mapping[int, Mapping[int, bytes]],
) -> Iterator[Sequence[Pad]]:
    """Return the pads that are still in the sum, some at a time: self masks of survivors, pairwise pads with dropouts.

    Args:
        session: The round.
        dealings: The clients that share pads.
        survivors: Whose vectors are in the sum.
        shares: {owner: {holder: share}}, checked against the owner's commitments.

    Yields:
        Pads with the sign that cancels them.

    Raises:
        TooFewSurvivorsError: An owner has fewer than t shares; raised before any pad is derived.
        ReconstructionError: An owner's shares do not rebuild what it published.
    """
    needed = [owner for owner in dealings.dealt if _is_needed(dealings, survivors, owner)]
    require_shares(session, [(owner, shares[owner]) for owner in needed])
    batch: list[Pad] = []
    for owner in needed:
        batch.extend(_pads_of(session, dealings, survivors, owner, shares[owner]))
        while len(batch) >= PADS_AT_A_TIME:
            yield batch[:PADS_AT_A_TIME]
            del batch[:PADS_AT_A_TIME]
    if batch:
        yield batch


def require_shares(session: ServerSession, held: Sequence[tuple[int, Collection[int]]]) -> None:
    """End the round where t shares of some secret are not there.

    Args:
        session: The round.
        held: (owner, holders whose shares of it are right) of each secret that is to be rebuilt.

    Raises:
        TooFewSurvivorsError: There are not; names the owner, unless there are not even t holders in all.
    """
    threshold = session.parameters.threshold
    owner, holders = min(held, key=lambda secret: len(secret[1]))
    if len(holders) >= threshold:
        return
    left = len(set().union(*(each for _, each in held)))
    if left < threshold:
        raise TooFewSurvivorsError(Stage.UNMASKING.value, left, threshold)
    raise TooFewSurvivorsError(Stage.UNMASKING.value, len(holders), threshold, shares_of=session.name(owner))


def _is_needed(dealings: Dealings, survivors: SurvivorSet, owner: int) -> bool:
    if owner in survivors.positions:
        return True
    return any(neighbour in survivors.positions for neighbour in dealings.neighbours(owner))


def _pads_of(
    session: ServerSession, dealings: Dealings, survivors: SurvivorSet, owner: int, shares: Mapping[int, bytes]
) -> Iterator[Pad]:
    name = session.name(owner)
    if owner in survivors.positions:
        seed = _rebuild_seed(session, dealings, owner, shares)
        yield Pad(self_mask_key(seed, dealings.keys, owner), negative=True)
        seed.erase()
        return
    key = _rebuild_mask_key(session, dealings, owner, shares)
    agreement = AgreementKey(key)
    here = Endpoint(owner, dealings.mask_publics[owner], name)
    for neighbour in dealings.neighbours(owner):
        if neighbour in survivors.positions:
            there = Endpoint(neighbour, dealings.mask_publics[neighbour], session.name(neighbour))
            # The neighbour added the pad if it comes first, and subtracted it otherwise.
            yield Pad(pairwise_seed(agreement, here, there, dealings.keys), negative=neighbour < owner)
    key.erase()


def _rebuild_seed(session: ServerSession, dealings: Dealings, owner: int, shares: Mapping[int, bytes]) -> SelfMaskSeed:
    for secret in candidates(shares, session.parameters.threshold):
        seed = SelfMaskSeed(secret)
        if commit_to_seed(seed, session.session_id, owner) == dealings.dealt[owner].seed_commitment:
            return seed
        seed.erase()
    raise ReconstructionError(session.name(owner))


def _rebuild_mask_key(session: ServerSession, dealings: Dealings, owner: int, shares: Mapping[int, bytes]) -> MaskKey:
    for secret in candidates(shares, session.parameters.threshold):
        key = MaskKey(secret)
        if public_key(key) == dealings.mask_publics[owner]:
            return key
        key.erase()
    raise ReconstructionError(session.name(owner))


def candidates(shares: Mapping[int, bytes], threshold: int) -> Iterator[bytes]:
    """Return the secrets that subsets of t shares rebuild; the first subset is right unless the owner dealt wrongly.

    First every run of t holders in cyclic order, which avoids any one holder where more than t are left, then others.
    """
    order = sorted(shares)
    runs = (sorted((order + order)[start : start + threshold]) for start in range(len(order)))
    for holders in chain(runs, islice(combinations(order, threshold), MAX_SUBSETS)):
        try:
            secret = combine([holder + 1 for holder in holders], [shares[holder] for holder in holders])
        except DecodeError:
            continue
        if secret is not None:
            yield secret
