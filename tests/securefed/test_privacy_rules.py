"""Each combination whose claim would not hold is refused by name, and docs/privacy.md has the rule."""

import re
from pathlib import Path

import pytest

from audit.accounting import SampledGaussian
from securefed.config import config_from_mapping
from securefed.errors import ConfigError
from securefed.privacy.claim import reason, verdict
from securefed.privacy.mechanism import local_cost, noise_multiplier, step_settings
from securefed.privacy.rules import broken_rules, check_privacy

RULES = Path(__file__).resolve().parents[2] / "docs" / "privacy.md"
LOCAL = {"privacy": {"mode": "local", "epsilon": 8.0}}


def configured(**changes):
    tree = {"privacy": dict(LOCAL["privacy"])}
    for key, value in changes.items():
        section, name = key.split("__")
        tree.setdefault(section, {})[name] = value
    return config_from_mapping(tree)


@pytest.mark.parametrize(
    ("changes", "rule", "key"),
    [
        ({"training__fam_loss": "contrastive"}, "P1", "training.fam_loss"),
        ({"training__distillation": "class-wise"}, "P2", "training.distillation"),
        ({"training__mlp_norm": "batch"}, "P3", "training.mlp_norm"),
        ({"privacy__coupling": "one-way", "training__mlp_to_fam": True}, "P4", "training.mlp_to_fam"),
        ({"privacy__coupling": "one-way", "training__distillation": "per-example"}, "P4", "training.distillation"),
        ({"training__prior_adjustment": 1.0}, "P5", "training.prior_adjustment"),
        ({"training__class_balance": 0.5}, "P5", "training.class_balance"),
        ({"training__local_epochs": 2}, "P6", "training.local_epochs"),
        ({"training__local_epochs": 2, "federation__method": "fedclip"}, "P6", "training.local_epochs"),
        ({"federation__select": "best-val"}, "P8", "federation.select"),
        ({"training__feature_dropout": 0.3}, "P9", "training.feature_dropout"),
        ({"training__mlp_dropout": 0.3, "training__mlp_layers": 1}, "P9", "training.mlp_dropout"),
        ({"privacy__mode": "distributed", "privacy__steps": 4}, "P11", "privacy.steps"),
        ({"privacy__mode": "distributed", "privacy__coupling": "joint"}, "P4", "privacy.coupling"),
        (
            {
                "privacy__mode": "distributed",
                "privacy__dropout_noise": "xnoise",
                "privacy__mechanism": "discrete-gaussian",
            },
            "P19",
            "privacy.dropout_noise",
        ),
        ({"federation__method": "fedavg-mlp"}, "P12", "federation.method"),
        ({"federation__method": "linear-probe"}, "P12", "federation.method"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_the_rule(changes, rule, key):
    config = configured(**changes)
    found = broken_rules(config)
    assert (rule, key) in [(broken.rule, broken.key) for broken in found]
    if config.privacy.mode == "local":
        with pytest.raises(ConfigError, match=rf"rule {found[0].rule} of docs/privacy.md"):
            check_privacy(config)


def test_noise_from_a_seed_breaks_a_rule_and_may_run():
    config = configured(privacy__noise="seeded")
    assert [broken.rule for broken in broken_rules(config)] == ["P10"]
    check_privacy(config)


def test_a_method_without_an_mlp_has_no_noise_for_one():
    """Epsilon of the FAM alone is what is stated, and the claim names no MLP."""
    config = configured(federation__method="fedclip")
    assert not config.privacy.clips_by_group
    assert broken_rules(config) == []
    assert len(step_settings(config.privacy, 50).noise_multipliers) == 1
    cost = local_cost(config.privacy, 50)
    assert cost.mechanism == SampledGaussian(noise_multiplier(config.privacy, 50), 1.0)
    assert "there is no private MLP" in reason(config)
    with_groups = {"privacy__fam_clip_norm": 1.0, "privacy__mlp_clip_norm": 1.0}
    broken = broken_rules(configured(federation__method="fedclip", **with_groups))
    assert [(rule.rule, rule.key) for rule in broken] == [("P18", "privacy.fam_clip_norm")]


@pytest.mark.parametrize("unit", ["image", "patient"])
@pytest.mark.parametrize(
    "changes", [{}, {"federation__method": "fedclip"}, {"privacy__coupling": "one-way", "training__mlp_to_fam": False}]
)
def test_a_claim_says_what_one_neighbour_more_or_less_is(changes, unit):
    whose = "training images, those of a patient together" if unit == "patient" else "training images"
    said = reason(configured(**changes, privacy__unit=unit))
    assert said.startswith(f"{whose}, in all updates of the FAM")
    assert said.endswith("there is no private MLP") is ("federation__method" in changes)


@pytest.mark.parametrize(
    ("privacy", "claimed"),
    [
        ({"epsilon": 23.0}, True),
        ({"epsilon": 23.1}, False),
        ({"noise_multiplier": 5.0}, True),
        ({"noise_multiplier": 1.0}, False),
        ({"noise_multiplier": 1.0, "epsilon": 8.0}, True),
        ({"noise_multiplier": 1.0, "epsilon": 100.0}, False),
        ({"noise_multiplier": 5.0, "epsilon": 100.0}, True),
    ],
)
def test_what_a_whole_run_may_come_to_decides_whether_anything_is_claimed(privacy, claimed):
    """50 rounds; a target stops the run, whatever the noise would cost."""
    config = config_from_mapping({"privacy": {"mode": "local", **privacy}})
    assert verdict(config) == ("CLAIMED" if claimed else "NOT CLAIMED")
    assert reason(config).startswith("training images" if claimed else "no meaningful epsilon")


def test_the_profiles_of_the_method_are_refused_with_all_their_couplings():
    rules = {broken.rule for broken in broken_rules(configured(training__profile="paper"))}
    assert {"P1", "P2", "P3"} <= rules
    rules = {broken.rule for broken in broken_rules(configured(training__profile="default"))}
    assert rules == {"P5", "P9"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"privacy__unit": "patient"},
        {"privacy__coupling": "one-way"},
        {"privacy__clip_norm": 2.0},
        {"federation__method": "fedclip", "training__mlp_norm": "batch"},
        {"privacy__coupling": "one-way", "training__mlp_norm": "batch"},
        {"training__ensemble": "pool"},
        {"privacy__mode": "distributed"},
        {"privacy__mode": "distributed", "privacy__dropout_noise": "xnoise"},
        {"privacy__mode": "distributed", "privacy__adjacency": "replace-one", "privacy__sampling_rate": 1.0},
        {"privacy__mode": "distributed", "privacy__adjacency": "replace-one", "privacy__sampling_rate": 0.5},
        {"privacy__mode": "hospital", "privacy__adjacency": "replace-one"},
        {"privacy__adjacency": "replace-one", "privacy__sampling_rate": 0.5},
    ],
)
def test_what_holds_is_allowed(changes):
    assert broken_rules(configured(**changes)) == []


def test_without_privacy_there_are_no_rules():
    assert broken_rules(config_from_mapping({"training": {"profile": "paper"}})) == []


def test_every_rule_that_can_be_broken_is_written_down():
    source = (Path(__file__).resolve().parents[2] / "securefed" / "privacy").rglob("*.py")
    named = {rule for path in source for rule in re.findall(r"\bP[0-9]+\b", path.read_text())}
    written = set(re.findall(r"^\| (P[0-9]+) \|", RULES.read_text(), re.MULTILINE))
    assert named <= written
    assert {f"P{number}" for number in range(1, len(written) + 1)} == written
