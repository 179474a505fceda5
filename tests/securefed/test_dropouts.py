import pytest

from audit.log import read_events
from audit.verify import verify_run
from securefed.aggregation import first_lost
from securefed.config import STAGES, SimulationConfig, config_from_mapping
from securefed.dropouts import check_schedule, dropouts_of_round
from securefed.errors import ConfigError, RoundAbortedError
from tests.securefed.test_simulation import run

SITES = [f"site{index}" for index in range(10)]
MANY = [f"h{number:03d}" for number in range(101)]


def losing(entry, masked=True, model="active"):
    """Five rounds that lose what the entry says."""
    sections = {"federation": {"rounds": 5}, "secure_aggregation": {"enabled": masked, "threat_model": model}}
    return config_from_mapping({**sections, "simulation": {"drop": [entry]}})


def test_draws_depend_on_seed_and_round_alone():
    config = SimulationConfig(dropout=0.4)
    first = [dropouts_of_round(config, SITES, number, 7, 10) for number in range(1, 30)]
    assert first == [dropouts_of_round(config, list(reversed(SITES)), number, 7, 10) for number in range(1, 30)]
    assert first != [dropouts_of_round(config, SITES, number, 8, 10) for number in range(1, 30)]


def test_the_rate_is_kept_and_every_stage_occurs():
    config = SimulationConfig(dropout=0.3)
    lost = [stage for number in range(1, 401) for stage in dropouts_of_round(config, SITES, number, 0, 10).values()]
    # 4,000 draws: six standard deviations of the binomial are 0.044
    assert abs(len(lost) / 4000 - 0.3) < 0.044
    assert set(lost) == set(STAGES)


def test_a_named_drop_is_kept_to_its_round():
    config = SimulationConfig(drop=("site3@2:ShareKeys",))
    assert dropouts_of_round(config, SITES, 2, 0, 10) == {"site3": "ShareKeys"}
    assert dropouts_of_round(config, SITES, 1, 0, 10) == {}


@pytest.mark.parametrize(("entry", "says"), [("nobody@1:Unmasking", "no site"), ("site1@9:Unmasking", "has 5 rounds")])
def test_a_drop_that_cannot_happen_is_refused(entry, says):
    with pytest.raises(ConfigError, match=says):
        check_schedule(losing(entry), SITES)


def test_a_stage_that_only_some_rounds_have_is_lost_at_where_they_have_it():
    ring = losing("h003@1:RevealNonces")
    check_schedule(ring, MANY)
    assert dropouts_of_round(ring.simulation, MANY, 1, 0, 10) == {"h003": "RevealNonces"}
    check_schedule(losing("site1@2:PlainInputCollection", masked=False), SITES)
    for entry, sites, masked, says in (
        ("site1@1:RevealNonces", SITES, True, "more than 100 sites have it"),
        ("h003@1:RevealNonces", MANY, False, "only rounds under masks.*; use PlainInputCollection"),
        ("site1@1:PlainInputCollection", SITES, True, "only rounds in clear have it"),
    ):
        with pytest.raises(ConfigError, match=says):
            check_schedule(losing(entry, masked), sites)


@pytest.mark.parametrize("masked", [True, False])
def test_nobody_is_lost_at_a_check_that_semi_honest_rounds_leave_out(masked):
    entry = "site1@1:ConsistencyCheck"
    check_schedule(losing(entry, masked), SITES)
    with pytest.raises(ConfigError, match="only rounds with the threat model active have it; use Unmasking"):
        check_schedule(losing(entry, masked, "semi-honest"), SITES)
    config, at = SimulationConfig(dropout=0.5), set()
    for number in range(1, 30):
        active = dropouts_of_round(config, SITES, number, 7, 10)
        there = dropouts_of_round(config, SITES, number, 7, 10, semi_honest=True)
        assert there == {site: {"ConsistencyCheck": "Unmasking"}.get(stage, stage) for site, stage in active.items()}
        at |= set(active.values())
    assert "ConsistencyCheck" in at


def test_losses_of_semi_honest_rounds_are_at_stages_that_they_have(small_run, tmp_path):
    secure = {"threat_model": "semi-honest"}
    federation = {"rounds": 8, "seed": 4}
    config = small_run(federation=federation, simulation={"dropout": 0.4}, secure_aggregation=secure)
    result = run(config, tmp_path)
    lost = result.summary["secure_aggregation"]["dropouts"]
    assert lost["Unmasking"] >= 1
    assert lost["ConsistencyCheck"] == 0
    assert verify_run(result.folder.path).is_verified


def test_no_more_are_lost_at_random_than_a_round_survives_but_named_ones_are_lost_whatever_follows():
    config = SimulationConfig(dropout=0.5, drop=("site0@3:ShareKeys", "site1@3:ShareKeys", "site2@3:ShareKeys"))
    sizes = [len(dropouts_of_round(config, SITES, number, 0, 2)) for number in range(1, 40)]
    assert max(size for number, size in enumerate(sizes, 1) if number != 3) == 2
    assert sizes[2] == 3


def test_losses_by_name_are_among_those_that_a_round_survives():
    """Else the two together ended rounds that would have survived either."""
    config = SimulationConfig(dropout=0.7, drop=("site0@2:MaskedInputCollection",))
    lost = dropouts_of_round(config, SITES, 2, 1, 4)
    assert len(lost) == 4
    assert lost["site0"] == "MaskedInputCollection"


def test_a_site_that_refuses_before_it_would_be_lost_is_lost_where_it_refused():
    planned = {"a": "Unmasking", "b": "AdvertiseKeys"}
    lost = {"a": "MaskedInputCollection", "b": "PlainInputCollection", "c": "ShareKeys"}
    assert first_lost(planned, lost) == {"a": "MaskedInputCollection", "b": "AdvertiseKeys", "c": "ShareKeys"}


def test_losses_at_random_change_nothing_between_masked_and_plain(small_run, tmp_path):
    results = [
        run(
            small_run(federation={"rounds": 8}, simulation={"dropout": 0.3}, secure_aggregation={"enabled": enabled}),
            tmp_path,
            str(enabled),
        )
        for enabled in (True, False)
    ]
    assert results[0].summary["fam_sha256"] == results[1].summary["fam_sha256"]
    counts = [result.summary["secure_aggregation"]["dropouts"] for result in results]
    assert counts[0] == counts[1]
    assert sum(counts[0].values()) >= 4
    assert verify_run(results[0].folder.path).is_verified


@pytest.mark.parametrize("enabled", [True, False])
def test_an_aborted_round_leaves_its_bytes_and_losses_in_the_log(small_run, tmp_path, enabled):
    drop = [f"site{number}@2:MaskedInputCollection" for number in range(3)]
    config = small_run(simulation={"drop": drop}, secure_aggregation={"enabled": enabled})
    with pytest.raises(RoundAbortedError, match="2 clients are left"):
        run(config, tmp_path)
    aborted = read_events(tmp_path / "run" / "audit.jsonl")[-1]
    assert aborted.kind == "round_aborted"
    assert len(aborted.fields["dropouts"]) == 3
    assert ("bytes" in aborted.fields) is enabled


def test_who_loses_sites_at_random_is_not_told_to_bring_them_back(small_run, tmp_path, monkeypatch):
    """A resumed run loses the same ones again. On a ring a loss that is borne on the whole can end a round."""
    monkeypatch.setattr("securefed.sum_terms.SumTerms.bearable_losses", lambda _: 5)
    with pytest.raises(RoundAbortedError, match=r"at random\): start a new run") as caught:
        run(small_run(simulation={"dropout": 0.9}), tmp_path)
    assert set(caught.value.planned) == set(caught.value.dropouts)
