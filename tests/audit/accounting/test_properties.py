"""What must hold of any accountant: order, monotony, infinite costs, views, and facts that refuse nonsense."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from audit.accounting import (
    Adjacency,
    CalibrationError,
    DiscreteGaussian,
    Gaussian,
    GroupedSampledGaussian,
    Repeated,
    SampledGaussian,
    Skellam,
    Unknown,
    account,
    affordable_steps,
    against_broken_aggregation,
    against_colluders,
    calibrate_noise,
    calibrate_sampled_gaussian,
    mechanism_fields,
    mechanism_of,
    rdp_epsilon,
    upper_epsilon,
)
from audit.accounting import epsilon as epsilon_module
from audit.accounting.pld import pld_epsilon
from audit.accounting.prv import Interval, prv_interval
from audit.canonical import decode_canonical, encode_canonical
from audit.rules import FieldError
from tests.audit.accounting.test_known_answers import steps

DELTA = 1e-5
SKELLAM = Skellam(l1=3000.0, l2=200.0, share_variance=1e5, shares=10)
DISCRETE = DiscreteGaussian(l1=3000.0, l2=200.0, share_sigma=300.0, shares=10, dimension=1000)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.7, 5), st.floats(0.001, 0.2), st.integers(1, 500), st.sampled_from([1e-7, 1e-6, 1e-5, 1e-3]))
def test_accountants_stand_in_order(sigma, q, count, delta):
    found = account(steps(sigma, q, count), delta)
    assert found.contradictions == ()
    assert found.lower <= found.upper
    assert found.lower <= found.cross_checks["PRV"]
    assert found.upper <= found.cross_checks["RDP"] * (1 + 1e-6) + 2e-4


@pytest.mark.parametrize("epsilon", [upper_epsilon, rdp_epsilon])
def test_more_noise_costs_less_more_data_and_steps_cost_more(epsilon):
    base = epsilon(steps(1, 0.02, 200), DELTA)
    assert epsilon(steps(1.05, 0.02, 200), DELTA) < base
    assert epsilon(steps(1, 0.021, 200), DELTA) > base
    assert epsilon(steps(1, 0.02, 210), DELTA) > base
    assert epsilon(steps(1, 0.02, 200), DELTA / 2) > base


@pytest.mark.parametrize("mechanism", [SKELLAM, DISCRETE])
@pytest.mark.parametrize("q", [1.0, 0.05])
def test_discrete_mechanisms_are_monotone(mechanism, q):
    def cost(**changes):
        return rdp_epsilon([Repeated(type(mechanism)(**{**vars(mechanism), "sampling_rate": q, **changes}), 20)], DELTA)

    base = cost()
    assert cost(l2=210.0) > base
    assert cost(l1=3300.0) >= base
    assert cost(shares=9) > base
    assert cost(sampling_rate=min(1.0, q * 1.1)) >= base
    noise = "share_variance" if isinstance(mechanism, Skellam) else "share_sigma"
    assert cost(**{noise: getattr(mechanism, noise) * 1.1}) < base


def test_sampling_never_costs_more_than_taking_all():
    for q in (0.01, 0.9):
        sampled = DiscreteGaussian(**{**vars(DISCRETE), "sampling_rate": q})
        assert rdp_epsilon([Repeated(sampled, 10)], DELTA) <= rdp_epsilon([Repeated(SKELLAM, 10)], DELTA) * 1.1
        assert upper_epsilon(steps(1, q, 10), DELTA) <= upper_epsilon(steps(1, 1.0, 10), DELTA)


@pytest.mark.parametrize(
    "composition", [steps(1, 0.01, 100), steps(2, 1.0, 10), [Repeated(SKELLAM, 5)], [Repeated(DISCRETE)]]
)
def test_replacing_costs_more_than_adding_or_removing(composition):
    assert upper_epsilon(composition, DELTA, Adjacency.REPLACE_ONE) > upper_epsilon(composition, DELTA)


def test_replacing_one_without_sampling_is_twice_the_sensitivity():
    assert upper_epsilon([Repeated(Gaussian(4.0), 3)], DELTA, Adjacency.REPLACE_ONE) == upper_epsilon(
        [Repeated(Gaussian(2.0), 3)], DELTA
    )
    assert rdp_epsilon([Repeated(Gaussian(4.0), 3)], DELTA, Adjacency.REPLACE_ONE) == rdp_epsilon(
        [Repeated(Gaussian(2.0), 3)], DELTA
    )


def test_what_cannot_be_accounted_costs_infinity():
    unknown = [*steps(1, 0.01, 10), Repeated(Unknown("validation accuracy sent in clear"))]
    found = account(unknown, DELTA)
    assert math.isinf(found.upper)
    for relation in Adjacency:
        assert math.isinf(upper_epsilon(unknown, DELTA, relation))


def test_nothing_costs_nothing():
    assert account([], DELTA).upper == 0
    assert upper_epsilon([], DELTA) == 0
    assert prv_interval([], DELTA) == Interval(0.0, 0.0)


def test_mixed_runs_are_accounted_by_rdp():
    found = account([*steps(1, 0.01, 100), Repeated(SKELLAM, 5)], DELTA)
    assert found.accountant == "RDP"
    assert found.upper > rdp_epsilon([Repeated(SKELLAM, 5)], DELTA)


def test_heterogeneous_runs_compose_in_any_order():
    parts = [*steps(1, 0.01, 100), *steps(2, 0.05, 50), Repeated(Gaussian(5.0), 3)]
    forth, back = account(parts, DELTA), account(parts[::-1], DELTA)
    assert forth.upper == pytest.approx(back.upper, abs=1e-6)
    assert forth.contradictions == ()
    assert forth.upper < sum(upper_epsilon([part], DELTA) for part in parts)


def test_a_wrong_accountant_is_noticed(monkeypatch):
    composition = steps(1, 0.01, 1000)
    monkeypatch.setattr(epsilon_module, "rdp_epsilon", lambda *_: 1.6)
    found = account(composition, DELTA)
    assert found.contradictions[0].startswith("ACCOUNTING DISAGREEMENT: the PLD 1.828")
    monkeypatch.undo()
    monkeypatch.setattr(epsilon_module, "prv_interval", lambda *_: Interval(1.5, 1.6))
    assert "optimistic PLD" in account(composition, DELTA).contradictions[0]
    monkeypatch.setattr(epsilon_module, "prv_interval", lambda *_: Interval(2.5, 2.6))
    assert "lower PRV" in account(composition, DELTA).contradictions[0]
    monkeypatch.setattr(epsilon_module, "prv_interval", lambda *_: None)
    monkeypatch.setattr(epsilon_module, "pld_epsilon", lambda *_, pessimistic=True: 1.8 if pessimistic else 1.9)
    assert "pessimistic PLD" in account(composition, DELTA).contradictions[0]


@pytest.mark.parametrize("mechanism", [SKELLAM, DISCRETE])
def test_colluders_know_their_shares(mechanism):
    composition = [Repeated(mechanism, 5)]
    costs = [rdp_epsilon(against_colluders(composition, c), DELTA) for c in range(10)]
    assert costs == sorted(costs)
    assert costs[0] == rdp_epsilon(composition, DELTA)
    assert costs[9] == rdp_epsilon(against_broken_aggregation(composition), DELTA)
    assert math.isinf(rdp_epsilon(against_colluders(composition, 10), DELTA))
    with pytest.raises(ValueError, match="negative"):
        against_colluders(composition, -1)


def test_noise_added_in_full_holds_against_everybody():
    local = steps(1, 0.01, 10)
    assert list(against_colluders(local, 3)) == local
    assert list(against_broken_aggregation(local)) == local


def test_colluders_and_dropouts_cost_as_the_formula_says():
    """A sum with (n - t) / n of its noise has the multiplier z * sqrt((n - t) / n): the known table for z = 4.244."""
    for lost, expected in ((0, 8.00), (1, 8.53), (2, 9.16), (3, 9.94), (5, 12.26)):
        multiplier = 4.244 / math.sqrt(10) * math.sqrt(10 - lost)
        assert upper_epsilon([Repeated(Gaussian(multiplier), 50)], DELTA) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize(("target", "expected"), [(10, 3.54), (8, 4.24), (4, 7.65), (2, 14.1), (1, 26.4), (0.5, 49.7)])
def test_noise_for_a_target(target, expected):
    found = calibrate_noise(lambda z: [Repeated(Gaussian(z), 50)], target, DELTA)
    assert found == pytest.approx(expected, rel=3e-3)
    assert upper_epsilon([Repeated(Gaussian(found), 50)], DELTA) <= target
    assert upper_epsilon([Repeated(Gaussian(found / 1.003), 50)], DELTA) > target


def test_calibrated_dp_sgd_keeps_the_target():
    found = calibrate_sampled_gaussian(8, DELTA, 0.016, 3100)
    assert upper_epsilon(steps(found, 0.016, 3100), DELTA) <= 8
    assert upper_epsilon(steps(found / 1.003, 0.016, 3100), DELTA) > 8


def test_what_cannot_be_calibrated_is_said():
    for target in (0, -1):
        with pytest.raises(CalibrationError, match="positive"):
            calibrate_noise(lambda z: steps(z, 0.1, 1), target, DELTA)
    with pytest.raises(CalibrationError, match="no noise"):
        calibrate_noise(lambda _: [Repeated(Unknown("x"))], 1, DELTA)
    assert calibrate_noise(lambda _: [], 1, DELTA) < 1e-5


def test_steps_for_a_target():
    step = [Repeated(SampledGaussian(1.2, 0.016))]
    found = affordable_steps(step, 3, DELTA)
    assert upper_epsilon(steps(1.2, 0.016, found), DELTA) <= 3
    assert upper_epsilon(steps(1.2, 0.016, int(found * 1.01)), DELTA) > 3
    assert affordable_steps([Repeated(Gaussian(0.5))], 1, DELTA) == 0
    assert affordable_steps([], 1, DELTA) == 10**9


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussian(0.0),
        lambda: Gaussian(-1.0),
        lambda: Gaussian(math.inf),
        lambda: Gaussian(math.nan),
        lambda: SampledGaussian(1.0, 0.0),
        lambda: SampledGaussian(1.0, 1.1),
        lambda: GroupedSampledGaussian((), 0.1),
        lambda: GroupedSampledGaussian((1.0, 0.0), 0.1),
        lambda: Skellam(1.0, 1.0, 1.0, 0),
        lambda: Skellam(1.0, 0.0, 1.0, 1),
        lambda: DiscreteGaussian(1.0, 1.0, 1.0, 1, 0),
        lambda: DiscreteGaussian(1.0, 1.0, math.nan, 1, 1),
        lambda: Repeated(Gaussian(1.0), 0),
        lambda: upper_epsilon(steps(1, 0.1, 1), 0.0),
        lambda: rdp_epsilon(steps(1, 0.1, 1), 1.0),
        lambda: pld_epsilon([Repeated(SKELLAM)], DELTA),
        lambda: prv_interval([Repeated(SKELLAM)], DELTA),
    ],
)
def test_nonsense_is_refused(make):
    with pytest.raises(ValueError):  # noqa: PT011 (the reasons differ)
        make()


@pytest.mark.parametrize(
    "mechanism",
    [
        Gaussian(1.0),
        Gaussian(0.1),
        SampledGaussian(1.1, 256 / 60000),
        GroupedSampledGaussian((1.0, 2.5), 0.01),
        SKELLAM,
        DISCRETE,
        Unknown("no noise"),
    ],
)
def test_facts_survive_the_log(mechanism):
    read = mechanism_of(decode_canonical(encode_canonical(mechanism_fields(mechanism))))
    assert read == mechanism
    assert type(read) is type(mechanism)


@pytest.mark.parametrize(
    "fields",
    [{}, {"type": "os.system"}, {"type": "gaussian"}, {"type": "gaussian", "noise_multiplier": 0}, "gaussian", None],
)
def test_facts_of_no_known_kind_are_refused(fields):
    with pytest.raises(FieldError):
        mechanism_of(fields)


@pytest.mark.parametrize("sigma", [1e-3, 1e-100, 1e-300])
def test_noise_that_means_nothing_costs_infinity(sigma):
    for composition in (steps(sigma, 0.5, 100), steps(sigma, 1.0, 1)):
        found = account(composition, DELTA)
        assert math.isinf(found.upper)
        assert found.lower == 0
        assert found.contradictions == ()  # what is not computed contradicts nothing


@pytest.mark.parametrize(("z", "count"), [(0.2, 50), (0.02, 1)])
def test_accountants_agree_where_exponentials_of_epsilon_overflow(z, count):
    """Against the closed form for Gaussian mechanisms (Balle and Wang 2018, theorem 8), at epsilon 775 and 1462."""
    mu = count**0.5 / z

    def log_deltas(value):
        return stats.norm.logcdf(mu / 2 - value / mu), value + stats.norm.logcdf(-mu / 2 - value / mu)

    def excess(value):
        first, second = log_deltas(value)
        return math.exp(first) - math.exp(second) - DELTA

    exact = optimize.brentq(excess, mu**2 / 2, mu**2 / 2 + 10 * mu)
    assert exact > 710
    composition = [Repeated(Gaussian(z), count)]
    interval = prv_interval(composition, DELTA)
    assert interval.lower <= exact <= interval.upper <= interval.lower + 0.1
    found = account(composition, DELTA)
    assert found.contradictions == ()
    assert found.lower <= exact <= found.upper <= exact + 1.5


@pytest.mark.parametrize(
    "changes", [{"shares": 2**53 - 1}, {"dimension": 2**53 - 1}, {"share_sigma": 1e-300}, {"l2": 1e300}]
)
def test_extreme_facts_are_bounded_in_time(changes):
    found = rdp_epsilon([Repeated(DiscreteGaussian(**{**vars(DISCRETE), **changes}), 2**53 - 1)], DELTA)
    assert found >= 0


def test_huge_losses_are_bounded_in_time():
    """One share of noise with secure aggregation broken can mean an epsilon of thousands: still a sound bound."""
    found = account(steps(0.05, 0.2, 50), DELTA)
    assert 700 < found.upper < found.cross_checks["RDP"]
    assert "PRV" not in found.cross_checks
    assert found.lower is None  # the library's own is none at this size


def test_whoever_opens_a_share_takes_out_what_can_be_removed():
    removable = Skellam(100.0, 10.0, 50.0, 7, least_share_variance=40.0)
    (single,) = against_broken_aggregation([Repeated(removable, 3)])
    assert single == Repeated(Skellam(100.0, 10.0, 40.0, 1, least_share_variance=40.0), 3)
    assert mechanism_of(mechanism_fields(removable)) == removable
    assert "least_share_variance" not in mechanism_fields(Skellam(100.0, 10.0, 50.0, 7))
    with pytest.raises(ValueError, match="least_share_variance"):
        Skellam(100.0, 10.0, 50.0, 7, least_share_variance=51.0)


def test_vectors_of_sums_that_were_never_opened_count_with_the_least_noise_of_a_share():
    sums = [Repeated(Skellam(100.0, 10.0, 40.0, 7)), Repeated(Skellam(100.0, 10.0, 30.0, 7)), Repeated(DISCRETE)]
    seen = against_broken_aggregation(sums, 2)
    assert seen[:3] == against_broken_aggregation(sums)
    assert seen[3:] == (Repeated(Skellam(100.0, 10.0, 30.0, 1), 2),)
    assert against_broken_aggregation(sums, 0) == seen[:3]
    (unknown,) = against_broken_aggregation([], 2)
    assert upper_epsilon([unknown], DELTA) == math.inf
