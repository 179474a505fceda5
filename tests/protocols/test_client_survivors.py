"""Requirements of SPEC.md on a client against servers that break them: survivors, shares returned, stored state."""

import dataclasses
import gc

import numpy as np
import pytest

from protocols import (
    AuthenticationError,
    DecodeError,
    IsolationError,
    SpentError,
    StageOrderError,
    SurvivorSetError,
    ThreatModel,
    TooFewSurvivorsError,
)
from protocols.client.state import State
from protocols.messages import (
    ConsistencyCheckRequest,
    MaskedInputReply,
    MaskedInputRequest,
    Refusal,
    ShareKeysRequest,
    UnmaskingReply,
    UnmaskingRequest,
    decode_message,
    encode_message,
)
from protocols.messages.consistency import SurvivorSet
from protocols.parameters import ring_quorum
from protocols.secret_values import MaskKeyShare, SelfMaskShare
from protocols.simulator import Alter, Recorder, rewrite
from protocols.stages import Stage
from tests.protocols.hostile_server import RING, at, flip, refuses, secrets_of, survivor_frames


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
    clients, with fewer than t surviving holders of its shares, or with a neighbour (on a complete graph: a client)
    that never dealt to it.
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


def test_a_neighbour_on_a_ring_that_never_dealt(cohort):
    """A server that passes on nothing between two neighbours, and keeps both in the set, would cut the ring there."""
    federation = cohort(12, length=4, choices=RING)
    machine, request = at(federation, Stage.MASKED_INPUT_COLLECTION)

    def hide_one(message):
        return dataclasses.replace(message, shares=dict(sorted(message.shares.items())[1:]))

    machine.handle(Stage.MASKED_INPUT_COLLECTION.value, rewrite(request, MaskedInputRequest, hide_one))
    frame = encode_message(ConsistencyCheckRequest(SurvivorSet.of(12, range(12))), 1, machine._state.session.session_id)
    error = refuses(machine, Stage.CONSISTENCY_CHECK, frame, SurvivorSetError)
    assert "never shared its keys" in str(error)


@pytest.mark.parametrize("threat_model", ThreatModel)
@pytest.mark.parametrize("lost", [1, 2])
def test_a_second_sum_over_one_model_that_singles_out_a_client(cohort, lost, threat_model):
    """[M-24] A client MUST refuse a survivor set other than the one that it opened over the same model before, unless
    its vector in one of the two was constant.
    """
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
    signed, the signatures of at least q different clients of it.
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


def test_signatures_of_all_neighbours_make_no_quorum_on_a_ring(cohort):
    """There the quorum is two thirds of roster and colluders, of any clients in the set."""
    federation = cohort(12, length=4, choices=RING)
    machine, request = at(federation, Stage.UNMASKING)
    shown = decode_message(UnmaskingRequest, request, 10**6)[1].signatures
    assert len(shown) == ring_quorum(12, 0) == 8 > RING["threshold"]
    fewer = dict(sorted(shown.items())[1:])
    frame = rewrite(request, UnmaskingRequest, lambda m: dataclasses.replace(m, signatures=fewer))
    error = refuses(machine, Stage.UNMASKING, frame, TooFewSurvivorsError)
    assert (error.survivors, error.required) == (7, 8)


def test_a_ring_that_loses_its_quorum_reveals_nothing(cohort):
    federation = cohort(12, length=4, choices=RING)
    drops = dict.fromkeys(federation.names[:5], "ConsistencyCheck")
    with pytest.raises(TooFewSurvivorsError) as caught:
        federation.run(drops=drops)
    assert (caught.value.stage, caught.value.survivors, caught.value.required) == ("ConsistencyCheck", 7, 8)
    assert not any(machine.participation.rows for machine in federation.machines.values())


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


def substitute(message):
    other = dataclasses.replace(message.advertisements[3], mask_public=b"\x09" + bytes(31))
    return dataclasses.replace(message, advertisements={**message.advertisements, 3: other})


def test_refusals_say_nothing_but_class_and_position(cohort):
    """[M-29] A refusal MUST carry nothing but the class of the reason and the position of the client that it names."""
    federation = cohort(5)
    machine, request = at(federation, Stage.SHARE_KEYS)

    answer = machine.answer(Stage.SHARE_KEYS.value, rewrite(request, ShareKeysRequest, substitute))
    header, refusal = decode_message(Refusal, answer, 48)
    assert refusal == Refusal(AuthenticationError.code, 3)
    assert header.session_id == federation.server().session_id
    assert len(answer) == 48


def test_a_refusal_names_the_client_in_the_result(cohort):
    federation = cohort(6, choices={"corrupt": 0, "threshold": 4})

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
    with pytest.raises(DecodeError, match="another version; end the study with that one"):
        type(machine).load(b"SFC0" + dump[4:], *arguments)


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
