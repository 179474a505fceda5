"""From advertised keys to sealed shares: check the peers, fix the graph, derive channel keys, split, seal."""

from collections.abc import Mapping
from dataclasses import dataclass

from protocols.blocks import PositionedBlocks
from protocols.client.noise_shares import NoiseDealer, OwnNoise
from protocols.client.session import ClientSession, Environment
from protocols.commitments import commit_to_seed, commit_to_share, verify_nonces
from protocols.errors import AuthenticationError, SurvivorSetError, TooFewSurvivorsError
from protocols.graph import RingGraph, graph_seed, ring_order
from protocols.key_agreement import AgreementKey, Endpoint, is_small_order, sealing_keys
from protocols.messages import Advertisement, DealtShares, NoisyShareKeysReply, ShareKeysReply, ShareKeysRequest
from protocols.roster import verify_signature
from protocols.sealing import seal_shares
from protocols.secret_values import (
    ChannelKey,
    MaskKey,
    MaskKeyShare,
    NoiseSeed,
    SealingKey,
    Secret,
    SelfMaskSeed,
    SelfMaskShare,
)
from protocols.session import SessionKeys, keys_digest_complete
from protocols.shamir import split
from protocols.stages import Stage
from protocols.statements import advertisement_message

EMPTY_BLOCKS = PositionedBlocks((), b"")


@dataclass(frozen=True, slots=True)
class Peers:
    """The other clients as this one has verified them.

    Attributes:
        keys: What every key derivation takes in.
        advertisements: {position: advertisement} of the other clients that share pads with this one.
    """

    keys: SessionKeys
    advertisements: Mapping[int, Advertisement]


@dataclass(frozen=True, slots=True)
class Dealing:
    """What a client keeps after it dealt its shares.

    Attributes:
        reply: The sealed shares.
        incoming: {dealer: key that opens what it deals to this client}.
        own_share: This client's share of its own self-mask seed, on a complete graph.
        noise: Its own excess noise.
    """

    reply: ShareKeysReply | NoisyShareKeysReply
    incoming: Mapping[int, SealingKey]
    own_share: SelfMaskShare | None
    noise: OwnNoise


def verify_peers(
    session: ClientSession,
    own: Advertisement,
    commitments: PositionedBlocks,
    request: ShareKeysRequest,
    environment: Environment,
) -> Peers:
    """Check the keys that the server passes on.

    Args:
        session: The round.
        own: What this client advertised.
        commitments: All commitments, as this client saw them before it revealed its nonce; empty on a complete graph.
        request: Advertisements and nonces.
        environment: The client's own.

    Raises:
        TooFewSurvivorsError: Too few clients are left for the threshold.
        SurvivorSetError: The list contradicts what this client sent or saw.
        PolicyError: So many nonces were withheld that the order of the ring may have been chosen.
        AuthenticationError: A peer's keys are not signed by it in this session, are used twice or are of small order.
    """
    advertisements = request.advertisements
    if advertisements.get(session.position) != own:
        raise SurvivorSetError("the server does not show this client's own keys")
    if max(advertisements) >= session.parameters.clients:
        raise SurvivorSetError("the server shows a client outside the cohort")
    if session.parameters.is_complete:
        keys = _complete_keys(session, request)
    else:
        environment.policy.check_ring(session.parameters, len(commitments) - len(request.nonces))
        keys = _ring_keys(session, commitments, request)
    present = len(advertisements) - (0 if session.parameters.is_complete else 1)
    if present < session.parameters.threshold:
        raise TooFewSurvivorsError(Stage.SHARE_KEYS.value, present, session.parameters.threshold)
    _verify_advertisements(session, advertisements, environment)
    return Peers(keys, {position: entry for position, entry in advertisements.items() if position != session.position})


def _complete_keys(session: ClientSession, request: ShareKeysRequest) -> SessionKeys:
    if len(request.nonces):
        raise SurvivorSetError("a complete graph has no nonces")
    least = session.parameters.min_survivors
    if len(request.advertisements) < least:
        raise TooFewSurvivorsError(Stage.SHARE_KEYS.value, len(request.advertisements), least)
    encoded = {position: entry.encode() for position, entry in request.advertisements.items()}
    return SessionKeys(session.session_id, keys_digest_complete(session.session_id, encoded))


def _ring_keys(session: ClientSession, commitments: PositionedBlocks, request: ShareKeysRequest) -> SessionKeys:
    least = session.parameters.min_survivors
    if len(request.nonces) < least:
        raise TooFewSurvivorsError(Stage.SHARE_KEYS.value, len(request.nonces), least)
    verify_nonces(session.session_id, commitments, request.nonces)
    seed = graph_seed(session.session_id, commitments.encode(), request.nonces.encode())
    graph = RingGraph(ring_order(seed, session.parameters.clients), session.parameters.neighbours)
    committed, revealed = dict(commitments.items()), frozenset(request.nonces.positions)
    if not revealed.issuperset(request.advertisements):
        raise SurvivorSetError("the server shows keys of a client that did not reveal its nonce")
    if not {*graph.neighbours(session.position), session.position}.issuperset(request.advertisements):
        raise SurvivorSetError("the server shows keys of a client that is no neighbour")
    for position, entry in request.advertisements.items():
        if entry.nonce_commitment != committed[position]:
            raise SurvivorSetError("the server shows another commitment than before")
    return SessionKeys(session.session_id, seed)


def _verify_advertisements(
    session: ClientSession, advertisements: Mapping[int, Advertisement], environment: Environment
) -> None:
    seen: set[bytes] = set()
    for position, entry in advertisements.items():
        name = session.name(position, environment.roster)
        if bool(entry.nonce_commitment) == session.parameters.is_complete or bool(entry.signature) != session.is_active:
            raise AuthenticationError("advertisement", name)
        if entry.channel_public in seen or entry.mask_public in seen or entry.channel_public == entry.mask_public:
            raise AuthenticationError("public key", name)
        if is_small_order(entry.channel_public) or is_small_order(entry.mask_public):
            raise AuthenticationError("public key", name)
        seen.update((entry.channel_public, entry.mask_public))
        if session.is_active and position != session.position:
            message = advertisement_message(session.session_id, position, entry)
            key = session.identity_key(position, environment.roster)
            verify_signature(environment.verifier, key, message, entry.signature, "advertisement", name)


def deal_shares(
    session: ClientSession,
    peers: Peers,
    secrets: tuple[ChannelKey, MaskKey, SelfMaskSeed],
    own: Advertisement,
    environment: Environment,
) -> Dealing:
    """Split the secrets and the seeds of excess noise among the holders; seal each holder's shares for it alone.

    Whatever fails, no secret that was made here is left.

    Raises:
        AuthenticationError: A peer's channel key is of small order.
    """
    made: list[Secret] = []
    try:
        return _deal(session, peers, secrets, own, environment, made)
    except BaseException:
        for secret in made:
            secret.erase()
        raise


def _deal(
    session: ClientSession,
    peers: Peers,
    secrets: tuple[ChannelKey, MaskKey, SelfMaskSeed],
    own: Advertisement,
    environment: Environment,
    made: list[Secret],
) -> Dealing:
    """Deal the shares; `made` takes every secret as soon as it is there."""
    channel_key, mask_key, seed = secrets
    agreement = AgreementKey(channel_key)
    me, identifier = session.position, session.session_id
    holders = sorted({*peers.advertisements, *((me,) if session.parameters.is_complete else ())})
    points = [position + 1 for position in holders]
    self_mask_shares, mask_key_shares = split(
        (seed.expose(), mask_key.expose()), points, session.parameters.threshold, environment.entropy
    )
    noise = NoiseDealer(_noise_seeds(session, environment), identifier, me, environment.entropy)
    made += noise.seeds
    noise.split(holders, session.parameters.threshold)
    made += noise.undealt()
    dealt: dict[int, DealtShares] = {}
    incoming: dict[int, SealingKey] = {}
    own_share: SelfMaskShare | None = None
    here = Endpoint(me, own.channel_public, environment.name)
    for holder, *raw in zip(holders, self_mask_shares, mask_key_shares, strict=True):
        shares = SelfMaskShare(raw[0]), MaskKeyShare(raw[1])
        made += shares
        sealed = b""
        if holder == me:
            own_share = shares[0]
            noise.deal(holder, None)
        else:
            there = Endpoint(
                holder, peers.advertisements[holder].channel_public, session.name(holder, environment.roster)
            )
            outgoing, incoming[holder] = sealing_keys(agreement, here, there, peers.keys)
            made += (outgoing, incoming[holder])
            sealed = seal_shares(outgoing, shares, identifier, me, holder, environment.entropy)
            noise.deal(holder, outgoing)
            outgoing.erase()
        first, second = (commit_to_share(share, identifier, me, holder) for share in shares)
        dealt[holder] = DealtShares(first, second, sealed)
        for share in shares:
            if share is not own_share:
                share.erase()
    reply: ShareKeysReply | NoisyShareKeysReply = ShareKeysReply(commit_to_seed(seed, identifier, me), dealt)
    if isinstance(reply, ShareKeysReply) and noise.seeds:
        reply = NoisyShareKeysReply(reply, noise.seed_commitments(), noise.dealt)
    return Dealing(reply, incoming, own_share, OwnNoise(noise.seeds, noise.own))


def _noise_seeds(session: ClientSession, environment: Environment) -> tuple[NoiseSeed, ...]:
    return tuple(NoiseSeed(environment.entropy(NoiseSeed.length)) for _ in range(session.parameters.excess))
