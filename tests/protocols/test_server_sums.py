"""The requirements of SPEC.md on the server: shares, secrets, thresholds and what is kept of a sum."""

import dataclasses
import sys

import numpy as np
import pytest

from protocols import (
    AggregateError,
    DecodeError,
    ParameterError,
    ReconstructionError,
    Roster,
    ServerMachine,
    SessionMismatchError,
    StageOrderError,
    ThreatModel,
    TooFewSurvivorsError,
)
from protocols.client import dealing
from protocols.commitments import commit_to_share
from protocols.messages import (
    AdvertiseKeysRequest,
    DealtShares,
    MaskedInputReply,
    UnmaskingReply,
    decode_message,
    encode_message,
)
from protocols.secret_values import MaskKeyShare, SelfMaskShare
from protocols.server.input_collection import CollectingInputs
from protocols.simulator import DEFAULT_PAYLOAD, Alter, Recorder, rewrite
from protocols.stages import Stage
from protocols.wire import Reader
from tests.protocols.hostile_clients import EASY, check_sum, flip, forged
from tests.protocols.hostile_server import RING


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize(
    "forge",
    [
        lambda share: type(share)(flip(share.expose(), 7)),
        lambda share: type(share)(b"\xff" * 36),
        lambda share: type(share)(bytes(36)),
        lambda share: (MaskKeyShare if isinstance(share, SelfMaskShare) else SelfMaskShare)(share.expose()),
    ],
)
def test_wrong_shares_are_traced_to_their_sender(cohort, forge, dropped):
    """[M-32] The server MUST leave out a share that does not fit its owner's commitment, name the holder that sent it,
    and use the other shares.
    """
    federation = cohort(7, choices=EASY)
    liars = ["site-001", "site-005"]
    alterations = [
        Alter(
            "Unmasking",
            "up",
            forged(UnmaskingReply, lambda m: UnmaskingReply({owner: forge(s) for owner, s in m.shares.items()})),
            liar,
        )
        for liar in liars
    ]
    drops = {"site-003": "MaskedInputCollection"} if dropped else {}
    result = federation.run(*alterations, drops=drops)
    check_sum(federation, result, without=tuple(drops))
    assert sorted({r.client for r in result.rejections}) == liars
    assert len(result.rejections) == 2 * 7
    assert "share of site-000" in {r.error.what for r in result.rejections}


def test_a_share_of_another_holder_is_wrong(cohort):
    federation, recorder = cohort(6, choices=EASY), Recorder()

    def swap(frame):
        others = decode_message(UnmaskingReply, recorder.find("Unmasking", "site-000", "up"), 10**6)[1].shares
        return rewrite(frame, UnmaskingReply, lambda m: UnmaskingReply({**m.shares, 3: others[3]}))

    result = federation.run(recorder, Alter("Unmasking", "up", swap, "site-004"))
    check_sum(federation, result)
    assert [(r.client, r.error.what) for r in result.rejections] == [("site-004", "share of site-003")]


def deal_wrongly(federation, dealer, holders, broken):
    """The dealer gives some holders points that are on no common polynomial, under correct seals and commitments."""
    machine = federation.machines[dealer]
    real = dealing.split

    def crooked(secrets, points, threshold, entropy):
        shares = real(secrets, points, threshold, entropy)
        for kind in broken:
            for holder in holders:
                shares[kind][holder] = flip(shares[kind][holder], 5 * holder)
        return shares

    class Crooked:
        def answer(self, stage, data):
            dealing.split = crooked if stage == "ShareKeys" else real
            try:
                return machine.answer(stage, data)
            finally:
                dealing.split = real

    federation.machines[dealer] = Crooked()


@pytest.mark.parametrize("dropped", [False, True])
def test_secrets_are_verified_after_rebuilding(cohort, dropped):
    """[M-33] A rebuilt mask key MUST give the advertised public key and a rebuilt seed its commitment; where a subset
    of shares does not, others are tried, then the owner is named and the round ends.
    """
    drops = {"site-002": "MaskedInputCollection"} if dropped else {}
    federation = cohort(7, choices=EASY)
    deal_wrongly(federation, "site-002", [6], broken=(0, 1))
    check_sum(federation, federation.run(drops=drops), without=tuple(drops))
    federation = cohort(7, choices=EASY)
    deal_wrongly(federation, "site-002", [0], broken=(0, 1))
    check_sum(federation, federation.run(drops=drops), without=tuple(drops))
    federation = cohort(7, choices=EASY)
    deal_wrongly(federation, "site-002", [0, 3, 4, 5], broken=(0, 1))
    with pytest.raises(ReconstructionError) as caught:
        federation.run(drops=drops)
    assert caught.value.owner == "site-002"


@pytest.mark.parametrize("threat_model", ThreatModel)
@pytest.mark.parametrize(
    "stage", ["AdvertiseKeys", "ShareKeys", "MaskedInputCollection", "ConsistencyCheck", "Unmasking"]
)
def test_below_the_threshold_the_round_ends_with_numbers(cohort, stage, threat_model):
    """[M-34] With fewer clients or shares than a stage needs the round MUST end with an error that names stage, number
    and need, and the client whose shares are too few where enough clients are left, and open nothing.
    """
    federation, recorder = (
        cohort(7, threat_model=threat_model, choices={"threshold": 5, "min_survivors": 5}),
        Recorder(),
    )
    server = federation.server()
    with pytest.raises(TooFewSurvivorsError) as caught:
        federation.run(recorder, drops=dict.fromkeys(federation.names[:3], stage), server=server)
    expected = "Unmasking" if threat_model is ThreatModel.SEMI_HONEST and stage == "ConsistencyCheck" else stage
    assert (caught.value.stage, caught.value.survivors, caught.value.required) == (expected, 4, 5)
    assert caught.value.shares_of == ""
    assert server.result is None
    assert set(server.dropouts) == set(federation.names[:3])
    shared = [name for s, name, way, _ in recorder.transcript if (s, way) == ("Unmasking", "up")]
    assert len(shared) == (4 if expected == "Unmasking" else 0)


def test_each_owner_needs_its_own_threshold(cohort):
    federation = cohort(6, choices=EASY)
    alterations = [
        Alter(
            "Unmasking",
            "up",
            forged(UnmaskingReply, lambda m: UnmaskingReply({o: s for o, s in m.shares.items() if o != 3})),
            name,
        )
        for name in federation.names[:3]
    ]
    with pytest.raises(TooFewSurvivorsError) as caught:
        federation.run(*alterations)
    assert (caught.value.survivors, caught.value.required, caught.value.shares_of) == (3, 4, "site-003")


def test_a_ring_that_lost_the_neighbours_of_one_client_says_whose(cohort):
    """Eight of twelve answered and five are needed: the number is that of those who hold shares of one."""
    federation = cohort(12, length=4, choices=RING)
    server = federation.server()
    federation.run_until(Stage.UNMASKING, server=server)
    holders = server._state._dealings.holders(5)
    gone = [federation.names[holder] for holder in holders if holder != 5][:4]
    with pytest.raises(TooFewSurvivorsError) as caught:
        cohort(12, length=4, choices=RING).run(drops=dict.fromkeys(gone, "Unmasking"))
    error = caught.value
    assert (error.stage, error.survivors < 5, error.required) == ("Unmasking", True, 5)
    assert str(error) == (
        f"of the clients that hold shares of {error.shares_of}, {error.survivors} are left at Unmasking, 5 are needed: "
        "nothing was revealed"
    )
    position = federation.names.index(error.shares_of)
    left = {federation.names[holder] for holder in server._state._dealings.holders(position)} - set(gone)
    assert len(left) == error.survivors


def test_a_total_with_pads_left_in_it_is_refused(cohort):
    """A client that masks with other pads than it agreed to: the sum is noise, and the server says so."""
    federation = cohort(5)
    noise = np.random.default_rng(0).bytes(475)
    alter = Alter(
        "MaskedInputCollection",
        "up",
        forged(MaskedInputReply, lambda m: dataclasses.replace(m, packed=noise)),
        "site-001",
    )
    with pytest.raises(AggregateError):
        federation.run(alter)


def test_only_the_sum_of_masked_vectors_is_kept(cohort):
    """[M-36] The server MUST add masked vectors as they come and keep none of them."""
    federation = cohort(5, length=50_000)
    server = federation.server()
    requests = federation.run_until(Stage.MASKED_INPUT_COLLECTION, server=server)
    state = server._state
    assert isinstance(state, CollectingInputs)
    for name, request in requests.items():
        before = reachable_bytes(state)
        reply = federation.machines[name].answer("MaskedInputCollection", request)
        assert len(reply) > 100_000
        server.absorb("MaskedInputCollection", {name: reply})
        assert reachable_bytes(state) - before < 5_000


def reachable_bytes(root):
    """Bytes of all arrays, bytes and containers that hang on an object."""
    seen, todo, total = set(), [root], 0
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, type):
            continue
        seen.add(id(item))
        total += sys.getsizeof(item)
        if isinstance(item, dict):
            todo += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set, frozenset)):
            todo += list(item)
        elif isinstance(item, np.ndarray):
            todo += [] if item.base is None else [item.base]
        else:
            todo += [getattr(item, slot) for slot in getattr(type(item), "__slots__", ()) if hasattr(item, slot)]
            todo += [vars(item)] if hasattr(item, "__dict__") else []
    return total


def test_stages_come_in_order_at_the_server(cohort):
    federation = cohort(5)
    server = federation.server()
    for call in (server.requests, lambda stage: server.absorb(stage, {}), server.conclude):
        with pytest.raises(StageOrderError):
            call("ShareKeys")
    federation.run(server=server)
    with pytest.raises(StageOrderError):
        server.requests("AdvertiseKeys")


def test_a_client_with_another_model_is_named(cohort):
    """The server sends one client another model: its keys do not enter the session, and it is named."""
    federation = cohort(6, choices=EASY)
    other = ServerMachine(federation.parameters(), federation.roster, b"another model")

    def swap(frame):
        message = AdvertiseKeysRequest(federation.parameters().encode(), b"another model")
        return encode_message(message, 1, other.session_id)

    result = federation.run(Alter("AdvertiseKeys", "down", swap, "site-003"))
    assert result.dropouts == {"site-003": "AdvertiseKeys"}
    assert isinstance(result.rejections[0].error, SessionMismatchError)
    assert result.rejections[0].error.peer == "site-003"


def test_clients_refuse_a_client_with_another_model(cohort):
    """The server itself shows two models and passes the keys on: signatures fail at both ends, by name."""
    federation = cohort(6, choices=EASY)
    session = federation.server().session_id
    other = ServerMachine(federation.parameters(), federation.roster, b"another model")

    def swap(frame):
        message = AdvertiseKeysRequest(federation.parameters().encode(), b"another model")
        return encode_message(message, 1, other.session_id)

    class Unchecked:
        def verify(self, public_key, message, signature):
            return True

    server = ServerMachine(federation.parameters(), federation.roster, DEFAULT_PAYLOAD, verifier=Unchecked())
    interceptors = [
        Alter("AdvertiseKeys", "down", swap, "site-003"),
        Alter("AdvertiseKeys", "up", lambda frame: frame[:8] + session + frame[40:], "site-003"),
        Alter("ShareKeys", "down", lambda frame: frame[:8] + other.session_id + frame[40:], "site-003"),
    ]
    with pytest.raises(TooFewSurvivorsError):
        federation.run(*interceptors, server=server)
    named = {r.client: r.error.subject for r in server.rejections if r.client != "site-003"}
    assert named == {name: "site-003" for name in federation.names if name != "site-003"}
    assert "site-003" in {r.client for r in server.rejections}


def test_another_roster_is_refused(cohort):
    federation = cohort(5)
    other = Roster({**{name: key.public for name, key in federation.identities.items()}, "mallory": b"\x01" * 32})
    with pytest.raises(ParameterError):
        ServerMachine(federation.parameters(), other, b"")


def test_share_commitments_bind_owner_holder_and_kind():
    share = SelfMaskShare(bytes(36))
    commitments = {
        commit_to_share(share, b"s" * 32, 1, 2),
        commit_to_share(share, b"s" * 32, 2, 1),
        commit_to_share(share, b"s" * 32, 1, 3),
        commit_to_share(share, b"t" * 32, 1, 2),
        commit_to_share(MaskKeyShare(bytes(36)), b"s" * 32, 1, 2),
    }
    assert len(commitments) == 5


def test_dealt_shares_have_one_size():
    with pytest.raises(DecodeError):
        DealtShares.parse(Reader(bytes(32) + b"\x05" + bytes(5)))
