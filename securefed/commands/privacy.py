"""`privacy`: what noise costs and what a target needs, and whether a configuration's claim would hold."""

import json
import math
from pathlib import Path
from typing import Any

import click

from audit.bounds import at_most
from securefed.commands.options import PRIVACY_FLAGS, config_option, json_option, private_options, resolve_config
from securefed.commands.paths import PATH
from securefed.config import RunConfig, overlay, parse_assignment, read_toml

_FLAGS = {**PRIVACY_FLAGS, "rounds": "federation.rounds", "method": "federation.method", "profile": "training.profile"}


_ACCOUNTING = (
    "accounting; this takes minutes, or longer, where a rate below 1 meets many steps, little noise or a small delta"
)


@click.group("privacy", short_help="Plan the noise; check what may be claimed.")
def command() -> None:
    """Plan the noise before a run, and check whether a configuration's claim would hold."""


@command.command("plan", short_help="What epsilon costs, what a target needs.")
@private_options
@click.option("--rounds", type=int, metavar="N", help="Rounds of training. [50]")
@click.option("--hospitals", type=int, default=4, show_default=True, metavar="N", help="Hospitals in a round.")
@click.option("--images", type=int, default=0, metavar="N", help="Declared images (patients) a hospital.")
@click.option("--embed-dim", type=int, default=512, show_default=True, metavar="D", help="Width of the features.")
@click.option("--method", metavar="NAME", help="fedmedclip or fedclip.")
@click.option("--profile", metavar="NAME", help="private, private-one-way, default, paper.")
@click.option("--plot", type=PATH, metavar="DIR", help="Draw epsilon against rounds.")
@config_option
@json_option
def plan_command(
    *,
    hospitals: int,
    images: int,
    embed_dim: int,
    plot: Path | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    as_json: bool,
    **flags: Any,
) -> None:
    """Say what epsilon a configuration costs, and what noise, rate or rounds a target needs.

    Give --epsilon to have the noise calibrated, --noise-multiplier to have epsilon computed, or both.
    """
    from securefed.privacy.plan import describe, make_plan, plot_plan

    config = _resolve(flags, config_file, assignments)
    click.echo(_ACCOUNTING, err=True)
    plan = make_plan(config, hospitals, images, embed_dim)
    described = describe(plan)
    if plot is not None:
        plot_plan(plan, plot)
        described["plot"] = str(plot / "privacy-plan.svg")
    if as_json:
        click.echo(json.dumps(_plain(described), allow_nan=False))
        return
    _print(described)


@command.command("check", short_help="Which rules of docs/privacy.md a configuration breaks.")
@private_options
@click.option("--method", metavar="NAME", help="fedmedclip or fedclip.")
@click.option("--profile", metavar="NAME", help="private, private-one-way, default, paper.")
@click.option("--rounds", type=int, metavar="N", help="Rounds of training. [50]")
@click.option("--hospitals", type=int, metavar="N", help="Hospitals in a round: whether they can make this noise.")
@config_option
@json_option
def check_command(
    *, hospitals: int | None, config_file: Path | None, assignments: tuple[str, ...], as_json: bool, **flags: Any
) -> None:
    """Hold a configuration against the rules of docs/privacy.md; exit 2 where its claim would not hold.

    Whether noise in shares can be made hangs on how many there are to make it: name them with --hospitals.
    """
    from audit.bounds import LARGEST_CLAIM
    from securefed.privacy.plan import cut_short, unclaimable
    from securefed.privacy.rules import broken_rules

    config = _resolve(flags, config_file, assignments)
    broken = broken_rules(config)
    broken += unclaimable(config, hospitals, broken)
    if as_json:
        click.echo(json.dumps([vars(rule) for rule in broken]))
    else:
        for rule in broken:
            click.echo(f"{rule.rule}  {rule.key}: {rule.reason}")
        if not broken:
            open_ = config.privacy.mode != "local" and hospitals is None
            unless = f", up to epsilon {LARGEST_CLAIM:g}, if its hospitals can make this noise: give --hospitals"
            click.echo(f"no rule is broken: the claim of this configuration would hold{unless if open_ else ''}")
    if broken:
        raise click.exceptions.Exit(2)
    if early := cut_short(config, hospitals):
        click.echo(f"the run would end before its last round: {early}", err=True)


def _resolve(flags: dict[str, Any], config_file: Path | None, assignments: tuple[str, ...]) -> RunConfig:
    """Return the configuration, of the mode `local` where neither the file nor --set nor --dp names one."""
    tree = read_toml(config_file) if config_file is not None else {}
    overlay(tree, dict(parse_assignment(text) for text in assignments))
    section = tree.get("privacy", {})
    if flags["dp"] is None and not (isinstance(section, dict) and "mode" in section):
        flags = {**flags, "dp": "local"}
    return resolve_config(flags, _FLAGS, config_file, assignments)


def _print(described: dict[str, Any]) -> None:
    what = f"{described['mode']}, {described['unit']} level, {described['adjacency']}"
    click.echo(f"{what}, delta {described['delta']:g}")
    click.echo(f"  noise multiplier      {described['noise_multiplier']:.4g}")
    click.echo(f"  sampling rate         {described['sampling_rate']:g}")
    click.echo(f"  rounds, steps         {described['rounds']}, {described['steps']}")
    checks = (
        ", ".join(f"{name} {at_most(value)}" for name, value in described["cross_checks"].items()) or "no cross-check"
    )
    click.echo(f"  epsilon               {_number(described['epsilon'])} ({described['accountant']}; {checks})")
    click.echo(f"  replacing one unit    {_number(described['epsilon_replace_one'])}")
    if "noise" in described:
        noise = described["noise"]
        click.echo(
            f"  noise in shares       {noise['mechanism']}, {noise['dimension']:,} coordinates of {noise['ring_bits']} "
            f"bits, {noise['dropout_noise']}, at least {noise['min_survivors']} survivors"
        )
    for view in described["against"]:
        click.echo(f"  against {view['adversary']:<26}{_number(view['epsilon'])}")
    for contradiction in described["contradictions"]:
        click.echo(f"  {contradiction}")
    if described["target_epsilon"]:
        click.echo(f"  within epsilon {described['target_epsilon']:g}:")
        click.echo(f"    rounds with this noise      {described['rounds_within_target']}")
        rate = described["rate_within_target"]
        click.echo(f"    largest rate, same rounds   {'none' if rate is None else f'{rate:.3g}'}")
        for row in described["alternatives"]:
            click.echo(f"    rate {row['sampling_rate']:<5g} needs multiplier {row['noise_multiplier']:.3g}")
    if "noise_over_units" in described:
        click.echo(f"  noise in one direction over what all units can add up to: {described['noise_over_units']:.3g}")
    points = ", ".join(f"{point['rounds']}: {at_most(point['epsilon'])}" for point in described["by_rounds"])
    click.echo(f"  epsilon by rounds     {points}")
    for line in described["recommended"]:
        click.echo(f"  recommended: {line}")
    if "plot" in described:
        click.echo(f"  plot: {described['plot']}")


def _number(value: float) -> str:
    return at_most(value) if math.isfinite(value) else "infinite"


def _plain(value: Any) -> Any:
    """Infinity becomes null: JSON has none."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
