"""`privacy plan` and `privacy check`: known answers, targets that are met, advice, exit codes."""

import json
from contextlib import suppress

import pytest
from click.testing import CliRunner

from securefed.commands.privacy import command
from securefed.errors import ConfigError, TargetEpsilonError
from securefed.simulation import simulate
from tests.securefed.private_runs import events_of


def plan(*arguments):
    result = CliRunner().invoke(command, ["plan", *map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_a_plan_says_at_once_that_it_may_take_long():
    """On stderr, where those look who wait: stdout is for the figures alone."""
    arguments = ["plan", "--dp", "local", "--noise-multiplier", "4", "--rounds", "2", "--json"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.stderr.startswith("accounting; this takes minutes, or longer, where a rate below 1 meets")
    assert json.loads(result.stdout)["rounds"] == 2


def test_ten_shares_of_a_central_multiplier_of_two():
    """The example of the design has 0.78 and 7.8 by the continuous Gaussian; the noise of a run costs more."""
    planned = plan("--dp", "distributed", "--noise-multiplier", 2, "--sampling-rate", 0.05, "--hospitals", 10)
    assert planned["cross_checks"]["continuous Gaussian"] == pytest.approx(0.78, abs=0.005)
    assert planned["accountant"] == "RDP"
    assert 0.78 < planned["epsilon"] < 0.9
    against = {view["adversary"]: view["epsilon"] for view in planned["against"]}
    assert 7.8 < against["who opens a single update"] < 12
    assert against["who sees the sums"] < against["1 colluding hospital"] < against["who opens a single update"]
    assert planned["noise"]["mechanism"] == "skellam"


@pytest.mark.parametrize("arguments", [["--hospitals", 0], ["--images", -5], ["--embed-dim", 0]], ids=str)
def test_a_plan_for_nobody_is_refused(arguments):
    with pytest.raises(ConfigError, match=f"{arguments[0]}: {arguments[1]}: use [01] or more"):
        plan("--dp", "distributed", "--epsilon", 8, *arguments)


def test_a_small_target_is_decided_by_the_bound_that_is_stated():
    sets = ("steps=100", "centring_steps=0")
    planned = plan(
        *("--epsilon", 0.1, "--noise-multiplier", 98, "--sampling-rate", 0.1, "--rounds", 10),
        *(word for name in sets for word in ("--set", f"privacy.{name}")),
    )
    assert planned["rounds_within_target"] == 10
    assert planned["by_rounds"][-1]["epsilon"] == planned["epsilon"] < 0.0993


@pytest.mark.parametrize("hospitals", [3, 4, 7])
def test_fewer_survivors_have_a_row_only_where_they_cost_more(hospitals):
    planned = plan("--dp", "distributed", "--epsilon", 8, "--hospitals", hospitals)
    costs = {view["adversary"]: view["epsilon"] for view in planned["against"]}
    fewest = [cost for adversary, cost in costs.items() if adversary.endswith("survivors")]
    assert all(cost > costs["who sees the sums"] * (1 + 1e-9) for cost in fewest)


def test_hiding_a_hospital_among_ten_needs_a_multiplier_above_that_of_the_gaussian():
    planned = plan("--dp", "hospital", "--epsilon", 8, "--hospitals", 10)
    assert 4.24 < planned["noise_multiplier"] < 4.24 * 1.15
    assert planned["cross_checks"]["continuous Gaussian"] < planned["epsilon"] <= 8
    assert planned["rounds_within_target"] == planned["rounds"] == 50
    assert "hiding a whole hospital" in planned["recommended"][0]


@pytest.mark.parametrize("dropout_noise", ["xnoise", "conservative"])
@pytest.mark.parametrize("colluders", [0, 1])
def test_the_cross_check_is_of_the_noise_that_epsilon_is_of(dropout_noise, colluders):
    """All shares of five hospitals are more than what four of them must add, or the honest ones alone."""
    given = ("--dp", "distributed", "--noise-multiplier", 1.3, "--rounds", 3, "--hospitals", 5)
    sets = ("--set", f"privacy.dropout_noise={dropout_noise}", "--max-colluders", colluders)
    planned = plan(*given, *sets, "--sampling-rate", 1)
    assert 0.8 * planned["epsilon"] < planned["cross_checks"]["continuous Gaussian"] <= planned["epsilon"]


@pytest.mark.parametrize(
    "privacy",
    [
        {"mode": "distributed", "epsilon": 8.0, "sampling_rate": 0.3},
        {"mode": "distributed", "epsilon": 4.0, "mechanism": "discrete-gaussian", "max_colluders": 1},
        {"mode": "hospital", "epsilon": 8.0, "dropout_noise": "conservative"},
    ],
)
def test_the_plan_says_what_the_run_reports(small_run, tmp_path, privacy):
    run = simulate(small_run(privacy=privacy, training={"fam_width": 4}), output=tmp_path / "run")
    sets = [word for key, value in privacy.items() for word in ("--set", f"privacy.{key}={value}")]
    sets += ["--set", "training.fam_width=4"]
    planned = plan("--dp", privacy["mode"], "--rounds", 3, "--hospitals", 5, "--embed-dim", 24, *sets)
    stated, mechanism = run.summary["privacy"], run.summary["privacy"]["mechanism"]
    assert planned["epsilon"] == pytest.approx(stated["epsilon"], rel=1e-9)
    assert planned["noise_multiplier"] == mechanism["noise_multiplier"]
    against = {view["adversary"]: view["epsilon"] for view in planned["against"]}
    assert against["who opens a single update"] == pytest.approx(stated["epsilon_by_adversary"]["aggregation_broken"])
    if privacy.get("max_colluders"):
        assert against["1 colluding hospital"] == pytest.approx(stated["epsilon_by_adversary"]["colluders"]["1"])


def test_too_few_hospitals_are_named():
    result = CliRunner().invoke(command, ["plan", "--dp", "distributed", "--epsilon", "8", "--hospitals", "2"])
    assert isinstance(result.exception, ConfigError)


def test_local_noise_meets_its_target_and_the_target_its_limits():
    planned = plan("--epsilon", 4, "--rounds", 30, "--sampling-rate", 0.25, "--images", 400)
    assert 3.95 < planned["epsilon"] <= 4
    assert planned["cross_checks"]["RDP"] >= planned["epsilon"]
    assert planned["rounds_within_target"] >= 30
    assert planned["rate_within_target"] == pytest.approx(0.25, rel=0.05)
    assert planned["epsilon_replace_one"] > planned["epsilon"]
    costs = [point["epsilon"] for point in planned["by_rounds"]]
    assert costs == sorted(costs)
    needed = [row["noise_multiplier"] for row in planned["alternatives"]]
    assert needed == sorted(needed)
    assert any("profile private" in line for line in planned["recommended"])
    assert planned["expected_units_a_step"] == 100


def test_the_plan_is_drawn_and_told_in_words(tmp_path):
    arguments = ["plan", "--noise-multiplier", "3", "--rounds", "4", "--plot", str(tmp_path)]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    for words in ("noise multiplier", "epsilon", "against everybody", "recommended", "privacy-plan.svg"):
        assert words in result.stdout
    assert (tmp_path / "privacy-plan.svg").read_text().lstrip().startswith("<?xml")
    assert (tmp_path / "privacy-plan.png").stat().st_size > 1000


def test_check_and_plan_say_that_an_epsilon_is_too_large_to_be_claimed():
    result = CliRunner().invoke(command, ["check", "--epsilon", "30"], catch_exceptions=False)
    assert result.exit_code == 2
    assert "claim  privacy.epsilon: no meaningful epsilon: it may come to 30" in result.output
    assert "no meaningful epsilon" in plan("--noise-multiplier", 0.5)["recommended"][0]


def test_a_delta_that_bears_giving_one_record_away_is_named():
    large = plan("--epsilon", 8, "--images", 400, "--delta", 0.0025)
    assert "a smaller delta: 0.0025 is at least one over the 400 units" in large["recommended"][0]
    assert not any("delta" in line for line in plan("--epsilon", 8, "--images", 400, "--delta", 0.002)["recommended"])


HOLLOW = ["--epsilon", 8, "--sampling-rate", 0.0001, "--delta", 0.001, "--rounds", 1]
HOLLOW += ["--set", "privacy.centring_steps=0"]


def test_a_delta_that_covers_every_sample_is_refused_by_check_and_plan():
    """No noise at all would meet the target, and a run with it would have a record that does not verify."""
    found = CliRunner().invoke(command, ["check", *map(str, HOLLOW)], catch_exceptions=False)
    assert found.exit_code == 2
    assert "privacy.delta: 0.001 is at least the chance of 0.0001 that a record is in any step" in found.output
    with pytest.raises(ConfigError, match="use a smaller delta"):
        CliRunner().invoke(command, ["plan", *map(str, HOLLOW)], catch_exceptions=False)


@pytest.mark.parametrize("extreme", [("--noise-multiplier", 1e-6), ("--noise-multiplier", 1e6)])
def test_the_ends_of_the_range_are_planned(extreme):
    assert plan(*extreme)["accountant"] == "PLD"


def test_check_names_every_rule_that_is_broken_and_exits_2():
    paper = ["check", "--epsilon", "8", "--profile", "paper", "--set", "privacy.noise=seeded", "--json"]
    result = CliRunner().invoke(command, paper, catch_exceptions=False)
    assert result.exit_code == 2
    assert {"P1", "P2", "P3", "P10"} <= {broken["rule"] for broken in json.loads(result.stdout)}
    result = CliRunner().invoke(command, ["check", "--epsilon", "8"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "no rule is broken" in result.stdout


def test_check_says_beside_broken_rules_what_would_not_be_claimed_without_them():
    arguments = ["check", "--noise-multiplier", "0.1", "--set", "privacy.noise=seeded"]
    result = CliRunner().invoke(command, [*arguments, "--set", "federation.select=best-val"], catch_exceptions=False)
    assert result.exit_code == 2
    assert [line.split("  ")[0] for line in result.stdout.splitlines()] == ["P10", "P8", "claim"]
    assert "no meaningful epsilon" in result.stdout
    nothing = CliRunner().invoke(command, ["check", "--epsilon", "8", "--method", "local"], catch_exceptions=False)
    assert [line.split("  ")[0] for line in nothing.stdout.splitlines()] == ["P12"]


@pytest.mark.parametrize("arguments", [[], ["--epsilon", "0"], ["--set", "privacy.epsilon=0"]], ids=" ".join)
def test_check_gives_no_target_that_nobody_gave(arguments):
    with pytest.raises(ConfigError, match=r"privacy.epsilon: --dp local needs --epsilon"):
        CliRunner().invoke(command, ["check", *arguments], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--dp", "local", "--hospitals", "0"], "noise  --hospitals: 0: use 1 or more"),
        (["--dp", "off"], "claim  privacy.mode: off: no noise is added"),
        (["--dp", "distributed", "--set", "secure_aggregation.enabled=false"], "vectors were sent in clear"),
    ],
)
def test_check_says_what_keeps_a_claim_from_holding(arguments, says):
    target = [] if "off" in arguments else ["--epsilon", "8"]
    result = CliRunner().invoke(command, ["check", *arguments, *target], catch_exceptions=False)
    assert (result.exit_code, says in result.stdout) == (2, True)


def test_check_says_that_a_run_would_end_early():
    """Its claim holds for the rounds that it has."""
    arguments = ["check", "--noise-multiplier", "2", "--epsilon", "8"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert (result.exit_code, "the claim of this configuration would hold" in result.stdout) == (0, True)
    assert "the run would end before its last round: a noise multiplier of 2 bears" in result.stderr


@pytest.mark.parametrize(
    ("privacy", "masked"),
    [
        ({"mode": "local", "epsilon": 8.0}, True),
        ({"mode": "local", "epsilon": 8.0, "noise": "seeded"}, True),
        ({"mode": "local", "noise_multiplier": 0.1}, True),
        ({"mode": "local", "noise_multiplier": 0.1, "epsilon": 8.0}, True),
        ({"mode": "local", "epsilon": 8.0}, False),
        ({"mode": "distributed", "epsilon": 8.0}, True),
        ({"mode": "distributed", "epsilon": 8.0}, False),
        ({"mode": "distributed", "epsilon": 8.0, "noise": "seeded"}, True),
        ({"mode": "hospital", "noise_multiplier": 0.3}, True),
        ({"mode": "off"}, True),
    ],
)
def test_check_says_of_a_configuration_what_its_run_claims(small_run, tmp_path, privacy, masked):
    """A claim holds where the run says CLAIMED and released something under it."""
    given = small_run(privacy=privacy, training={"fam_width": 4}, secure_aggregation={"enabled": masked})
    with suppress(TargetEpsilonError):
        simulate(given, output=tmp_path / "run")
    claims = [event.fields["claim"] for event in events_of(tmp_path / "run", "privacy_claim")]
    holds = claims == ["CLAIMED"] and bool(events_of(tmp_path / "run", "privacy_event"))
    arguments = ["check", "--config", str(tmp_path / "run" / "config.toml"), "--hospitals", "5"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == (0 if holds else 2), result.output


def test_the_mode_is_that_of_the_file_or_of_set_and_local_where_neither_has_one(tmp_path):
    (tmp_path / "of.toml").write_text('[privacy]\nmode = "hospital"\nnoise_multiplier = 3.0\n')
    (tmp_path / "none.toml").write_text("[federation]\nrounds = 2\n")
    short = ("--noise-multiplier", 3, "--rounds", 2, "--set", "training.fam_width=4")
    assert plan("--config", tmp_path / "of.toml", *short)["mode"] == "hospital"
    assert plan("--config", tmp_path / "of.toml", "--dp", "distributed", *short)["mode"] == "distributed"
    assert plan("--set", "privacy.mode=distributed", *short)["mode"] == "distributed"
    assert plan("--config", tmp_path / "none.toml", *short)["mode"] == "local"
    shared = ["check", "--set", "privacy.mode=distributed", "--set", "privacy.epsilon=8"]
    result = CliRunner().invoke(command, shared, catch_exceptions=False)
    assert "if its hospitals can make this noise: give --hospitals" in result.stdout
    for name in ("plan", "check"):
        assert "hospital. [local]" in CliRunner().invoke(command, [name, "--help"]).stdout


def test_check_says_what_hospitals_cannot_make_and_that_it_hangs_on_how_many_there_are():
    shared = ["check", "--dp", "distributed", "--epsilon", "8", "--rounds", "3", "--set", "training.fam_width=4"]
    result = CliRunner().invoke(command, shared, catch_exceptions=False)
    assert (result.exit_code, result.stdout.count("if its hospitals can make this noise: give --hospitals")) == (0, 1)
    result = CliRunner().invoke(command, [*shared, "--hospitals", "5"], catch_exceptions=False)
    assert (result.exit_code, "--hospitals" in result.stdout) == (0, False)
    result = CliRunner().invoke(command, [*shared, "--hospitals", "5", "--max-colluders", "4"], catch_exceptions=False)
    assert result.exit_code == 2
    assert "noise  privacy.max_colluders: 4 of the 4 hospitals that a sum may be over" in result.stdout


def test_a_plan_of_noise_in_shares_for_replaced_records_has_the_noise_that_is_needed_without_sampling():
    shared = ("--dp", "distributed", "--epsilon", 8, "--rounds", 3, "--hospitals", 5, "--set", "training.fam_width=4")
    replaced = (*shared, "--set", "privacy.adjacency=replace-one", "--sampling-rate")
    half, whole = (plan(*replaced, rate) for rate in (0.5, 1.0))
    assert half["epsilon"] <= 8
    assert half["epsilon"] == half["epsilon_replace_one"]
    assert half["noise_multiplier"] == whole["noise_multiplier"]


def test_where_no_round_fits_the_advice_is_not_one_round():
    told = str(TargetEpsilonError(1, 9.0, 8.0, 0))
    assert "0 rounds fit this noise" in told
    assert "--rounds" not in told
    assert "larger --epsilon" in told
    assert "--rounds 3" in str(TargetEpsilonError(4, 9.0, 8.0, 3))
