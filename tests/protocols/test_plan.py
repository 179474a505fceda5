from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from protocols import (
    ClientPolicy,
    FixedPointCodec,
    NoSafePlanError,
    ParameterError,
    PolicyError,
    RoundParameters,
    ThreatModel,
)
from protocols.parameters import least_complete_threshold, least_ring_threshold, ring_quorum
from protocols.plan import find_ring, orders, plan, privacy_failure, rings
from protocols.simulator import SimulatedFederation
from protocols.tails import disconnection, log2_of, severance, tail_above, tail_below
from protocols.traffic import expected_traffic

SEMI_HONEST, ACTIVE = ThreatModel.SEMI_HONEST, ThreatModel.ACTIVE
KNOWN = [
    (SEMI_HONEST, 0.05, 0.05, 1000, 30, 17),
    (SEMI_HONEST, 0.05, 0.05, 10000, 34, 20),
    (SEMI_HONEST, 0.10, 0.10, 1000, 48, 27),
    (SEMI_HONEST, 0.10, 0.10, 10000, 54, 31),
    (SEMI_HONEST, 0.20, 0.10, 1000, 68, 44),
    (SEMI_HONEST, 0.20, 0.10, 10000, 80, 51),
    (SEMI_HONEST, 0.20, 0.20, 1000, 98, 54),
    (SEMI_HONEST, 0.20, 0.20, 10000, 122, 67),
    (SEMI_HONEST, 0.33, 0.05, 1000, 78, 60),
    (SEMI_HONEST, 0.33, 0.05, 10000, 92, 70),
    (SEMI_HONEST, 0.33, 0.10, 1000, 102, 72),
    (SEMI_HONEST, 0.33, 0.10, 10000, 126, 88),
    (SEMI_HONEST, 0.33, 0.33, 1000, 286, 150),
    (ACTIVE, 0.05, 0.05, 1000, 52, 37),
    (ACTIVE, 0.05, 0.05, 10000, 62, 44),
    (ACTIVE, 0.10, 0.10, 1000, 96, 67),
    (ACTIVE, 0.10, 0.10, 10000, 122, 85),
    (ACTIVE, 0.20, 0.10, 1000, 140, 104),
    (ACTIVE, 0.20, 0.10, 10000, 184, 136),
    (ACTIVE, 0.20, 0.20, 1000, 302, 206),
    (ACTIVE, 0.33, 0.10, 1000, 218, 171),
    (ACTIVE, 0.33, 0.10, 10000, 310, 242),
]


@pytest.mark.parametrize(("threat_model", "corrupt", "dropout", "clients", "neighbours", "threshold"), KNOWN)
def test_rings_agree_with_the_reference_finder(threat_model, corrupt, dropout, clients, neighbours, threshold):
    """Conditions 1 to 4 alone, which take losses to be chance."""
    colluders, losses = round(corrupt * clients), round(dropout * clients)
    found = next(rings(clients, colluders, losses, 40, 20, threat_model))
    assert found[:2] == (neighbours, threshold)
    planned = plan(clients, corrupt, dropout, threat_model=threat_model)
    assert planned.privacy_failure_log2 <= -40
    assert planned.correctness_failure_log2 <= -20
    assert planned.min_survivors == clients - planned.dropouts
    assert planned.neighbours >= neighbours
    if threat_model is SEMI_HONEST:
        assert (planned.neighbours, planned.threshold) == (neighbours, threshold)


@pytest.mark.parametrize(
    ("clients", "corrupt", "dropout", "before", "after"),
    [
        (150, 0.2, 0.1, (62, 47), (64, 49)),
        (300, 0.2, 0.1, (94, 70), (98, 74)),
        (500, 0.2, 0.1, (116, 86), (124, 93)),
        (1000, 0.2, 0.1, (140, 104), (152, 114)),
        (1000, 0.1, 0.1, (96, 67), (106, 75)),
        (10000, 0.2, 0.1, (184, 136), (202, 151)),
        (10000, 0.1, 0.1, (122, 85), (136, 96)),
    ],
)
def test_an_active_server_that_chooses_its_losses_takes_more_neighbours(clients, corrupt, dropout, before, after):
    colluders, losses = int(clients * corrupt), int(clients * dropout)
    assert next(rings(clients, colluders, losses, 40, 20, ACTIVE))[:2] == before
    assert find_ring(clients, colluders, losses, 40, 20, ACTIVE) == after
    assert privacy_failure(clients, colluders, losses, *before, ACTIVE) > Fraction(1, 1 << 40)
    assert privacy_failure(clients, colluders, losses, *after, ACTIVE) <= Fraction(1, 1 << 40)


def test_places_for_cuts_are_no_rarer_than_counted():
    """Rings of random order, on parameters so weak that cuts are seen: the bound holds, with some room."""
    clients, corrupt, neighbours, threshold, rounds = 400, 60, 24, 20, 4000
    half, least, seen = neighbours // 2, threshold - neighbours // 2 - 1, 0
    generator = np.random.default_rng(0)
    for _ in range(rounds):
        marked = np.zeros(clients, dtype=int)
        marked[generator.permutation(clients)[:corrupt]] = 1
        inside = np.cumsum(np.concatenate((marked, marked)))
        crowded = np.flatnonzero(inside[half : half + clients] - inside[:clients] >= least)
        apart = np.abs(crowded[:, None] - crowded)
        seen += bool(((apart > half) & (apart < clients - half)).any())
    assert 0 < seen / rounds <= float(severance(clients, corrupt, neighbours, threshold))


def test_cuts_are_not_chosen_by_too_few_colluders():
    assert severance(150, 30, 64, 49) == 0
    assert severance(1000, 5, 20, 17) == 0


def test_more_correctness_costs_neighbours():
    assert find_ring(1000, 100, 100, 40, 30, SEMI_HONEST) == (52, 28)
    assert find_ring(1000, 200, 200, 40, 30, SEMI_HONEST) == (112, 59)
    assert find_ring(10000, 1000, 1000, 40, 30, SEMI_HONEST) == (60, 32)


@pytest.mark.parametrize(
    ("clients", "corrupt", "dropout", "threshold"),
    [
        (5, 0.2, 0.2, 4),
        (10, 0.2, 0.2, 7),
        (20, 0.2, 0.2, 13),
        (50, 0.2, 0.2, 31),
        (100, 0.2, 0.2, 61),
        (100, 0.33, 0.1, 67),
    ],
)
def test_up_to_100_clients_the_graph_is_complete_and_certain(clients, corrupt, dropout, threshold):
    found = plan(clients, corrupt, dropout)
    assert (found.neighbours, found.threshold) == (clients - 1, threshold)
    assert found.privacy_failure_log2 == found.correctness_failure_log2 == -float("inf")
    assert found.is_complete


@pytest.mark.parametrize(
    ("clients", "corrupt", "dropout", "name"),
    [(10, 0.33, 0.33, "clients"), (4, 0.2, 0.1, "clients"), (3, 0.0, 0.1, "clients"), (100, 0.4, 0.4, "threshold")],
)
def test_what_cannot_be_safe_is_refused_with_the_reason(clients, corrupt, dropout, name):
    with pytest.raises(NoSafePlanError) as caught:
        plan(clients, corrupt, dropout)
    assert caught.value.name == name


@pytest.mark.parametrize(
    ("clients", "corrupt", "dropout"), [(2, 0, 0), (10, -0.1, 0), (10, 1, 0), (10, 0, 1), (20000, 0, 0)]
)
def test_arguments_out_of_range(clients, corrupt, dropout):
    with pytest.raises(ParameterError):
        plan(clients, corrupt, dropout)


def test_shares_are_rounded_up_as_they_were_written():
    assert plan(50, 0.1, 0.1).corrupt == 5
    assert plan(10, 0.11, 0.0).corrupt == 2
    assert plan(30, 0.1, 0.1).dropouts == 3


def test_losses_at_reveal_nonces_take_more_neighbours():
    plain, withheld, capped = (plan(1000, 0.1, 0.05, withheld=count) for count in (0, 2, 50))
    assert plain.neighbours < withheld.neighbours < capped.neighbours
    assert withheld.privacy_failure_log2 <= -40 - 18.9
    assert capped.privacy_failure_log2 <= -40 - 64
    assert orders(1000, 0) == 1
    assert orders(1000, 2) == 1 + 1000 + 499_500
    assert orders(1000, 50) == 1 << 64


def test_tails_are_exact():
    population, marked, draws = 20, 7, 6
    total = comb(population, draws)
    probabilities = [Fraction(comb(marked, j) * comb(13, draws - j), total) for j in range(draws + 1)]
    assert sum(probabilities) == 1
    for bound in range(draws + 1):
        assert tail_above(population, marked, draws, bound) == sum(probabilities[bound + 1 :])
        assert tail_below(population, marked, draws, bound) == sum(probabilities[:bound])


def test_disconnection_is_that_of_two_runs():
    assert disconnection(1000, 50, 51) == 0
    exact = Fraction(1000 * (1000 - 11), 2) * Fraction(comb(990, 40), comb(1000, 50))
    assert disconnection(1000, 50, 10) == exact
    assert disconnection(20, 19, 2) == 1


def test_log2_of_fractions_that_no_float_holds():
    assert log2_of(Fraction(1, 1 << 5000)) == -5000
    assert log2_of(Fraction(3, 8)) == pytest.approx(-1.4150375)
    assert log2_of(Fraction(0)) == -float("inf")


def test_a_plan_becomes_parameters_and_its_traffic_is_what_frames_measure():
    for clients, neighbours, threshold, threat_model in (
        (9, 8, 6, ACTIVE),
        (9, 8, 4, SEMI_HONEST),
        (20, 8, 6, ACTIVE),
        (20, 8, 6, SEMI_HONEST),
    ):
        choices = {"neighbours": neighbours, "threshold": threshold, "corrupt": 1}
        federation = SimulatedFederation(clients, threat_model=threat_model, choices=choices)
        result = federation.run()
        parameters = federation.parameters()
        expected = expected_traffic(
            clients,
            neighbours,
            parameters.quorum(clients),
            threat_model,
            parameters.vector_length,
            parameters.ring_bits,
            len(b"a simulated global model"),
        )
        for name in federation.names:
            for stage, traffic in expected.items():
                for direction, size in (("down", traffic.down), ("up", traffic.up)):
                    records = [f for f in result.frames if (f.client, f.stage, f.direction) == (name, stage, direction)]
                    assert sum(record.bytes for record in records) == size


@settings(max_examples=300, deadline=None)
@given(data=st.data(), members=st.integers(101, 16_384))
def test_any_two_rounds_over_one_model_share_an_honest_client_that_knows_of_the_first(data, members):
    """M-24 in detail: the counting, for every pair of rounds that the default policy lets pass."""
    corrupt = data.draw(st.integers(0, members // 3))
    quorum, complete = ring_quorum(members, corrupt), least_complete_threshold(members, corrupt, ACTIVE)
    assume(quorum <= members)
    survivors = data.draw(st.integers(quorum, members))
    neighbours = 2 * data.draw(st.integers(2, 300))
    threshold = least_ring_threshold(members, corrupt, neighbours, survivors)
    shares = threshold * (survivors - corrupt)  # each honest client of the sum takes t; nobody returns more than k
    know = min(-(-shares // neighbours), complete) - corrupt
    sign = min(quorum, complete) - corrupt
    assert know + sign > members - corrupt


def test_a_threshold_below_two_thirds_is_refused_where_a_ring_is_possible():
    names = SimulatedFederation(3).roster
    roster = type(names)({f"s{i:03d}": (1000 + i).to_bytes(32, "big") for i in range(120)})
    terms = {"round": 1, "roster": roster, "codec": FixedPointCodec([4], [1.0], 8), "config_digest": bytes(32)}
    cohort = roster.names[:100]
    ClientPolicy().check(RoundParameters.choose(cohort=cohort, **terms), roster)
    with pytest.raises(PolicyError, match="threshold is 73, this client accepts at least 96"):
        ClientPolicy().check(RoundParameters.choose(cohort=cohort, threshold=73, **terms), roster)
    ClientPolicy(complete_up_to=120).check(RoundParameters.choose(cohort=cohort, threshold=73, **terms), roster)


def test_a_ring_of_fewer_clients_than_the_quorum_of_the_roster_is_named():
    names = SimulatedFederation(3).roster
    roster = type(names)({f"s{i:03d}": (1000 + i).to_bytes(32, "big") for i in range(300)})
    terms = {"round": 1, "roster": roster, "codec": FixedPointCodec([4], [1.0], 8), "config_digest": bytes(32)}
    with pytest.raises(ParameterError, match="has 150 of 300 clients: a ring needs a quorum of 240"):
        RoundParameters.choose(cohort=roster.names[:150], neighbours=64, threshold=49, **terms)


def test_losses_that_leave_no_quorum_take_a_complete_graph_or_none():
    assert plan(1000, 0.2, 0.2).neighbours < 999
    assert plan(1000, 0.2, 0.2).min_survivors == ring_quorum(1000, 200)
    with pytest.raises(NoSafePlanError, match="need a threshold of 800, but only 799"):
        plan(1000, 0.2, 0.201)


def test_a_ring_whose_threshold_binds_too_few_is_refused():
    found = plan(200, 0.2, 0.1)
    names = SimulatedFederation(3).roster
    roster = type(names)({f"s{i:03d}": (1000 + i).to_bytes(32, "big") for i in range(200)})
    terms = {"round": 1, "roster": roster, "codec": FixedPointCodec([4], [1.0], 8), "config_digest": bytes(32)}
    few = {**found.choices, "min_survivors": ring_quorum(200, 40) - 1}
    with pytest.raises(PolicyError, match="min_survivors is 159, this client accepts at least 160"):
        ClientPolicy().check(RoundParameters.choose(**terms, **few), roster)
    wide = {**found.choices, "neighbours": 150, "threshold": 100, "min_survivors": 160}
    with pytest.raises(PolicyError, match="threshold is 100, this client accepts at least 101"):
        ClientPolicy().check(RoundParameters.choose(**terms, **wide), roster)


def test_choices_of_a_plan_are_accepted_by_the_default_policy():
    found = plan(200, 0.2, 0.1, value_bits=8)
    federation = SimulatedFederation(3)
    roster = type(federation.roster)({f"s{i}": (1000 + i).to_bytes(32, "big") for i in range(200)})
    parameters = RoundParameters.choose(
        round=1, roster=roster, codec=FixedPointCodec([4], [1.0], 8), config_digest=bytes(32), **found.choices
    )
    assert parameters.ring_bits == found.ring_bits
    ClientPolicy().check(parameters, roster)
    assert privacy_failure(200, 40, 20, found.neighbours, found.threshold, ACTIVE) <= Fraction(1, 1 << 40)
