"""A record keeps to its configuration: what is claimed, with which noise, about whom, and under which names."""

from dataclasses import replace

import pytest

from audit import EventLog
from audit.accounting import (
    DiscreteGaussian,
    Gaussian,
    Repeated,
    SampledGaussian,
    Skellam,
    calibrate_noise,
    calibrate_sampled_gaussian,
    mechanism_fields,
)
from audit.check_releases import check_releases, check_target
from audit.check_terms import IN_SHARES, check_terms
from audit.errors import EvidenceError
from audit.history import read_history
from audit.verify import Outcome, verify_run
from tests.audit.runs import SITES, D, Run, Ticks, configuration, round_fields
from tests.audit.tampering import edited, failure


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mode": "distributed"}, "privacy_claim has distributed, config.toml has privacy.mode = local"),
        ({"unit": "hospital"}, "privacy.unit = image"),
        ({"adjacency": "replace-one"}, "privacy.adjacency = add-or-remove-one"),
        ({"delta": 1e-6}, "privacy.delta = 1e-05"),
        ({"target_epsilon": 0.1}, "privacy.target_epsilon = None"),
        ({"values": {"noise_source": "system"}}, "noise = None, config.toml has privacy: noise = system"),
    ],
)
def test_a_claim_that_is_not_the_configured_one_is_found(private_run, change, reason):
    at = edited(private_run, "privacy_claim", lambda fields: fields.update(change))
    first, found = failure(private_run)
    assert first == at
    assert reason in found


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"normaliser": 1.0}, "normaliser = 1, config.toml has privacy: normaliser = 64"),
        ({"sampling_rate": 0.001}, "sampling_rate = 0.001"),
        ({"coupling": "one-way"}, "coupling = one-way"),
        ({"noise": "numpy PCG64"}, "noise = numpy PCG64"),
        ({"steps_a_round": 7}, "steps_a_round = 7"),
    ],
)
def test_what_a_claim_says_of_the_training_is_configured(tmp_path, values, reason):
    claim = {"mode": "local", "unit": "image", "adjacency": "add-or-remove-one", "delta": 1e-5}
    stated = {"coupling": "joint", "noise": "system", "sampling_rate": 1.0, "normaliser": 64.0}
    privacy, claim = {**claim, **stated, "steps": 1}, {**claim, "claim": "CLAIMED"}
    event = {"mechanism": mechanism_fields(Gaussian(20.0))}
    for folder in ("true", "false"):
        (tmp_path / folder).mkdir()
    check_terms(log_of(tmp_path / "true", privacy, [event], claim={**claim, "values": {**stated, "steps_a_round": 1}}))
    with pytest.raises(EvidenceError, match=reason):
        check_terms(log_of(tmp_path / "false", privacy, [event], claim={**claim, "values": {**stated, **values}}))


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ({"mode": "local", "unit": "patient", "delta": 1e-5}, "privacy_claim has local, config.toml has privacy.mode"),
        ({}, "privacy is claimed without noise"),
        ({"delta": 1e-5}, "config.toml has privacy.delta = None"),
    ],
)
def test_privacy_that_nobody_configured_cannot_be_claimed(tmp_path, claim, reason):
    event = {"mechanism": mechanism_fields(Gaussian(20.0))}
    history = log_of(tmp_path, {}, [event], claim={"mode": "off", "claim": "CLAIMED", **claim})
    with pytest.raises(EvidenceError, match=reason):
        check_terms(history)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda f: f["mechanism"].update(noise_multiplier=1.3), "has 1.3, config.toml has privacy.noise_multiplier"),
        (lambda f: f["mechanism"].update(sampling_rate=0.01), "has 0.01, config.toml has privacy.sampling_rate"),
        (lambda f: f.update(mechanism=mechanism_fields(Gaussian(1.2))), "has gaussian, config.toml has privacy.mode"),
        (lambda f: f.update(repetitions=1), "has 1, config.toml has privacy.steps = 62"),
        (lambda f: f.pop("hospital"), "a release of all hospitals together"),
        (lambda f: f.update(release_id="nonsense"), "the release nonsense should be named r1."),
    ],
)
def test_a_release_that_the_mode_does_not_make_is_found(private_run, edit, reason):
    at = edited(private_run, "privacy_event", edit)
    first, found = failure(private_run)
    assert first == at
    assert reason in found


def log_of(tmp_path, privacy, events, *, claim=None, protocol=None, masked=True, rounds=1):
    """The history of one round of a run with these privacy events."""
    values = configuration(rounds, masked=masked)
    values["privacy"] |= {"noise": "system", "dropout_noise": "auto", "mechanism": "skellam", **privacy}
    described = {"secure_aggregation": masked, "clients": 3, "dimension": 2, "threat_model": "active", "threshold": 3}
    shares = {"values": {"min_survivors": 3}} if privacy.get("mode") in IN_SHARES else {}
    described |= {"corrupt": 0, **shares, **(protocol or {})}
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "run", "operation": "simulation"}, Ticks()) as log:
        log.append("config", {"digest": D, "values": values})
        log.append("protocol_described", described)
        if claim is not None:
            log.append("privacy_claim", {"reason": "noise", **claim})
        log.append("round_started", {"round": 1, "cohort": list(SITES), "model_digest": D})
        for event in events:
            log.append("privacy_event", {"repetitions": 1, "round": 1, **event})
        log.append("round_completed", round_fields(1))
        return read_history(log.events)


SHARED = {"mode": "distributed", "noise_multiplier": 2.0, "sampling_rate": 1.0, "steps": 1, "max_colluders": 0}
NORM, SHARES = 50.0, 3
VARIANCE = (2.0 * NORM) ** 2 / SHARES


@pytest.mark.parametrize(
    ("privacy", "mechanism", "reason"),
    [
        ({}, Skellam(90.0, NORM, VARIANCE, SHARES), None),
        ({}, Skellam(90.0, NORM, 1.01 * VARIANCE, SHARES), "privacy.noise_multiplier = 2"),
        ({"max_colluders": 1}, Skellam(90.0, NORM, 1.5 * VARIANCE, SHARES), None),
        ({"max_colluders": 1}, Skellam(90.0, NORM, 1.6 * VARIANCE, SHARES), "privacy.noise_multiplier = 2"),
        ({"dropout_noise": "conservative"}, Skellam(90.0, NORM, 1.5 * VARIANCE, SHARES), "noise_multiplier"),
        ({"mechanism": "discrete-gaussian"}, DiscreteGaussian(90.0, NORM, VARIANCE**0.5, SHARES, 2), None),
        ({"mechanism": "discrete-gaussian"}, DiscreteGaussian(90.0, NORM, 2 * VARIANCE, SHARES, 2), "multiplier"),
        ({}, DiscreteGaussian(90.0, NORM, VARIANCE**0.5, SHARES, 2), "privacy.mechanism = skellam"),
        ({}, SampledGaussian(2.0, 1.0), "has sampled-gaussian, config.toml has privacy.mode = distributed"),
    ],
)
def test_noise_in_shares_is_not_above_the_configured_one(tmp_path, privacy, mechanism, reason):
    event = {"mechanism": mechanism_fields(mechanism), "release_id": "sum/1/0"}
    history = log_of(tmp_path, SHARED | privacy, [event])
    if reason is None:
        return check_releases(history)
    with pytest.raises(EvidenceError, match=reason):
        check_releases(history)
    return None


def test_shares_are_of_the_fewest_hospitals_where_nothing_is_made_up_for(tmp_path):
    """Conservative shares for two survivors: with three of them there is more noise in the sum than configured."""
    event = {"mechanism": mechanism_fields(Skellam(90.0, NORM, 1.5 * VARIANCE, SHARES)), "release_id": "sum/1/0"}
    protocol = {"threshold": 2, "values": {"min_survivors": 2}}
    check_releases(log_of(tmp_path, SHARED | {"dropout_noise": "conservative"}, [event], protocol=protocol))


@pytest.mark.parametrize(("fewest", "sound"), [(90, True), (3, False)])
def test_of_more_than_100_hospitals_losses_are_made_up_for_where_all_hold_shares(tmp_path, fewest, sound):
    """On a ring, whose sums are over all that the losses leave, each share is sized for these; elsewhere none is."""
    variance = (2.0 * NORM) ** 2 / fewest
    mechanism = Skellam(90.0, NORM, variance, 95, least_share_variance=0.9 * variance)
    event = {"mechanism": mechanism_fields(mechanism), "release_id": "sum/1/0"}
    protocol = {"clients": 101, "values": {"min_survivors": fewest}}
    history = log_of(tmp_path, SHARED, [event], protocol=protocol)
    if sound:
        return check_releases(history)
    with pytest.raises(EvidenceError, match=r"privacy.noise_multiplier = 2"):
        check_releases(history)
    return None


FACTS = {"clip_norm": 1.0, "colluders": 0, "noise_mechanism": "skellam", "noise_multiplier": 2.0, "min_survivors": 3}


@pytest.mark.parametrize("kind", ["protocol_described", "privacy_claim"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"clip_norm": 7.0}, "clip_norm = 7, config.toml has clip_norm = 1"),
        ({"colluders": 3}, "colluders = 3, config.toml has colluders = 0"),
        ({"noise_mechanism": "discrete-gaussian"}, "config.toml has noise_mechanism = skellam"),
        ({"noise_multiplier": 9.99}, "noise_multiplier = 9.99, config.toml has noise_multiplier = 2"),
        ({"dropout_noise": "conservative"}, "config.toml has dropout_noise = xnoise"),
        ({"compression": "top-k"}, "config.toml has compression = none"),
        ({"min_survivors": 2}, "min_survivors"),
        ({"l2": 10.0}, "privacy_claim has l2 = "),
    ],
)
def test_facts_of_the_noise_are_the_configured_ones_in_both_events(tmp_path, kind, change, reason):
    privacy = SHARED | {"clip_norm": 1.0, "dropout_noise": "xnoise", "unit": "image", "delta": 1e-5}
    privacy |= {"adjacency": "add-or-remove-one"}
    stated = {event: {**FACTS, "l2": NORM} for event in ("protocol_described", "privacy_claim")}
    stated[kind] |= change
    claim = {"mode": "distributed", "claim": "CLAIMED", "unit": "image", "adjacency": "add-or-remove-one"}
    claim |= {"delta": 1e-5, "values": {**stated["privacy_claim"], "noise": "system"}}
    event = {"mechanism": mechanism_fields(Skellam(90.0, NORM, VARIANCE, SHARES))}
    history = log_of(tmp_path, privacy, [event], claim=claim, protocol={"values": stated["protocol_described"]})
    if reason is None:
        return check_terms(history)
    with pytest.raises(EvidenceError, match=reason):
        check_terms(history)
    return None


def test_shares_sized_for_fewer_than_a_sum_may_be_over_are_found_where_both_events_say_so(tmp_path):
    scope = {"unit": "image", "adjacency": "add-or-remove-one", "delta": 1e-5}
    stated = {**FACTS, "min_survivors": 2}
    claim = {"mode": "distributed", "claim": "CLAIMED", **scope, "values": {**stated, "noise": "system"}}
    event = {"mechanism": mechanism_fields(Skellam(90.0, NORM, VARIANCE, SHARES))}
    privacy = SHARED | scope | {"clip_norm": 1.0, "dropout_noise": "xnoise"}
    history = log_of(tmp_path, privacy, [event], claim=claim, protocol={"values": stated})
    with pytest.raises(EvidenceError, match="states min_survivors 2, its sums are over 3 hospitals or more"):
        check_terms(history)


@pytest.mark.parametrize(
    "name", ["clip_norm", "noise_multiplier", "noise_mechanism", "colluders", "dropout_noise", "min_survivors"]
)
def test_without_noise_in_shares_there_are_no_facts_of_it(tmp_path, name):
    with pytest.raises(EvidenceError, match=f"protocol_described has {name} = 7, config.toml has {name} = None"):
        check_terms(log_of(tmp_path, {"mode": "off"}, [], protocol={"values": {name: 7}}))


@pytest.mark.parametrize("value", [{"secure_aggregation": True}, {"threat_model": "active"}, {"clients": 50}])
def test_a_field_of_its_own_does_not_stand_under_values_too(tmp_path, value):
    """A report that lays the two over one another showed a run in clear as one under masks."""
    with pytest.raises(EvidenceError, match=f"states {next(iter(value))} under values, which is a field of its own"):
        check_terms(log_of(tmp_path, {"mode": "off"}, [], protocol={"values": value}, masked=False))


@pytest.mark.parametrize("value", [{"mode": "local"}, {"claim": "CLAIMED"}, {"delta": 1e-9}])
def test_nor_does_one_of_the_claim(tmp_path, value):
    claim = {"mode": "off", "claim": "NOT CLAIMED", "values": value}
    with pytest.raises(EvidenceError, match=f"privacy_claim states {next(iter(value))} under values"):
        check_terms(log_of(tmp_path, {"mode": "off"}, [], claim=claim))


@pytest.mark.parametrize("colluders", [0, 1])
@pytest.mark.parametrize(("share", "sound"), [(1.0, True), (1.01, False), (None, False)])
def test_what_is_left_of_a_share_is_what_a_round_without_losses_wants(tmp_path, colluders, share, sound):
    """Three of five survive: a share has its part of the noise among these, of which its part among five stays."""
    variance = (2.0 * NORM) ** 2 / (3 - colluders)
    least = 0.0 if share is None else share * variance * (3 - colluders) / (5 - colluders)
    mechanism = Skellam(90.0, NORM, variance, 3, least_share_variance=least)
    event = {"mechanism": mechanism_fields(mechanism), "release_id": "sum/1/0"}
    history = log_of(tmp_path, SHARED | {"max_colluders": colluders}, [event], protocol={"clients": 5})
    if sound:
        return check_releases(history)
    with pytest.raises(EvidenceError, match="at most is left of the variance of a share"):
        check_releases(history)
    return None


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([{"mechanism": mechanism_fields(Skellam(9.0, NORM, 1.0, 3)), "release_id": "sum/1/7"}], "named sum/1/0"),
        ([{"mechanism": mechanism_fields(Skellam(9.0, NORM, 1.0, 3)), "hospital": "north"}], "of one hospital alone"),
    ],
)
def test_a_sum_is_released_as_a_sum(tmp_path, events, reason):
    with pytest.raises(EvidenceError, match=reason):
        check_releases(log_of(tmp_path, SHARED, events))


def test_noise_is_accounted_in_no_run_without(tmp_path):
    event = {"mechanism": mechanism_fields(Gaussian(20.0))}
    with pytest.raises(EvidenceError, match=r"config.toml has privacy.mode = off"):
        check_releases(log_of(tmp_path, {"mode": "off"}, [event]))


@pytest.mark.parametrize(
    ("privacy", "masked", "reason"),
    [
        ({"noise": "seeded"}, True, "claimed with noise that follows from a seed"),
        ({}, False, "claimed with one share of noise in each vector"),
    ],
)
def test_nothing_is_claimed_that_the_configuration_rules_out(tmp_path, privacy, masked, reason):
    scope = {"unit": "image", "adjacency": "add-or-remove-one", "delta": 1e-5}
    claim = {"mode": "distributed", "claim": "CLAIMED", "values": {"noise": "system", **privacy}, **scope}
    event = {"mechanism": mechanism_fields(Skellam(90.0, NORM, VARIANCE, SHARES))}
    history = log_of(tmp_path, SHARED | scope | privacy, [event], claim=claim, masked=masked)
    with pytest.raises(EvidenceError, match=reason):
        check_terms(history)


def test_a_claim_without_a_configuration_is_found(private_run):
    def without(fields):
        fields["kind"] = "purpose"
        fields["values"] = {"purpose": "none"}
        fields.pop("digest")

    edited(private_run, "config", without)
    assert "privacy is claimed in a log that states no configuration" in failure(private_run)[1]


def test_without_config_nothing_is_compared_and_nothing_passed(tmp_path):
    run = Run(tmp_path / "run", rounds=0)
    run.log.close()
    edited(run.folder, "config", lambda f: (f.update(kind="purpose", values={"purpose": "none"}), f.pop("digest")))
    found = next(check for check in verify_run(run.folder).checks if check.name == "configuration")
    assert found.outcome is Outcome.ABSENT


@pytest.mark.parametrize(("excess", "found"), [(1.0, False), (1.5, True)])
def test_noise_for_a_target_is_no_more_than_that_needs(tmp_path, excess, found):
    """With twice the noise a server would state half of the epsilon that the hospitals' noise gives."""
    needed = calibrate_sampled_gaussian(2.0, 1e-5, 0.1, 3 * 5)
    privacy = {"mode": "local", "epsilon": 2.0, "noise_multiplier": 0.0, "sampling_rate": 0.1, "steps": 5}
    privacy |= {"delta": 1e-5, "adjacency": "add-or-remove-one", "max_colluders": 0}
    event = {
        "mechanism": mechanism_fields(SampledGaussian(excess * needed, 0.1)),
        "repetitions": 5,
        "hospital": "north",
    }
    history = log_of(tmp_path, privacy, [event], rounds=3)
    if not found:
        return check_target(history)
    with pytest.raises(EvidenceError, match="and it was made for 2"):
        check_target(history)
    return None


def test_noise_for_a_target_that_needs_none_is_told_as_that(tmp_path):
    """A delta above the chance of being sampled: next to no noise costs epsilon 0, and no target made it."""
    privacy = {"mode": "local", "epsilon": 8.0, "noise_multiplier": 0.0, "sampling_rate": 1e-4, "steps": 1}
    privacy |= {"delta": 1e-3, "adjacency": "add-or-remove-one", "max_colluders": 0}
    event = {"mechanism": mechanism_fields(SampledGaussian(0.003, 1e-4)), "hospital": "north"}
    history = log_of(tmp_path, privacy, [event])
    with pytest.raises(EvidenceError, match=r"epsilon 0, as they would without any: delta 0\.001 is at least"):
        check_target(history)


@pytest.mark.parametrize(("excess", "found"), [(1.0, False), (1.5, True)])
def test_shares_for_a_target_are_no_larger_than_that_needs(tmp_path, excess, found):
    def sums(multiplier, shares):
        return Skellam(90.0 * NORM, NORM, (multiplier * NORM) ** 2 / shares, shares)

    needed = calibrate_noise(lambda multiplier: [Repeated(sums(multiplier, 2), 4)], 2.0, 1e-5)
    privacy = {"mode": "distributed", "epsilon": 2.0, "noise_multiplier": 0.0, "sampling_rate": 1.0, "steps": 1}
    privacy |= {"delta": 1e-5, "adjacency": "add-or-remove-one", "max_colluders": 1, "spare_rounds": 1}
    mechanism = replace(sums(excess * needed, 2), shares=3)
    history = log_of(tmp_path, privacy, [{"mechanism": mechanism_fields(mechanism)}], rounds=3)
    if not found:
        return check_target(history)
    with pytest.raises(EvidenceError, match="and it was made for 2"):
        check_target(history)
    return None
