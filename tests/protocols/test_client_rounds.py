"""Requirements of SPEC.md on a client against servers that break them: parameters, policy, one use, order, failure."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest

import protocols.client
from protocols import (
    ClientPolicy,
    DecodeError,
    ParameterError,
    PolicyError,
    ProtocolError,
    RingOverflowError,
    RoundParameters,
    SessionMismatchError,
    SpentError,
    StageOrderError,
    ThreatModel,
    TooFewSurvivorsError,
)
from protocols.attacks.noise import noisy_scene
from protocols.errors import InputError, NonFiniteError, ShapeError
from protocols.messages import (
    AdvertiseKeysReply,
    AdvertiseKeysRequest,
    ShareKeysReply,
    decode_message,
)
from protocols.roster import Roster
from protocols.simulator import Recorder, rewrite
from protocols.stages import Stage
from tests.protocols.hostile_server import RING, advertise_frame, at, made_from_now_on, refuses

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


def test_a_cohort_beyond_the_roster_is_refused(cohort):
    federation = cohort(5)
    parameters = federation.parameters()
    beyond = dataclasses.replace(parameters, cohort=(0, 1, 2, 3, 5))
    ClientPolicy().check(parameters, federation.roster)
    with pytest.raises(PolicyError) as caught:
        ClientPolicy().check(beyond, federation.roster)
    assert (caught.value.name, caught.value.offered, caught.value.required) == ("cohort", 5, "at most 4")


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


def test_a_forged_number_keeps_a_client_out_of_no_later_round(cohort):
    federation = cohort(4)
    federation.run(number=1)
    forged = federation.server(number=(1 << 32) - 1).requests(Stage.ADVERTISE_KEYS.value)["site-000"]
    machine = federation.machines["site-000"]
    machine.handle(Stage.ADVERTISE_KEYS.value, forged)
    assert machine.last_round == (1 << 32) - 1
    with pytest.raises(StageOrderError):
        machine.handle(Stage.ADVERTISE_KEYS.value, forged)
    federation.machines["site-000"] = type(machine).load(
        machine.dump(secrets=False),
        federation.identities["site-000"],
        federation.roster,
        federation.policy,
        federation.contribute,
    )
    result = federation.run(number=2, server=federation.server(number=2, payload=b"the next model"))
    assert "site-000" in result.survivors


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


def test_no_share_of_another_is_left_where_training_fails(cohort, monkeypatch):
    def contribute(context):
        raise ZeroDivisionError

    federation = cohort(5)
    federation.machines["site-000"] = federation.machine("site-000", contribute=contribute)
    machine, request = at(federation, Stage.MASKED_INPUT_COLLECTION)
    made = made_from_now_on(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        machine.handle(Stage.MASKED_INPUT_COLLECTION.value, request)
    assert len(made) >= 8
    assert all(secret.is_erased for secret in made)


@pytest.mark.parametrize("failure", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("stage", "step"),
    [
        (Stage.SHARE_KEYS, "dealing.sealing_keys"),
        (Stage.SHARE_KEYS, "dealing.seal_shares"),
        (Stage.SHARE_KEYS, "noise_shares.seal_noise_shares"),
        (Stage.MASKED_INPUT_COLLECTION, "shares_dealt.pairwise_seed"),
        (Stage.MASKED_INPUT_COLLECTION, "shares_dealt.mask"),
    ],
)
def test_no_secret_is_left_where_a_step_of_many_fails(monkeypatch, stage, step, failure):
    """Those that were made for the peers before, too: with noise in shares, three kinds for each."""
    scene = noisy_scene()[0]
    scene.play(stage)
    name = scene.names[0]
    request = scene.server.requests(stage.value)[name]
    made, calls = made_from_now_on(monkeypatch), itertools.count(1)
    original = functools.reduce(getattr, step.split("."), protocols.client)

    def fails_late(*arguments):
        if next(calls) == (1 if step.endswith(".mask") else 3):
            raise failure
        return original(*arguments)

    monkeypatch.setattr(f"protocols.client.{step}", fails_late)
    with pytest.raises(failure):
        scene.federation.machines[name].handle(stage.value, request)
    assert len(made) >= 10
    assert [secret for secret in made if not secret.is_erased] == []


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


def test_a_request_that_comes_again_ends_no_later_round(cohort):
    """Its number is below that of the round in progress, and nobody has dealt shares in either."""
    federation = cohort(4, length=4)
    machine = federation.machines["site-000"]
    frames = {
        number: federation.run_until(Stage.ADVERTISE_KEYS, server=federation.server(number=number))["site-000"]
        for number in (5, 6)
    }
    for number in (5, 6):
        machine.handle(Stage.ADVERTISE_KEYS.value, frames[number])
    before = machine.dump()
    for again in (5, 6):
        with pytest.raises(StageOrderError):
            machine.handle(Stage.ADVERTISE_KEYS.value, frames[again])
    assert machine.dump() == before
    assert machine.last_round == 6
