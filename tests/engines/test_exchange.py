"""Timeout, quorum, grace and suspects, with a courier and a clock made by hand."""

import pytest

from protocols import Patience
from securefed.engines.exchange import POLL_SECONDS, EngineTransport, Lost
from securefed.engines.names import NO_REPLY

ALL = ("a", "b", "c", "d")


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Courier:
    """Delivers {site: (seconds, reply)}; a site without an entry never answers."""

    def __init__(self, clock):
        self.clock, self.plan, self.mails, self.lifetimes = clock, {}, [], []

    def nodes(self):
        return ALL

    def send(self, stage, requests, *, round_id, lifetime):
        self.lifetimes.append(lifetime)
        due = sorted((self.clock.now + self.plan[s][0], s, self.plan[s][1]) for s in requests if s in self.plan)
        self.mails.append(Mail(self.clock, due))
        return self.mails[-1]


class Mail:
    def __init__(self, clock, due):
        self.clock, self.due, self.abandoned = clock, due, False

    def collect(self, seconds):
        assert 0 < seconds <= POLL_SECONDS
        self.clock.now += seconds
        arrived = [(site, reply) for at, site, reply in self.due if at <= self.clock.now]
        self.due = [entry for entry in self.due if entry[0] > self.clock.now]
        return arrived

    def abandon(self):
        self.abandoned = True


@pytest.fixture
def bench():
    clock = Clock()
    courier = Courier(clock)
    return clock, courier, EngineTransport(courier, clock)


def exchange(bench, plan, *, quorum=1.0, timeout=100.0, grace=5.0, sites=ALL):
    clock, courier, transport = bench
    courier.plan = plan
    start = clock.now
    replies, failures = transport.exchange(
        "ShareKeys",
        dict.fromkeys(sites, b"?"),
        round_id=1,
        patience=Patience(timeout=timeout, quorum=quorum, grace=grace),
    )
    gathered = list(replies)
    assert courier.mails[-1].abandoned
    return gathered, dict(failures), clock.now - start


def at(**seconds):
    return {site: (after, site.encode()) for site, after in seconds.items()}


def test_all_answer_in_the_order_of_arrival(bench):
    gathered, failures, took = exchange(bench, at(a=3, b=1, c=2, d=4))
    assert [site for site, _ in gathered] == ["b", "c", "a", "d"]
    assert failures == {}
    assert took == pytest.approx(4, abs=POLL_SECONDS)
    assert bench[1].lifetimes == [100.0]


def test_grace_begins_with_the_quorum(bench):
    gathered, failures, took = exchange(bench, at(a=1, b=2, c=6.5, d=30), quorum=0.5)
    assert [site for site, _ in gathered] == ["a", "b", "c"]
    assert failures == {"d": "no reply in time"}
    assert took == pytest.approx(7, abs=2 * POLL_SECONDS)


@pytest.mark.parametrize(
    ("quorum", "fewest", "kept"), [(0.0, 1, "a"), (0.25, 1, "a"), (0.0, 3, "abc"), (0.5, 3, "abc")]
)
def test_no_quorum_is_below_the_replies_that_are_of_use(bench, quorum, fewest, kept):
    bench[2].fewest = fewest
    gathered, failures, _ = exchange(bench, at(a=1, b=2, c=3, d=4), quorum=quorum, grace=0.0)
    assert [site for site, _ in gathered] == list(kept)
    assert set(failures) == set(ALL) - set(kept)


def test_who_is_not_there_is_not_waited_for_as_one_of_the_fewest(bench):
    bench[2].fewest = 4
    exchange(bench, at(a=1, b=1, c=1))
    _, failures, took = exchange(bench, at(a=1, b=1, c=1), quorum=0.0)
    assert (set(failures), took) == ({"d"}, pytest.approx(6, abs=2 * POLL_SECONDS))


def test_grace_never_goes_beyond_the_timeout(bench):
    _, failures, took = exchange(bench, at(a=1, b=9), quorum=0.5, timeout=10, grace=60)
    assert set(failures) == {"c", "d"}
    assert took == pytest.approx(10)


def test_a_dead_site_costs_its_timeout_once_and_grace_afterwards(bench):
    _, failures, took = exchange(bench, at(a=1, b=1, c=1))
    assert (set(failures), took) == ({"d"}, pytest.approx(100))
    assert bench[2].suspects == {"d"}
    _, failures, took = exchange(bench, at(a=1, b=1, c=1))
    assert (set(failures), took) == ({"d"}, pytest.approx(6, abs=2 * POLL_SECONDS))
    gathered, failures, _ = exchange(bench, at(a=1, b=1, c=1, d=2))
    assert (len(gathered), failures, bench[2].suspects) == (4, {}, frozenset())


def test_what_an_engine_knows_to_be_lost_is_not_waited_for(bench):
    gathered, failures, took = exchange(bench, {**at(a=1, b=1, c=1), "d": (2, Lost("TimeoutError"))})
    assert len(gathered) == 3
    assert failures == {"d": "TimeoutError"}
    assert took == pytest.approx(2, abs=POLL_SECONDS)


def test_second_unasked_and_shapeless_replies_are_dropped(bench):
    bench[1].plan = {}
    replies, failures = bench[2].exchange(
        "ShareKeys", {"a": b"?", "b": b"?"}, round_id=1, patience=Patience(timeout=5, grace=1)
    )
    now = bench[0].now
    bench[1].mails[-1].due = [(now, "c", b"unasked"), (now, "a", b"1"), (now, "a", b"2"), (now, "b", "no bytes")]
    assert list(replies) == [("a", b"1")]
    assert failures == {"b": "a reply that is no bytes"}


def test_who_is_not_reachable_is_not_asked(bench):
    gathered, failures, _ = exchange(bench, at(a=1), sites=("a", "z"))
    assert gathered == [("a", b"a")]
    assert failures == {"z": "unknown"}


def test_leaving_an_exchange_early_abandons_its_mail(bench):
    bench[1].plan = at(a=1, b=1, c=1, d=1)
    replies, _ = bench[2].exchange("ShareKeys", dict.fromkeys(ALL, b"?"), round_id=1, patience=Patience(timeout=9))
    next(replies)
    replies.close()
    assert bench[1].mails[-1].abandoned


def test_a_site_whose_node_does_not_answer_is_lost_and_refuses_nothing(bench):
    gathered, failures, took = exchange(bench, {**at(a=1, b=1, c=1), "d": (2, NO_REPLY)})
    assert [site for site, _ in gathered] == ["a", "b", "c"]
    assert (failures, bench[2].suspects) == ({"d": "its node does not answer"}, {"d"})
    assert took == pytest.approx(2, abs=POLL_SECONDS)
