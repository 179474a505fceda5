"""What every transport must do; further transports are added to the list of makers."""

import threading

import numpy as np
import pytest

from protocols import (
    ClientMachine,
    FixedPointCodec,
    InProcessTransport,
    Patience,
    PlainClient,
    TooFewSurvivorsError,
    run_plain_round,
    run_round,
)
from protocols.errors import AuthenticationError, InputError, SessionMismatchError, StageOrderError
from protocols.messages import PlainInputReply, encode_message
from protocols.simulator import DEFAULT_PAYLOAD, InterceptedTransport

ROUND = {"round_id": 1, "patience": Patience(timeout=5, grace=1)}


class Echo:
    def __init__(self, name):
        self.name, self.seen = name, []

    def answer(self, stage, data):
        self.seen.append((stage, data))
        return self.name.encode() + data


class Repeating(InProcessTransport):
    """Delivers every reply twice, and the first one in the name of a stranger as well."""

    def exchange(self, stage, requests, **arguments):
        replies, failures = super().exchange(stage, requests, **arguments)
        found = [pair for pair in replies for _ in range(2)]
        return iter([*found, ("stranger", found[0][1])]), failures


def in_process(clients, drops=None):
    return InProcessTransport(clients, drops)


def intercepted(clients, drops=None):
    return InterceptedTransport(clients, (), drops)


def in_threads(clients, drops=None):
    return InProcessTransport(clients, drops, workers=2)


MAKERS = [in_process, in_threads, intercepted]


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__)
def make(request):
    return request.param


@pytest.fixture
def echoes():
    return {name: Echo(name) for name in ("a", "b", "c")}


def test_each_client_gets_its_request_and_its_reply_comes_back(make, echoes):
    transport = make(echoes)
    assert sorted(transport.nodes()) == ["a", "b", "c"]
    requests = {name: name.upper().encode() for name in echoes}
    replies, failures = transport.exchange("ShareKeys", requests, **ROUND)
    assert dict(replies) == {"a": b"aA", "b": b"bB", "c": b"cC"}
    assert not failures
    assert echoes["b"].seen == [("ShareKeys", b"B")]
    transport.close()


def test_replies_are_not_gathered_before_the_first_is_taken(echoes):
    replies, _ = in_process(echoes).exchange("ShareKeys", dict.fromkeys(echoes, b""), **ROUND)
    next(replies)
    assert [name for name, echo in echoes.items() if echo.seen] == ["a"]


def test_unknown_and_lost_clients_are_failures(make, echoes):
    transport = make(echoes, {("b", 1): "ShareKeys"})
    requests = dict.fromkeys([*echoes, "z"], b"")
    for stage, lost in (("AdvertiseKeys", set()), ("ShareKeys", {"b"}), ("Unmasking", {"b"})):
        replies, failures = transport.exchange(stage, requests, **ROUND)
        assert {name for name, _ in replies} == set(echoes) - lost
        assert set(failures) == {"z"} | lost
    replies, failures = transport.exchange("ShareKeys", requests, **{**ROUND, "round_id": 2})
    assert len(dict(replies)) == 3
    assert set(failures) == {"z"}


def test_a_whole_round(make, cohort):
    federation = cohort(5)
    drops = {("site-002", 1): "MaskedInputCollection"}
    result = run_round(federation.server(), make(federation.machines, drops), Patience(timeout=5, grace=1, quorum=0.9))
    survivors = [name for name in federation.names if name != "site-002"]
    assert np.array_equal(result.total.integers(), federation.expected(survivors))


def test_a_long_vector(cohort):
    """26 million coordinates of 16 bits: 52 MB in one reply."""
    length = 26_000_000
    codec = FixedPointCodec([length], [1.0], 14)
    federation = cohort(3, codec=codec)
    encoded = codec.encode(np.zeros(length, dtype=np.float32), np.random.default_rng(0))
    federation.machines = {
        name: ClientMachine(federation.identities[name], federation.roster, federation.policy, lambda context: encoded)
        for name in federation.names
    }
    result = federation.run()
    assert (result.total.lanes == 3 * (2**13 - 1)).all()
    sizes = [f.bytes for f in result.frames if (f.stage, f.kind) == ("MaskedInputCollection", "payload")]
    assert sizes == [length * 2] * 3


def test_a_handler_error_leaks_nothing(cohort):
    """What a failing client sends is a class of errors; the secret in the training's message stays where it is."""
    federation = cohort(6, choices={"corrupt": 0, "threshold": 4})

    def contribute(context):
        raise InputError("the patient's name")

    federation.machines["site-001"] = federation.machine("site-001", contribute=contribute)
    result = federation.run()
    assert result.dropouts == {"site-001": "MaskedInputCollection"}
    assert "patient" not in str(result.rejections[0].error)
    assert result.rejections[0].error.refusal_code == InputError.code


# Plain rounds


def test_a_plain_round_drops_who_breaks_the_rules(cohort):
    federation = cohort(6)
    other = cohort(6, length=7)
    clients = {name: PlainClient(name, federation.contribute) for name in federation.names}
    clients["site-001"] = PlainClient("site-001", other.contribute)

    class Fixed:
        def __init__(self, frame):
            self.frame = frame

        def answer(self, stage, data):
            return self.frame

    clients["site-002"] = Fixed(b"garbage")
    clients["site-003"] = Fixed(encode_message(PlainInputReply(16, 199, bytes(398)), 1, bytes(32)))
    clients["site-004"] = Fixed(encode_message(PlainInputReply(16, 200, bytes(400)), 2, bytes(32)))
    result = run_plain_round(federation.parameters(), federation.roster, DEFAULT_PAYLOAD, in_process(clients))
    assert result.survivors == ("site-000", "site-005")
    assert sorted(result.dropouts) == ["site-001", "site-002", "site-003", "site-004"]
    assert sorted({r.client for r in result.rejections}) == sorted(result.dropouts)
    assert np.array_equal(result.total.integers(), federation.expected(result.survivors))


def test_a_plain_round_takes_one_reply_of_each_client_that_was_asked(cohort):
    federation = cohort(4)
    clients = {name: PlainClient(name, federation.contribute) for name in federation.names}
    masked = clients["site-003"].answer

    class OfAnotherSession:
        def answer(self, stage, data):
            frame = masked(stage, data)
            return frame[:8] + b"\1" * 32 + frame[40:]

    clients["site-003"] = OfAnotherSession()
    result = run_plain_round(federation.parameters(), federation.roster, DEFAULT_PAYLOAD, Repeating(clients))
    assert result.survivors == ("site-000", "site-001", "site-002")
    assert np.array_equal(result.total.integers(), federation.expected(result.survivors))
    errors = [(rejection.client, type(rejection.error)) for rejection in result.rejections]
    assert errors.count(("site-003", SessionMismatchError)) == 1
    assert [client for client, error in errors if error is StageOrderError] == list(federation.names)
    assert errors[-1] == ("stranger", AuthenticationError)
    assert result.dropouts == {"site-003": "PlainInputCollection"}
    up = {name: sum(f.bytes for f in result.frames if (f.client, f.direction) == (name, "up")) for name in clients}
    assert set(up.values()) == {2 * (44 + 5 + 200 * 2)}
    assert {frame.client for frame in result.frames} == set(clients)


def test_a_masked_round_counts_the_bytes_of_its_cohort_alone(cohort):
    federation = cohort(4)
    result = run_round(federation.server(), Repeating(federation.machines))
    assert result.survivors == tuple(federation.names)
    assert ("stranger", AuthenticationError) in [(each.client, type(each.error)) for each in result.rejections]
    assert {frame.client for frame in result.frames} == set(federation.names)


def test_a_plain_round_without_any_reply_has_no_sum_and_says_what_was_sent(cohort):
    federation = cohort(3)
    with pytest.raises(TooFewSurvivorsError) as caught:
        federation.run_plain(dict.fromkeys(federation.names, "AdvertiseKeys"))
    assert {(frame.client, str(frame.direction)) for frame in caught.value.frames} == {
        (name, "down") for name in federation.names
    }


def test_plain_bytes_are_recorded(cohort):
    federation = cohort(3)
    result = federation.run_plain()
    up = sum(record.bytes for record in result.frames if (record.client, record.direction) == ("site-000", "up"))
    assert up == 44 + 5 + 200 * 2
    assert {record.stage for record in result.frames} == {"PlainInputCollection"}


def test_a_plain_client_answers_nothing_else(cohort):
    client = PlainClient("site-000", cohort(3).contribute)
    assert client.answer("Unmasking", b"")[3] == 16
    assert client.answer("PlainInputCollection", b"junk")[3] == 16


class Meeting:
    """Answers only once as many clients as are expected are at it at the same time."""

    def __init__(self, barrier, held):
        self.barrier, self.held = barrier, held

    def answer(self, stage, data):
        self.barrier.wait(timeout=30)
        self.held.append(data)
        return data


def test_clients_that_work_on_vectors_work_at_the_same_time_and_few_replies_are_held():
    held = []
    names = [f"{number:02d}" for number in range(20)]
    transport = InProcessTransport(dict.fromkeys(names, Meeting(threading.Barrier(2), held)), workers=2)
    replies, failures = transport.exchange("MaskedInputCollection", {name: name.encode() for name in names}, **ROUND)
    for number, (name, reply) in enumerate(replies, 1):
        assert (name, reply) == (names[number - 1], names[number - 1].encode())
        assert len(held) <= number + 3
    assert not failures


class Noting:
    """Notes who begins, in order."""

    def __init__(self, name, begun, gate=None):
        self.name, self.begun, self.gate = name, begun, gate

    def answer(self, stage, data):
        self.begun.append(self.name)
        if self.gate is not None:
            assert self.gate.wait(timeout=30)
        return data


def test_clients_that_take_longest_begin_first_and_replies_keep_their_order():
    begun = []
    names = [f"{number:02d}" for number in range(20)]
    weights = {name: 100 - (int(name) - 6) ** 2 for name in names}
    clients = {name: Noting(name, begun) for name in names}
    transport = InProcessTransport(clients, workers=2, weights=weights)
    replies, _ = transport.exchange("MaskedInputCollection", {name: name.encode() for name in names}, **ROUND)
    held = []
    for number, (name, reply) in enumerate(replies, 1):
        assert (name, reply) == (names[number - 1], names[number - 1].encode())
        held.append(len(begun) - number)
    assert sorted(begun) == names
    assert set(begun[:2]) <= {"05", "06", "07"}
    assert max(held) <= 10


def test_replies_that_nobody_takes_are_not_worked_for():
    """An interrupted round ends with the clients that are at work."""
    begun, gate = [], threading.Event()
    names = [f"{number}" for number in range(10)]
    clients = {name: Noting(name, begun, None if name == "0" else gate) for name in names}
    weights = {name: -int(name) for name in names}
    replies, _ = InProcessTransport(clients, workers=2, weights=weights).exchange(
        "MaskedInputCollection", dict.fromkeys(names, b""), **ROUND
    )
    assert next(replies) == ("0", b"")
    threading.Timer(0.2, gate.set).start()
    replies.close()
    assert len(begun) <= 5


def test_an_error_in_a_thread_reaches_the_caller():
    class Broken:
        def answer(self, stage, data):
            raise ZeroDivisionError

    replies, _ = InProcessTransport({"a": Broken()}, workers=2).exchange("MaskedInputCollection", {"a": b""}, **ROUND)
    with pytest.raises(ZeroDivisionError):
        dict(replies)
