"""What every transport must do, over sites that are processes of their own where an engine is meant."""

import itertools

import numpy as np
import pytest
from engine_toys import SECRET, SITES, federation

from protocols import Patience, Stage, TooFewSurvivorsError, run_round
from protocols.errors import ProtocolError, StageOrderError
from protocols.messages import Refusal, decode_message

KINDS = [
    "in_process",
    pytest.param("over_flare", marks=[pytest.mark.flare]),
    pytest.param("over_flower", marks=[pytest.mark.flower, pytest.mark.slow]),
]
PATIENCE = 120.0
"""Seconds: a stage over Flower takes five to ten, whatever is in it."""
_numbers = itertools.count(1)


@pytest.fixture(params=KINDS)
def transport(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def slowness(request):
    """Seconds in which a slow site is surely slower than the others and grace is over."""
    kind = request.node.callspec.params["transport"]
    if kind == "in_process":
        pytest.skip("nobody is waited for in one process")
    return {"over_flare": 5, "over_flower": 20}[kind]


@pytest.fixture
def number():
    """A round that no site has taken part in."""
    return next(_numbers)


def ask(transport, requests, *, stage="ShareKeys", quorum=1.0, grace=PATIENCE):
    patience = Patience(timeout=PATIENCE, quorum=quorum, grace=grace)
    replies, failures = transport.exchange(stage, requests, round_id=1, patience=patience)
    gathered = list(replies)
    assert len({site for site, _ in gathered}) == len(gathered)
    return dict(gathered), failures


def everyone(data):
    return dict.fromkeys(SITES, data)


def test_every_site_gets_its_own_request_and_all_replies_come_back(transport):
    assert sorted(transport.nodes()) == list(SITES)
    replies, failures = ask(transport, {site: site.upper().encode() for site in SITES}, stage="Unmasking")
    assert replies == {site: f"{site} Unmasking {site.upper()}".encode() for site in SITES}
    assert failures == {}


def test_a_site_that_is_not_there_is_a_failure_and_nobody_waits_for_it(transport):
    replies, failures = ask(transport, {SITES[1]: b"x", "nowhere": b"x"})
    assert set(replies) == {SITES[1]}
    assert set(failures) == {"nowhere"}


def test_an_exception_of_a_handler_is_a_refusal_that_says_nothing(transport):
    replies, failures = ask(transport, {SITES[0]: b"raise:", SITES[1]: b"x"})
    assert failures == {}
    assert decode_message(Refusal, replies[SITES[0]], 48)[1].code == ProtocolError.code
    assert SECRET.encode() not in replies[SITES[0]]


def test_a_reply_of_fifty_megabytes(transport):
    replies, failures = ask(transport, {SITES[0]: b"zeros:50000000"})
    assert failures == {}
    assert replies[SITES[0]] == bytes(50_000_000)


def test_a_request_of_fifty_megabytes(transport):
    replies, _ = ask(transport, {SITES[3]: b"length:" + bytes(50_000_000)})
    assert replies == {SITES[3]: b"50000000"}


def test_a_slow_site_is_not_waited_for_beyond_grace_and_its_late_reply_reaches_nobody(transport, slowness):
    slow, others = SITES[2], [site for site in SITES if site != SITES[2]]
    replies, failures = ask(
        transport, {**everyone(b"quick"), slow: f"sleep:{slowness}".encode()}, quorum=0.75, grace=1.0
    )
    assert sorted(replies) == others
    assert set(failures) == {slow}
    replies, failures = ask(transport, everyone(b"next"))
    assert replies[others[0]] == f"{others[0]} ShareKeys next".encode()
    replies, failures = ask(transport, everyone(b"after"))
    assert replies == {site: f"{site} ShareKeys after".encode() for site in SITES}


def test_a_round_opens_exactly_the_sum_and_a_repeated_stage_is_refused_and_harms_nothing(transport, number):
    """The site's machine, not the engine, keeps the order: a replayed frame meets a machine that has gone on."""
    cohort = federation()
    server = cohort.server(number, f"model {number}".encode())
    refused = []

    class Repeating:
        def exchange(self, stage, requests, **how):
            replies, failures = transport.exchange(stage, requests, **how)
            first = dict(replies)
            if stage == Stage.SHARE_KEYS.value:
                again, _ = transport.exchange(stage, requests, **how)
                refused.extend(decode_message(Refusal, reply, 48)[1].code for _, reply in again)
            return iter(first.items()), failures

    result = run_round(server, Repeating(), Patience(timeout=PATIENCE))
    assert result.survivors == SITES
    assert np.array_equal(result.total.integers(), cohort.expected(SITES, number))
    assert refused == [StageOrderError.code] * len(SITES)


def test_a_request_out_of_order_is_refused(transport, number):
    cohort = federation()
    requests = cohort.server(number).requests(Stage.ADVERTISE_KEYS.value)
    replies, _ = ask(transport, requests, stage=Stage.UNMASKING.value)
    assert {decode_message(Refusal, reply, 48)[1].code for reply in replies.values()} == {StageOrderError.code}


def test_a_round_below_its_threshold_ends_without_a_sum(transport, number):
    class Losing:
        def exchange(self, stage, requests, **how):
            kept = {site: request for site, request in requests.items() if site in SITES[:2]}
            return transport.exchange(stage, kept, **how)

    server = federation().server(number)
    with pytest.raises(TooFewSurvivorsError) as caught:
        run_round(server, Losing(), Patience(timeout=PATIENCE))
    assert caught.value.stage == Stage.ADVERTISE_KEYS.value
    assert server.result is None
