"""Requirements of SPEC.md on a client against servers that break them: other clients' messages, shares, pads."""

import contextlib
import dataclasses

import numpy as np
import pytest

from protocols import (
    AuthenticationError,
    ClientPolicy,
    PolicyError,
    SurvivorSetError,
    ThreatModel,
    TooFewSurvivorsError,
)
from protocols.blocks import PositionedBlocks
from protocols.messages import (
    MaskedInputRequest,
    RevealNoncesRequest,
    ShareKeysRequest,
    UnmaskingReply,
    decode_message,
)
from protocols.secret_values import MaskKeyShare, SelfMaskShare
from protocols.simulator import Alter, Recorder, rewrite
from protocols.stages import Stage
from tests.protocols.hostile_server import RING, at, flip, refuses, secrets_of

# Peers


def test_an_advertisement_signed_by_somebody_else(cohort):
    """[M-18] In an active round a client MUST verify every advertisement with its owner's pinned identity key before
    it derives any key from it.
    """
    federation, other = cohort(5), cohort(5, seed=b"mallory")
    machine, request = at(federation, Stage.SHARE_KEYS)
    _, forged = at(other, Stage.SHARE_KEYS)
    theirs = decode_message(ShareKeysRequest, forged, 10**6)[1].advertisements

    def substitute(message):
        return dataclasses.replace(message, advertisements={**message.advertisements, 3: theirs[3]})

    error = refuses(machine, Stage.SHARE_KEYS, rewrite(request, ShareKeysRequest, substitute), AuthenticationError)
    assert error.peer == "site-003"


def test_an_advertisement_without_a_signature(cohort):
    federation = cohort(5)
    machine, request = at(federation, Stage.SHARE_KEYS)

    def strip(message):
        bare = dataclasses.replace(message.advertisements[2], signature=b"")
        return dataclasses.replace(message, advertisements={**message.advertisements, 2: bare})

    assert refuses(machine, Stage.SHARE_KEYS, rewrite(request, ShareKeysRequest, strip), AuthenticationError)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda ads: {p: a for p, a in ads.items() if p != 0}, SurvivorSetError),
        (lambda ads: {**ads, 0: ads[1]}, SurvivorSetError),
        (lambda ads: {**ads, 2: ads[1]}, AuthenticationError),
        (lambda ads: {**ads, 9: ads[4]}, SurvivorSetError),
        (lambda ads: {p: ads[p] for p in (0, 1, 2)}, TooFewSurvivorsError),
        (lambda ads: {**ads, 1: dataclasses.replace(ads[1], mask_public=ads[1].channel_public)}, AuthenticationError),
        (lambda ads: {**ads, 1: ads[2], 2: ads[1]}, AuthenticationError),
    ],
)
def test_lists_of_keys_that_cannot_be(cohort, change, error):
    """[M-19] A client MUST refuse a list of keys that does not show its own advertisement as it sent it, shows a key
    twice, one of small order or a client outside the cohort, or has fewer than t holders (complete graph: than
    min_survivors).
    """
    federation = cohort(5)
    machine, request = at(federation, Stage.SHARE_KEYS)
    frame = rewrite(
        request, ShareKeysRequest, lambda m: dataclasses.replace(m, advertisements=change(m.advertisements))
    )
    refuses(machine, Stage.SHARE_KEYS, frame, error)


@pytest.mark.parametrize("use", ["channel_public", "mask_public"])
@pytest.mark.parametrize("model", list(ThreatModel))
def test_a_key_of_small_order_is_refused_before_anything_is_dealt(cohort, use, model):
    """Also one for masks, which nobody uses before the hospital has trained and paid for its release."""
    federation = cohort(5, threat_model=model)
    machine, request = at(federation, Stage.SHARE_KEYS)

    def weaken(message):
        weak = dataclasses.replace(message.advertisements[2], **{use: bytes(32)})
        return dataclasses.replace(message, advertisements={**message.advertisements, 2: weak})

    refused = refuses(machine, Stage.SHARE_KEYS, rewrite(request, ShareKeysRequest, weaken), AuthenticationError)
    assert (refused.what, refused.peer) == ("public key", "site-002")


def test_commitments_without_ones_own_or_too_few(cohort):
    """[M-10] A client MUST NOT reveal its nonce before it has seen its own commitment in a list of at least
    min_survivors commitments.
    """
    for keep, change, error in (
        (range(12), {0: bytes(32)}, SurvivorSetError),
        (range(1, 12), {}, SurvivorSetError),
        (range(2), {}, TooFewSurvivorsError),
        (range(11), {12: bytes(32)}, SurvivorSetError),
    ):
        federation = cohort(12, length=4, choices=RING)
        machine, request = at(federation, Stage.REVEAL_NONCES)

        def forge(message, keep=keep, change=change):
            shown = dict(message.commitments.items())
            return RevealNoncesRequest(PositionedBlocks.of({**{p: shown[p] for p in keep}, **change}))

        refuses(machine, Stage.REVEAL_NONCES, rewrite(request, RevealNoncesRequest, forge), error)


def test_a_ring_that_the_server_made_up(cohort):
    """[M-11] A client MUST refuse a nonce that does not open its commitment, and keys of a client that is no
    neighbour, did not reveal its nonce, or committed to another one.
    """

    def other_nonce(message):
        nonces = dict(message.nonces.items())
        return dataclasses.replace(message, nonces=PositionedBlocks.of({**nonces, 5: bytes(32)}))

    def stranger(message):
        missing = next(p for p in range(12) if p not in message.advertisements)
        some = next(a for p, a in message.advertisements.items() if p != 0)
        return dataclasses.replace(message, advertisements={**message.advertisements, missing: some})

    def unrevealed(message):
        neighbour = next(p for p in message.advertisements if p != 0)
        nonces = {p: nonce for p, nonce in message.nonces.items() if p != neighbour}
        return dataclasses.replace(message, nonces=PositionedBlocks.of(nonces))

    def recommitted(message):
        neighbour = next(p for p in message.advertisements if p != 0)
        entry = dataclasses.replace(message.advertisements[neighbour], nonce_commitment=bytes(32))
        return dataclasses.replace(message, advertisements={**message.advertisements, neighbour: entry})

    for forge in (other_nonce, stranger, unrevealed, recommitted):
        federation = cohort(12, length=4, choices=RING)
        machine, request = at(federation, Stage.SHARE_KEYS)
        refuses(machine, Stage.SHARE_KEYS, rewrite(request, ShareKeysRequest, forge), SurvivorSetError)


def test_a_ring_whose_order_may_have_been_chosen(cohort):
    """[M-37] Where clients committed to nonces that are missing from the list of nonces, a client MUST refuse the ring
    unless its failure probability, times the number of orders that could be chosen by withholding so many, is within
    its policy.
    """
    choices = {"neighbours": 44, "threshold": 35, "corrupt": 24, "min_survivors": 108}
    for withheld, expected in ((0, None), (1, None), (2, PolicyError)):
        federation = cohort(120, length=4, choices=choices)
        policy = ClientPolicy(min_sigma=20)
        federation.machines["site-000"] = federation.machine("site-000", policy=policy)
        machine, request = at(federation, Stage.SHARE_KEYS)

        def withhold(message, count=withheld):
            nonces = dict(message.nonces.items())
            strangers = [position for position in nonces if position not in message.advertisements][:count]
            kept = {position: nonce for position, nonce in nonces.items() if position not in strangers}
            return dataclasses.replace(message, nonces=PositionedBlocks.of(kept))

        frame = rewrite(request, ShareKeysRequest, withhold)
        if expected is not None:
            refuses(machine, Stage.SHARE_KEYS, frame, expected)
        else:
            with contextlib.suppress(SurvivorSetError):  # another list of nonces is another ring
                machine.handle(Stage.SHARE_KEYS.value, frame)


def test_rings_that_are_begun_and_left(cohort):
    """[M-42] A client MUST NOT reveal a nonce when it has revealed 16 since it last helped to open a sum, and then MUST
    refuse a ring before it commits to one.
    """
    federation = cohort(12, length=4, choices=RING)
    machine = federation.machines["site-000"]
    for number in range(1, 17):
        federation.run_until(Stage.SHARE_KEYS, server=federation.server(number=number))
    other = federation.machine("site-000")
    reloaded = type(other).load(
        machine.dump(secrets=False),
        federation.identities["site-000"],
        federation.roster,
        federation.policy,
        federation.contribute,
    )
    for number, begun in ((17, machine), (18, reloaded)):
        federation.machines["site-000"] = begun
        requests = federation.run_until(Stage.ADVERTISE_KEYS, server=federation.server(number=number))
        with pytest.raises(PolicyError, match="rings in a row"):
            begun.handle(Stage.ADVERTISE_KEYS.value, requests["site-000"])
    full, late = cohort(12, length=4, choices=RING), Stage.REVEAL_NONCES
    machine, request = at(full, late)
    machine._rings = 16  # as of rings that were revealed after this one was committed to
    refuses(machine, late, request, PolicyError)


def test_a_hospital_that_has_begun_its_last_ring_ends_no_round_of_the_others(cohort):
    federation = cohort(12, length=4, choices=RING)
    policy = dataclasses.replace(federation.policy, max_rings=0)
    federation.machines["site-000"] = federation.machine("site-000", policy=policy)
    for number in (1, 2):
        assert len(federation.run(number=number).survivors) == 11


def test_an_opened_sum_makes_room_for_other_rings(cohort):
    federation = cohort(12, length=4, choices=RING)
    federation.policy = dataclasses.replace(federation.policy, max_rings=1)
    federation.machines = {name: federation.machine(name) for name in federation.names}
    for number in (1, 2):
        assert federation.run(number=number).total is not None


# Shares and pads


def test_too_few_dealers(cohort):
    """[M-20] A client MUST take pads with exactly the dealers that it is shown, and MUST refuse if fewer than t
    holders of its shares (itself counted on a complete graph) are among them.
    """
    federation = cohort(5)
    machine, request = at(federation, Stage.MASKED_INPUT_COLLECTION)
    frame = rewrite(request, MaskedInputRequest, lambda m: MaskedInputRequest({p: m.shares[p] for p in (1, 2)}))
    refuses(machine, Stage.MASKED_INPUT_COLLECTION, frame, TooFewSurvivorsError)


@pytest.mark.parametrize("forge", ["itself", "unknown", "unsealed"])
def test_dealers_that_the_server_made_up(cohort, forge):
    federation = cohort(5)
    machine, request = at(federation, Stage.MASKED_INPUT_COLLECTION)

    def change(message):
        shares = dict(message.shares)
        if forge == "unsealed":
            shares[1] = dataclasses.replace(shares[1], sealed=b"")
        else:
            shares = {**shares, (0 if forge == "itself" else 7): shares[1]}
        return MaskedInputRequest(shares)

    frame = rewrite(request, MaskedInputRequest, change)
    refuses(machine, Stage.MASKED_INPUT_COLLECTION, frame, SurvivorSetError)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda shares: {**shares, 2: dataclasses.replace(shares[2], sealed=flip(shares[2].sealed, 40))},
        lambda shares: {**shares, 2: dataclasses.replace(shares[2], sealed=shares[3].sealed)},
        lambda shares: {
            **shares,
            2: dataclasses.replace(shares[2], self_mask_commitment=flip(shares[2].self_mask_commitment, 0)),
        },
        lambda shares: {
            **shares,
            2: dataclasses.replace(shares[2], mask_key_commitment=flip(shares[2].mask_key_commitment, 15)),
        },
    ],
)
@pytest.mark.parametrize("dropped", [False, True])
def test_shares_that_do_not_open(cohort, tamper, dropped):
    """[M-21] Shares that do not open, or do not fit their commitments, MUST NOT be used; their dealer is reported as
    unusable, and the round goes on without that share.
    """
    federation = cohort(6, choices={"corrupt": 0, "threshold": 4})
    alter = Alter(
        "MaskedInputCollection",
        "down",
        lambda frame: rewrite(frame, MaskedInputRequest, lambda m: MaskedInputRequest(tamper(m.shares))),
        "site-000",
    )
    recorder = Recorder()
    drops = {"site-002": "MaskedInputCollection"} if dropped else {}
    result = federation.run(alter, recorder, drops=drops)
    assert result.complaints == {"site-000": ("site-002",)}
    assert np.array_equal(result.total.integers(), federation.expected(result.survivors))
    returned = decode_message(UnmaskingReply, recorder.find("Unmasking", "site-000", "up"), 10**6)[1].shares
    assert sorted(returned) == [0, 1, 3, 4, 5]


def test_secrets_are_erased_once_the_vector_is_masked(cohort):
    """[M-22] When its masked vector is made, a client MUST erase its mask key, its self-mask seed and all keys derived
    from them.
    """
    federation = cohort(5)
    machine, request = at(federation, Stage.MASKED_INPUT_COLLECTION)
    secrets = secrets_of(machine)
    assert len(secrets) == 2 + 4 + 1  # mask key, seed; four incoming keys; the client's share of its own seed
    machine.handle(Stage.MASKED_INPUT_COLLECTION.value, request)
    kept = secrets_of(machine)
    assert [secret for secret in secrets if not secret.is_erased] == [kept[-1]]
    assert {type(secret) for secret in kept} == {SelfMaskShare, MaskKeyShare}
