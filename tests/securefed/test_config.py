from dataclasses import replace

import pytest

from clients.method.settings import TrainingSettings
from securefed.config import (
    FederationConfig,
    RunConfig,
    config_digest,
    config_from_mapping,
    config_to_mapping,
    load_config,
    parse_assignment,
    write_config,
)
from securefed.errors import ConfigError
from securefed.sweep.plan import read_plan


def test_the_defaults_are_valid_and_secure():
    config = RunConfig()
    assert config.secure_aggregation.enabled
    assert config.secure_aggregation.threat_model == "active"
    assert config.data.source == "demo"


def test_a_written_configuration_is_read_back_equal(tmp_path):
    config = config_from_mapping(
        {"training": {"profile": "paper", "batch_size": 16}, "simulation": {"drop": ["a@2:Unmasking"]}}
    )
    write_config(config, tmp_path / "config.toml")
    again = load_config(tmp_path / "config.toml")
    assert again == config
    assert config_digest(again) == config_digest(config)
    assert config_to_mapping(again) == config_to_mapping(config)


def test_overrides_are_stronger_than_the_file(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[federation]\nrounds = 7\nseed = 3\n")
    config = load_config(path, {"federation.rounds": 9})
    assert (config.federation.rounds, config.federation.seed) == (9, 3)


def test_a_profile_that_is_named_beside_a_resolved_file_is_that_of_the_run(tmp_path):
    path = tmp_path / "config.toml"
    write_config(load_config(None, {"federation.rounds": 7, "training.batch_size": 8}), path)
    named = load_config(path, {"training.profile": "paper", "training.fam_width": 16})
    assert named.training == replace(TrainingSettings.paper(), fam_width=16)
    assert named.federation.rounds == 7


def test_a_profile_of_a_sweep_is_stronger_than_a_resolved_file(tmp_path):
    path = tmp_path / "sweep.toml"
    write_config(load_config(), path)
    path.write_text(path.read_text() + '\n[grid]\n"training.profile" = ["paper", "default"]\n', encoding="utf-8")
    cells = read_plan(path).cells
    assert [cell.config.training for cell in cells] == [TrainingSettings.paper(), TrainingSettings.default()]


def test_a_profile_that_is_named_beside_a_file_with_some_settings_is_what_they_change(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('[training]\nprofile = "default"\nbatch_size = 8\n', encoding="utf-8")
    assert load_config(path, {"training.profile": "paper"}).training == replace(TrainingSettings.paper(), batch_size=8)


def test_the_paper_profile_starts_from_the_published_settings_and_takes_changes():
    config = config_from_mapping({"training": {"profile": "paper", "batch_size": 8}})
    published = TrainingSettings.paper()
    assert config.training.fam_loss == published.fam_loss == "contrastive"
    assert config.training.batch_size == 8


def test_the_largest_seed_has_a_digest():
    assert len(config_digest(config_from_mapping({"federation": {"seed": 2**53 - 1}}))) == 64
    with pytest.raises(ConfigError, match=r"2\*\*53 - 1"):
        FederationConfig(seed=2**53)


def test_the_digest_changes_with_any_value():
    digests = {
        config_digest(config_from_mapping(tree))
        for tree in ({}, {"federation": {"seed": 1}}, {"training": {"batch_size": 31}}, {"data": {"source": "x"}})
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("tree", "key", "says"),
    [
        ({"federation": {"round": 3}}, "federation.round", "did you mean rounds"),
        ({"federatoin": {}}, "federatoin", "did you mean federation"),
        ({"federation": {"rounds": -1}}, "federation.rounds", "1 or more"),
        ({"federation": {"rounds": "many"}}, "federation.rounds", "of type int"),
        ({"federation": {"rounds": True}}, "federation.rounds", "of type int"),
        ({"federation": {"rounds": 2.0}}, "federation.rounds", "of type int"),
        ({"federation": 3}, "federation", "is a section"),
        ({"federation": {"method": "fedsgd"}}, "federation.method", "fedmedclip"),
        ({"data": {"alpha": 0.5}}, "data.alpha", "data.clients"),
        ({"training": {"profile": "best"}}, "training.profile", "default"),
        ({"training": {"batchsize": 3}}, "training.batchsize", "did you mean batch_size"),
        ({"training": {"batch_size": 0}}, "training.batch_size", "at least 1"),
        ({"secure_aggregation": {"update_range": 1e-46}}, "secure_aggregation.update_range", "use 1e-30 to 1e6"),
        ({"training": {"fam_logit_scale": 1e39}}, "training.fam_logit_scale", "must be 0 or 1e-30 to 1e+30"),
        ({"secure_aggregation": {"value_bits": 40}}, "secure_aggregation.value_bits", "8 to 22"),
        ({"simulation": {"dropout": 1.0}}, "simulation.dropout", "below 1"),
        ({"simulation": {"drop": ["a@0:Unmasking"]}}, "simulation.drop", "SITE@ROUND:STAGE"),
        ({"simulation": {"drop": ["a@1:Lunch"]}}, "simulation.drop", "ConsistencyCheck"),
        ({"simulation": {"drop": "a@1:Unmasking"}}, "simulation.drop", "a list"),
        ({"simulation": {"drop": ["a@1:Unmasking", "a@1:ShareKeys"]}}, "simulation.drop", "lost in round 1 already"),
        ({"encoder": {"prompt": "a picture"}}, "encoder.prompt", "{class}"),
        ({"encoder": {"prompt": "a {class}\nand more"}}, "encoder.prompt", "on one line"),
        ({"encoder": {"prompt": "{class}" * 600}}, "encoder.prompt", "4200 characters, at most 4000"),
        ({"encoder": {"name": "features:" + "x" * 192}}, "encoder.name", "at most 200 can be recorded"),
        ({"purpose": {"controller": "\udcff"}}, "purpose.controller", "is not UTF-8"),
        ({"data": {"class_names": ["a", "b\x07"]}}, "data.class_names", "control characters"),
        ({"federation": {"seed": 2**53}}, "federation.seed", "2**53 - 1"),
        ({"training": {"batch_size": 2**53}}, "training.batch_size", "2**53 - 1"),
        ({"secure_aggregation": {"upload_budget": 10**400}}, "secure_aggregation.upload_budget", "2**53 - 1"),
        ({"privacy": {"mode": "local", "epsilon": 10**400}}, "privacy.epsilon", "2**53 - 1"),
        ({"training": {"profile": []}}, "training.profile", "default"),
        ({"training": {"profile": []}, "privacy": {"mode": "local"}}, "training.profile", "default"),
        ({"training": 3}, "training", "is a section"),
        (None, "", "a configuration is a mapping of sections, not of type NoneType"),
        (5, "", "not of type int"),
        ({1: 2}, "", "1 is no key; keys are texts, known here: data,"),
        ({"data": {None: 1}}, "data", "None is no key"),
        ({"training": {("batch_size",): 1}}, "training", "is no key"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_the_way_out(tree, key, says):
    with pytest.raises(ConfigError, match=r".") as caught:
        config_from_mapping(tree)
    assert caught.value.key == key
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[federation", "federation = {rounds = }", "\xff"])
def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        load_config(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="none\\.toml cannot be read"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training.batch_size=64", ("training.batch_size", 64)),
        ("data.source=C:/x y", ("data.source", "C:/x y")),
        ("training.mlp_to_fam=false", ("training.mlp_to_fam", False)),
        ('simulation.drop=["a@1:Unmasking"]', ("simulation.drop", ["a@1:Unmasking"])),
    ],
)
def test_an_assignment_is_read_as_toml_or_else_as_text(text, expected):
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["rounds=3", "training.batch_size", ""])
def test_an_assignment_without_section_or_value_is_refused(text):
    with pytest.raises(ConfigError, match="SECTION\\.KEY=VALUE"):
        parse_assignment(text)


def test_a_site_is_named_in_whatever_form_of_unicode():
    config = config_from_mapping({"simulation": {"drop": ["Zu\u0308rich@2:Unmasking"]}})
    assert config.simulation.schedule() == {("Z\u00fcrich", 2): "Unmasking"}
