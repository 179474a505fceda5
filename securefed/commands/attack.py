"""`audit attack`: what a run's claims rule out is tried."""

import json
from pathlib import Path

import click

from securefed.commands.console import ConsoleObserver, stdout_console
from securefed.commands.options import cache_option, json_option, require_run
from securefed.commands.paths import PATH


@click.command("attack", short_help="Attack a finished run; what was found enters its record.")
@click.argument("run", type=PATH)
@click.option("--only", multiple=True, metavar="NAME", help="epsilon, members, inversion, protocol. [all]")
@click.option("--canaries", type=click.IntRange(2), default=5000, show_default=True, help="For epsilon.")
@click.option("--site", metavar="SITE", help="Hospital whose training is audited. [the first]")
@cache_option
@json_option
def command(
    *, run: Path, only: tuple[str, ...], canaries: int, site: str | None, cache_dir: Path | None, as_json: bool
) -> None:
    """Attack RUN, add what was found to its signed record and write its report again.

    epsilon: one-run auditing with canaries in a copy of the training; FAIL where the lower bound refutes the claim.
    members: membership inference on the shared model. inversion: the feature that one image's update shows.
    protocol: the attack catalogue of secure aggregation. Needs the run's data. Exit code 1 where an attack succeeds.
    """
    from rich.table import Table

    from audit.report.blocks import in_words
    from securefed.attacks import ATTACKS, attack_run

    require_run(run)
    with ConsoleObserver(quiet=as_json) as observer:
        findings = attack_run(
            run, attacks=only or ATTACKS, canaries=canaries, site=site, cache_dir=cache_dir, observer=observer
        )
    if as_json:
        click.echo(json.dumps([finding.fields() for finding in findings]))
    else:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for title in ("attack", "setting", "outcome", "measured"):
            table.add_column(title, overflow="fold")
        for finding in findings:
            numbers = {name: value for name, value in finding.values.items() if not isinstance(value, list)}
            shown = in_words(numbers)
            table.add_row(finding.name, finding.setting, finding.outcome, shown or finding.reason)
        stdout_console().print(table)
        click.echo(f"recorded in {run / 'audit.jsonl'}; report: {run / 'report.html'}")
    failed = [finding.name for finding in findings if finding.outcome == "FAIL"]
    if failed:
        raise click.ClickException(f"{', '.join(dict.fromkeys(failed))} succeeded: the claim does not hold")
