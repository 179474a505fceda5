"""The requirements of SPEC.md on a client, each tested against a server that breaks the rule."""

import contextlib
import dataclasses
import gc

import numpy as np
import pytest

from protocols import (
    AuthenticationError,
    ClientPolicy,
    DecodeError,
    IsolationError,
    ParameterError,
    PolicyError,
    ProtocolError,
    RingOverflowError,
    RoundParameters,
    SessionMismatchError,
    SpentError,
    StageOrderError,
    SurvivorSetError,
    ThreatModel,
    TooFewSurvivorsError,
)
from protocols.blocks import PositionedBlocks
from protocols.client.state import State
from protocols.errors import InputError, NonFiniteError, ShapeError
from protocols.messages import (
    AdvertiseKeysReply,
    AdvertiseKeysRequest,
    ConsistencyCheckRequest,
    MaskedInputReply,
    MaskedInputRequest,
    Refusal,
    RevealNoncesRequest,
    ShareKeysReply,
    ShareKeysRequest,
    UnmaskingReply,
    UnmaskingRequest,
    decode_message,
    encode_message,
)
from protocols.messages.consistency import SurvivorSet
from protocols.roster import Roster
from protocols.secret_values import MaskKeyShare, Secret, SelfMaskShare
from protocols.session import payload_digest, session_id
from protocols.simulator import DEFAULT_PAYLOAD, Alter, Recorder, SimulatedFederation, rewrite
from protocols.stages import Stage

RING = {"neighbours": 8, "threshold": 5, "corrupt": 0}


def at(federation: SimulatedFederation, stage: Stage, name: str | None = None, **choices):
    """Bring a federation to a stage; return one client's machine and its request there, unsent."""
    name = name or federation.names[0]
    requests = federation.run_until(stage, server=federation.server(**choices))
    return federation.machines[name], requests[name]


def refuses(machine, stage, frame, error):
    """The request is refused with this error, the round's secrets are gone, the round cannot go on."""
    state, secrets = machine._state, secrets_of(machine)
    assert secrets
    with pytest.raises(error) as caught:
        machine.handle(stage.value, frame)
    assert machine.expects is Stage.ADVERTISE_KEYS
    assert all(secret.is_erased for secret in secrets)
    if state is not None:
        with pytest.raises(SpentError):
            state.dump()
    return caught.value


def secrets_of(machine) -> list[Secret]:
    return [] if machine._state is None else list(machine._state._secrets())


def advertise_frame(federation, parameters: bytes, number=1, payload=DEFAULT_PAYLOAD, session=None) -> bytes:
    if session is None:
        session = session_id(RoundParameters.decode(parameters), payload_digest(payload))
    return encode_message(AdvertiseKeysRequest(parameters, payload), number, session)


# Round parameters and policy


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"threshold": 3}, ParameterError),
        ({"threshold": 6}, ParameterError),
        ({"corrupt": 2}, ParameterError),
        ({"corrupt": 3}, ParameterError),
        ({"min_survivors": 3}, ParameterError),
        ({"min_survivors": 6}, ParameterError),
        ({"neighbours": 3}, ParameterError),
        ({"neighbours": 5}, ParameterError),
        ({"ring_bits": 18}, RingOverflowError),
        ({"ring_bits": 63}, ParameterError),
        ({"max_coordinate": 1 << 18}, RingOverflowError),
        ({"noise_tail": 1 << 18}, RingOverflowError),
        ({"vector_length": 0}, ParameterError),
        ({"cohort": (0, 1, 2, 2, 4)}, ParameterError),
        ({"cohort": (1, 0, 2, 3, 4)}, ParameterError),
        ({"cohort": (0, 1)}, TooFewSurvivorsError),
        ({"cohort": (0,)}, TooFewSurvivorsError),
    ],
)
def test_parameters_that_break_a_rule(cohort, changes, error):
    """[M-1] A client MUST refuse parameters that break a rule of this section."""
    federation = cohort(5)
    parameters = federation.parameters()
    broken = object.__new__(RoundParameters)
    for field in dataclasses.fields(parameters):
        object.__setattr__(broken, field.name, changes.get(field.name, getattr(parameters, field.name)))
    frame = advertise_frame(federation, broken.encode(), session=bytes(32))
    with pytest.raises(error):
        federation.machines["site-000"].handle(Stage.ADVERTISE_KEYS.value, frame)
    with pytest.raises(error):
        dataclasses.replace(parameters, **changes)


@pytest.mark.parametrize(
    ("policy", "choices", "name"),
    [
        ({"min_cohort": 6}, {}, "cohort"),
        ({"min_threshold": 5}, {}, "threshold"),
        ({"min_corrupt": 2}, {}, "corrupt"),
        ({}, {"corrupt": 0, "min_survivors": 3}, "corrupt"),
        ({"min_honest_survivors": 4}, {}, "min_survivors"),
        ({}, {"threat_model": ThreatModel.SEMI_HONEST}, "threat_model"),
        ({"max_vector_length": 199}, {}, "vector_length"),
        ({"max_ring_bits": 18}, {}, "ring_bits"),
        ({"config_digest": bytes(32)}, {}, "config_digest"),
        ({"encoding_digest": bytes(32)}, {}, "encoding_digest"),
    ],
)
def test_parameters_below_the_policy(cohort, policy, choices, name):
    """[M-2] A client MUST refuse parameters below its own policy, before it makes any key."""
    federation = cohort(5)
    drawn = []
    federation.entropy["site-000"] = lambda length: drawn.append(length) or bytes(length)
    machine = federation.machine("site-000", policy=ClientPolicy(**policy))
    if name == "corrupt" and choices:
        choices = {"corrupt": 0, "min_survivors": 4, "threshold": 4}
    request = federation.server(**choices).requests(Stage.ADVERTISE_KEYS.value)["site-000"]
    with pytest.raises(PolicyError) as caught:
        machine.handle(Stage.ADVERTISE_KEYS.value, request)
    assert caught.value.name == name
    assert not drawn


def test_a_graph_that_is_not_complete_is_refused_for_small_cohorts_and_if_it_is_too_sparse(cohort):
    federation = cohort(120, length=4, choices={"neighbours": 30, "threshold": 20, "corrupt": 24})
    request = federation.server().requests(Stage.ADVERTISE_KEYS.value)["site-000"]
    for policy in (ClientPolicy(), ClientPolicy(complete_up_to=200), ClientPolicy(min_sigma=60)):
        with pytest.raises(PolicyError) as caught:
            federation.machine("site-000", policy=policy).handle(Stage.ADVERTISE_KEYS.value, request)
        assert caught.value.name == "neighbours"


def test_another_roster_is_refused(cohort):
    federation = cohort(5)
    other = Roster({**{name: key.public for name, key in federation.identities.items()}, "mallory": b"\x01" * 32})
    machine = federation.machine("site-000", roster=other)
    request = federation.server().requests(Stage.ADVERTISE_KEYS.value)["site-000"]
    with pytest.raises(PolicyError) as caught:
        machine.handle(Stage.ADVERTISE_KEYS.value, request)
    assert caught.value.name == "roster_digest"


def test_a_cohort_without_the_client_is_refused(cohort):
    federation = cohort(6)
    request = federation.server(cohort=federation.names[1:]).requests(Stage.ADVERTISE_KEYS.value)["site-001"]
    with pytest.raises(PolicyError):
        federation.machines["site-000"].handle(Stage.ADVERTISE_KEYS.value, request)


def test_the_session_id_is_that_of_what_arrived(cohort):
    """[M-3] A client MUST compute the session id from the bytes that it received, and refuse the round if the header
    names another.
    """
    federation = cohort(5)
    request = federation.server().requests(Stage.ADVERTISE_KEYS.value)["site-000"]
    changed = rewrite(request, AdvertiseKeysRequest, lambda m: dataclasses.replace(m, payload=b"the global modem"))
    with pytest.raises(SessionMismatchError):
        federation.machines["site-000"].handle(Stage.ADVERTISE_KEYS.value, changed)
    frame = advertise_frame(federation, federation.parameters(2).encode(), number=3)
    with pytest.raises(SessionMismatchError):
        federation.machines["site-000"].handle(Stage.ADVERTISE_KEYS.value, frame)


def test_keys_are_new_in_every_round(cohort):
    """[M-6] A client MUST draw both private keys, the seed and the nonce anew for each round from a cryptographic
    source of full entropy.
    """
    federation = cohort(12, length=4, choices=RING)
    seen = []
    for number in (1, 2):
        recorder = Recorder()
        federation.run(recorder, number=number)
        for name in federation.names:
            keys = decode_message(AdvertiseKeysReply, recorder.find("AdvertiseKeys", name, "up"), 10**6)[1]
            seen += [keys.advertisement.channel_public, keys.advertisement.mask_public]
            seen.append(keys.advertisement.nonce_commitment)
            shares = decode_message(ShareKeysReply, recorder.find("ShareKeys", name, "up"), 10**6)[1]
            seen.append(shares.seed_commitment)
    assert len(set(seen)) == len(seen)
    lengths = []
    federation.entropy["site-000"] = lambda length: lengths.append(length) or bytes([len(lengths)]) * length
    request = federation.server(number=3).requests(Stage.ADVERTISE_KEYS.value)["site-000"]
    federation.machine("site-000").handle(Stage.ADVERTISE_KEYS.value, request)
    assert lengths == [32, 32, 32, 32]


# One use, order, failure


def test_one_vector_is_masked_in_a_session(cohort):
    """[M-8] A client MUST mask at most one vector in a session."""
    federation = cohort(5)
    machine, request = at(federation, Stage.MASKED_INPUT_COLLECTION)
    state = machine._state
    machine.handle(Stage.MASKED_INPUT_COLLECTION.value, request)
    with pytest.raises(StageOrderError):
        machine.handle(Stage.MASKED_INPUT_COLLECTION.value, request)
    with pytest.raises(SpentError):
        state.handle(request, machine._environment)


@pytest.mark.parametrize("number", [0, 1])
def test_a_round_is_not_repeated(cohort, number):
    """[M-15] A client MUST NOT take part in a round whose number is not above that of every round it took part in
    before in the same run.
    """
    federation = cohort(4)
    federation.run(number=1)
    request = federation.server(number=number, payload=b"another").requests(Stage.ADVERTISE_KEYS.value)["site-000"]
    with pytest.raises(StageOrderError):
        federation.machines["site-000"].handle(Stage.ADVERTISE_KEYS.value, request)
    reloaded = type(federation.machines["site-000"]).load(
        federation.machines["site-000"].dump(),
        federation.identities["site-000"],
        federation.roster,
        federation.policy,
        federation.contribute,
    )
    with pytest.raises(StageOrderError):
        reloaded.handle(Stage.ADVERTISE_KEYS.value, request)


@pytest.mark.parametrize("stage", [s for s in Stage if s is not Stage.PLAIN_INPUT_COLLECTION])
def test_requests_out_of_order_change_nothing(cohort, stage):
    """[M-16] A request for another stage, round or session than the expected one MUST be refused and MUST NOT change
    anything.
    """
    federation = cohort(12, length=4, choices=RING)
    recorder, name = Recorder(), "site-003"
    federation.run(recorder, number=1)
    old = {s: recorder.find(s.value, name, "down") for s in federation.parameters().stages}
    requests = federation.run_until(stage, server=federation.server(number=2))
    machine = federation.machines[name]
    before = machine.dump()
    for replayed, frame in old.items():
        with pytest.raises(StageOrderError):
            machine.handle(replayed.value, frame)
        if stage is not Stage.ADVERTISE_KEYS and replayed is not Stage.ADVERTISE_KEYS:
            disguised = frame[:4] + requests[name][4:40] + frame[40:]
            if replayed is not stage:
                with pytest.raises(StageOrderError):
                    machine.handle(replayed.value, disguised)
                with pytest.raises((StageOrderError, DecodeError)):
                    machine.handle(stage.value, disguised)
    with pytest.raises(StageOrderError):
        machine.handle("Tea", requests[name])
    assert machine.dump() == before
    machine.handle(stage.value, requests[name])


@pytest.mark.parametrize("stage", [s for s in Stage if s not in (Stage.PLAIN_INPUT_COLLECTION, Stage.ADVERTISE_KEYS)])
def test_a_malformed_request_ends_the_round(cohort, stage):
    """[M-17] When an expected request is refused, or training fails, the client MUST erase the round's secrets and
    MUST NOT resume the round.
    """
    federation = cohort(12, length=4, choices=RING)
    machine, request = at(federation, stage)
    shorter = request[:40] + (len(request) - 45).to_bytes(4, "little") + request[44:-1]
    refuses(machine, stage, shorter, ProtocolError)
    with pytest.raises(StageOrderError):
        machine.handle(stage.value, request)


@pytest.mark.parametrize("failure", [ZeroDivisionError, KeyboardInterrupt])
def test_training_that_fails_ends_the_round(cohort, failure):
    federation = cohort(5)

    def contribute(context):
        raise failure

    federation.machines["site-000"] = federation.machine("site-000", contribute=contribute)
    machine, request = at(federation, Stage.MASKED_INPUT_COLLECTION)
    refuses(machine, Stage.MASKED_INPUT_COLLECTION, request, failure)


def test_a_contribution_of_another_codec_ends_the_round(cohort):
    federation = cohort(5)
    other = cohort(5, length=201)
    federation.machines["site-000"] = federation.machine("site-000", contribute=other.contribute)
    machine, request = at(federation, Stage.MASKED_INPUT_COLLECTION)
    refuses(machine, Stage.MASKED_INPUT_COLLECTION, request, ShapeError)


def test_an_update_with_nan_drops_its_client_and_nobody_else(cohort):
    federation = cohort(5)
    bad = np.full(200, np.nan, dtype=np.float32)
    federation.machines["site-002"] = federation.machine(
        "site-002", contribute=lambda context: federation.codec.encode(bad, np.random.default_rng(0))
    )
    result = federation.run()
    assert result.dropouts == {"site-002": "MaskedInputCollection"}
    assert result.rejections[0].error.refusal_code == InputError.code == NonFiniteError.code
    survivors = [name for name in federation.names if name != "site-002"]
    assert np.array_equal(result.total.integers(), federation.expected(survivors))


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
    twice or a client outside the cohort, or has fewer than t holders (complete graph: than min_survivors).
    """
    federation = cohort(5)
    machine, request = at(federation, Stage.SHARE_KEYS)
    frame = rewrite(
        request, ShareKeysRequest, lambda m: dataclasses.replace(m, advertisements=change(m.advertisements))
    )
    refuses(machine, Stage.SHARE_KEYS, frame, error)


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
    choices = {"neighbours": 40, "threshold": 31, "corrupt": 24, "min_survivors": 108}
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


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


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


# Survivor sets and shares returned


def survivor_frames(federation, positions, clients=5):
    def change(message):
        return dataclasses.replace(message, survivors=SurvivorSet.of(clients, positions))

    return change


@pytest.mark.parametrize(
    ("positions", "clients", "error"),
    [
        ({1, 2, 3, 4}, 5, SurvivorSetError),
        ({0, 1, 2}, 5, TooFewSurvivorsError),
        ({0, 1, 2, 3}, 4, SurvivorSetError),
        ({0, 1, 2, 3, 4, 5}, 6, SurvivorSetError),
    ],
)
def test_survivor_sets_that_cannot_be(cohort, positions, clients, error):
    """[M-23] A client MUST refuse a survivor set of another cohort size, without itself, with fewer than min_survivors
    clients, with fewer than t surviving holders of its shares, or (complete graph) with a client that never dealt to
    it.
    """
    change = None
    for threat_model, stage, kind in (
        (ThreatModel.ACTIVE, Stage.CONSISTENCY_CHECK, ConsistencyCheckRequest),
        (ThreatModel.SEMI_HONEST, Stage.UNMASKING, UnmaskingRequest),
    ):
        federation = cohort(5, threat_model=threat_model, choices={"threshold": 4, "min_survivors": 4})
        machine, request = at(federation, stage)
        change = survivor_frames(federation, positions, clients)
        refuses(machine, stage, rewrite(request, kind, change), error)


def test_a_survivor_that_never_dealt(cohort):
    federation = cohort(6, choices={"corrupt": 0, "threshold": 4})
    server = federation.server()
    lost = federation.machines.pop("site-005")
    assert lost
    machine, request = federation.machines["site-000"], federation.run_until(Stage.CONSISTENCY_CHECK, server=server)
    change = survivor_frames(federation, {0, 1, 2, 3, 4, 5}, 6)
    frame = rewrite(request["site-000"], ConsistencyCheckRequest, change)
    refuses(machine, Stage.CONSISTENCY_CHECK, frame, SurvivorSetError)


def test_too_few_surviving_holders_on_a_ring(cohort):
    federation = cohort(12, length=4, choices=RING)
    server = federation.server()
    _, request = at(federation, Stage.SHARE_KEYS)
    neighbours = [p for p in decode_message(ShareKeysRequest, request, 10**6)[1].advertisements if p != 0]
    federation = cohort(12, length=4, choices=RING)
    requests = federation.run_until(Stage.CONSISTENCY_CHECK, server=server)
    kept = set(range(12)) - set(neighbours[:4])
    frame = rewrite(requests["site-000"], ConsistencyCheckRequest, survivor_frames(federation, kept, 12))
    refuses(federation.machines["site-000"], Stage.CONSISTENCY_CHECK, frame, TooFewSurvivorsError)


@pytest.mark.parametrize("threat_model", ThreatModel)
@pytest.mark.parametrize("lost", [1, 2])
def test_a_second_sum_over_one_model_that_singles_out_a_client(cohort, lost, threat_model):
    """[M-24] A client MUST refuse a survivor set other than the one that it opened over the same model before."""
    federation = cohort(8, choices={"corrupt": 0, "threshold": 5, "min_survivors": 5}, threat_model=threat_model)
    federation.run(number=1)
    drops = dict.fromkeys(federation.names[:lost], "MaskedInputCollection")
    with pytest.raises(TooFewSurvivorsError):
        federation.run(drops=drops, number=2)
    federation.run(number=3)
    federation.run(drops=drops, number=4, server=federation.server(4, payload=b"the next model"))
    stage = Stage.CONSISTENCY_CHECK if threat_model is ThreatModel.ACTIVE else Stage.UNMASKING
    for name in federation.names[:lost]:
        federation.machines.pop(name)
    requests = federation.run_until(stage, server=federation.server(5))
    machine = federation.machines["site-007"]
    error = refuses(machine, stage, requests["site-007"], IsolationError)
    assert error.clients == tuple(federation.names[:lost])


def test_one_survivor_set_is_signed(cohort):
    """[M-25] A client MUST sign at most one survivor set in a session."""
    federation = cohort(5)
    machine, request = at(federation, Stage.CONSISTENCY_CHECK)
    state = machine._state
    machine.handle(Stage.CONSISTENCY_CHECK.value, request)
    other = rewrite(request, ConsistencyCheckRequest, survivor_frames(federation, {0, 1, 2, 3}))
    for frame in (request, other):
        with pytest.raises(StageOrderError):
            machine.handle(Stage.CONSISTENCY_CHECK.value, frame)
        with pytest.raises(SpentError):
            state.handle(frame, machine._environment)


def test_shares_without_a_quorum_over_the_signed_set(cohort):
    """[M-26] In an active round a client MUST NOT return any share before it has verified, over the very set that it
    signed, the signatures of at least t different surviving holders of its shares.
    """
    for change, error in (
        (lambda m: dataclasses.replace(m, survivors=SurvivorSet.of(5, {0, 1, 2, 3})), SurvivorSetError),
        (lambda m: dataclasses.replace(m, signatures={}), TooFewSurvivorsError),
        (lambda m: dataclasses.replace(m, signatures={p: m.signatures[p] for p in (0, 1, 2)}), TooFewSurvivorsError),
        (lambda m: dataclasses.replace(m, signatures={**m.signatures, 3: m.signatures[2]}), AuthenticationError),
        (
            lambda m: dataclasses.replace(m, signatures={**m.signatures, 3: flip(m.signatures[3], 5)}),
            AuthenticationError,
        ),
        (lambda m: dataclasses.replace(m, signatures={**m.signatures, 77: m.signatures[2]}), SurvivorSetError),
    ):
        federation = cohort(5)
        machine, request = at(federation, Stage.UNMASKING)
        refuses(machine, Stage.UNMASKING, rewrite(request, UnmaskingRequest, change), error)


def test_signatures_of_another_session_make_no_quorum(cohort):
    federation = cohort(5)
    _, earlier = at(federation, Stage.UNMASKING)
    old = decode_message(UnmaskingRequest, earlier, 10**6)[1].signatures
    requests = federation.run_until(Stage.UNMASKING, server=federation.server(2))
    frame = rewrite(requests["site-000"], UnmaskingRequest, lambda m: dataclasses.replace(m, signatures=old))
    refuses(federation.machines["site-000"], Stage.UNMASKING, frame, AuthenticationError)


def test_signatures_in_a_semi_honest_round_are_refused(cohort):
    federation = cohort(5, threat_model=ThreatModel.SEMI_HONEST)
    machine, request = at(federation, Stage.UNMASKING)
    frame = rewrite(request, UnmaskingRequest, lambda m: dataclasses.replace(m, signatures={1: bytes(64)}))
    refuses(machine, Stage.UNMASKING, frame, SurvivorSetError)


@pytest.mark.parametrize("threat_model", ThreatModel)
def test_one_kind_of_share_for_each_owner(cohort, threat_model):
    """[M-27] For each owner a client MUST return at most one share, of the self-mask seed if the owner is in the
    survivor set and of the mask key if it is not, and MUST NOT take any other wish of the server into account.
    """
    federation, recorder = cohort(5, threat_model=threat_model), Recorder()
    federation.run(recorder, drops={"site-003": "MaskedInputCollection"})
    for name in ("site-000", "site-001", "site-002", "site-004"):
        shares = decode_message(UnmaskingReply, recorder.find("Unmasking", name, "up"), 10**6)[1].shares
        kinds = {owner: type(share) for owner, share in shares.items()}
        assert kinds == {**dict.fromkeys((0, 1, 2, 4), SelfMaskShare), 3: MaskKeyShare}


@pytest.mark.parametrize("threat_model", ThreatModel)
def test_nothing_is_left_after_the_round(cohort, threat_model):
    """[M-28] After Unmasking a client MUST erase everything of the round."""
    federation = cohort(5, threat_model=threat_model)
    machine, request = at(federation, Stage.UNMASKING)
    secrets = secrets_of(machine)
    assert secrets
    machine.handle(Stage.UNMASKING.value, request)
    assert machine._state is None
    assert all(secret.is_erased for secret in secrets)
    gc.collect()
    states = [thing for thing in gc.get_objects() if issubclass(type(thing), State)]  # looks at nobody's attributes
    alive = [state for state in states if state.session.position == 0]
    assert not any(not secret.is_erased for state in alive for secret in state._secrets())


def test_refusals_say_nothing_but_class_and_position(cohort):
    """[M-29] A refusal MUST carry nothing but the class of the reason and the position of the client that it names."""
    federation = cohort(5)
    machine, request = at(federation, Stage.SHARE_KEYS)

    def substitute(message):
        other = dataclasses.replace(message.advertisements[3], mask_public=b"\x09" + bytes(31))
        return dataclasses.replace(message, advertisements={**message.advertisements, 3: other})

    answer = machine.answer(Stage.SHARE_KEYS.value, rewrite(request, ShareKeysRequest, substitute))
    header, refusal = decode_message(Refusal, answer, 48)
    assert refusal == Refusal(AuthenticationError.code, 3)
    assert header.session_id == federation.server().session_id
    assert len(answer) == 48


def test_a_refusal_names_the_client_in_the_result(cohort):
    federation = cohort(6, choices={"corrupt": 0, "threshold": 4})

    def substitute(message):
        other = dataclasses.replace(message.advertisements[3], mask_public=b"\x09" + bytes(31))
        return dataclasses.replace(message, advertisements={**message.advertisements, 3: other})

    alter = Alter("ShareKeys", "down", lambda frame: rewrite(frame, ShareKeysRequest, substitute), "site-001")
    result = federation.run(alter)
    assert result.dropouts == {"site-001": "ShareKeys"}
    assert [(r.client, r.error.refusal_code, r.error.subject) for r in result.rejections] == [
        ("site-001", AuthenticationError.code, "site-003")
    ]


# State between stages


@pytest.mark.parametrize("threat_model", ThreatModel)
@pytest.mark.parametrize("ring", [False, True])
def test_a_client_may_be_stored_between_any_two_stages(cohort, threat_model, ring):
    federation = cohort(12, length=4, choices=RING if ring else {}, threat_model=threat_model)

    class Stored:
        """A process that serves one message only."""

        def __init__(self, name):
            self.name, self.dump = name, federation.machines[name].dump()

        def answer(self, stage, data):
            machine = type(federation.machine(self.name)).load(
                self.dump,
                federation.identities[self.name],
                federation.roster,
                federation.policy,
                federation.contribute,
                federation.entropy[self.name],
                verifier=federation.verifier,
            )
            reply = machine.answer(stage, data)
            self.dump = machine.dump()
            return reply

    federation.machines = {name: Stored(name) for name in federation.names}
    result = federation.run(drops={"site-004": "MaskedInputCollection"})
    assert np.array_equal(result.total.integers(), federation.expected(result.survivors))
    result = federation.run(number=2, server=federation.server(2, payload=b"the next model"))
    assert len(result.survivors) == 12


@pytest.mark.parametrize("stage", [s for s in Stage if s is not Stage.PLAIN_INPUT_COLLECTION])
def test_a_damaged_store_is_refused(cohort, stage):
    federation = cohort(12, length=4, choices=RING)
    machine, _ = at(federation, stage)
    dump = machine.dump()
    arguments = (federation.identities["site-000"], federation.roster, federation.policy, federation.contribute)
    assert type(machine).load(dump, *arguments).dump() == dump
    for damaged in (b"", b"XXXX" + dump[4:], dump[:-1], dump + b"\0"):
        with pytest.raises(DecodeError):
            type(machine).load(damaged, *arguments)


def test_a_spent_machine_holds_no_dump_of_the_old_state(cohort):
    federation = cohort(5)
    machine, request = at(federation, Stage.MASKED_INPUT_COLLECTION)
    state = machine._state
    machine.handle(Stage.MASKED_INPUT_COLLECTION.value, request)
    with pytest.raises(SpentError):
        state.dump()


def test_a_masked_vector_covers_every_coordinate(cohort):
    """Equal inputs, different pads: two clients' masked vectors agree in a coordinate with probability 2**-18."""
    federation, recorder = cohort(4), Recorder()
    federation.run(recorder)
    frames = [recorder.find("MaskedInputCollection", name, "up") for name in federation.names]
    packed = [bytes(decode_message(MaskedInputReply, frame, 10**6)[1].packed) for frame in frames]
    assert len(set(packed)) == 4
