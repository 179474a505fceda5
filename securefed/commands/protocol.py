"""`protocol`: parameters for a cohort, and the attack catalogue against this installation."""

import json
import math
from typing import Any

import click

from securefed.commands.console import stdout_console
from securefed.commands.options import json_option


@click.group("protocol", short_help="Choose safe parameters; attack this installation.")
def command() -> None:
    """Choose safe parameters for a cohort, and try the known attacks against this installation."""


@command.command("plan", short_help="Threshold, graph, ring and bytes for a cohort.")
@click.option("--clients", type=int, required=True, metavar="N", help="Hospitals in a round.")
@click.option("--corrupt", type=float, default=0.2, show_default=True, metavar="G", help="Share that may collude.")
@click.option("--dropout", type=float, default=0.1, show_default=True, metavar="D", help="Share that may be lost.")
@click.option("--sigma", type=int, default=40, show_default=True, help="Exposure at most 2^-sigma.")
@click.option("--eta", type=int, default=20, show_default=True, help="Failed round at most 2^-eta.")
@click.option("--threat-model", default="active", show_default=True, metavar="NAME", help="active or semi-honest.")
@click.option("--dimension", type=int, default=526_336, show_default=True, metavar="d", help="Coordinates.")
@click.option("--value-bits", type=int, default=16, show_default=True, metavar="B", help="Bits of a coordinate.")
@json_option
def plan_command(*, as_json: bool, **choices: Any) -> None:
    """Print neighbours, threshold, ring, failure probabilities and bytes for N hospitals.

    Where no choice is safe it says why, and what would have to give.
    """
    from securefed.planning import plan_cohort

    planned = plan_cohort(**choices)
    if as_json:
        click.echo(json.dumps(planned))
        return
    graph = "complete graph" if planned["complete"] else "ring in the order of a hash of all nonces"
    click.echo(f"{planned['clients']} hospitals, {planned['threat_model']}: {graph}")
    click.echo(f"  corrupt at most       {planned['corrupt']}")
    click.echo(f"  lost at most          {planned['dropouts']}")
    click.echo(f"  neighbours k          {planned['neighbours']}")
    click.echo(f"  threshold t           {planned['threshold']}")
    if planned["quorum"]:
        click.echo(f"  signatures q          {planned['quorum']}")
    click.echo(f"  survivors at least    {planned['min_survivors']}")
    click.echo(f"  ring bits             {planned['ring_bits']}")
    click.echo(f"  somebody exposed      {_chance(planned['exposure_log2'])}")
    click.echo(f"  round cannot be opened {_chance(planned['failure_log2'])} (within the losses above)")
    click.echo("  bytes a hospital and round, nobody lost:")
    for stage, ways in planned["bytes"].items():
        click.echo(f"    {stage:<24}{ways['up']:>12,} up {ways['down']:>12,} down")
    click.echo(
        f"    {'all':<24}{planned['upload_bytes']:>12,} up {planned['download_bytes']:>12,} down (without the model)"
    )


@command.command("attack", short_help="Try the known attacks against this installation.")
@click.option("--id", "ids", multiple=True, metavar="A1", help="Only these attacks. [all]")
@json_option
def attack_command(*, ids: tuple[str, ...], as_json: bool) -> None:
    """Try the attack catalogue of SPEC.md and print refused, harmless or broken for each.

    Exit code 1 where an attack succeeds.
    """
    from rich.table import Table

    from securefed.planning import run_attacks

    reports = run_attacks(ids)
    if as_json:
        click.echo(json.dumps(reports))
    else:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for title in ("id", "outcome", "what was tried", "what happened"):
            table.add_column(title, overflow="fold")
        for report in reports:
            table.add_row(report["id"], report["outcome"], report["action"], report["evidence"])
        stdout_console().print(table)
    broken = [report["id"] for report in reports if report["outcome"] == "broken"]
    if broken:
        raise click.ClickException(f"{', '.join(broken)} succeeded: do not use this installation; see SECURITY.md")


def _chance(log2: float | None) -> str:
    return "never" if log2 is None or math.isinf(log2) else f"at most 2^{log2:.1f}"
