"""`audit compare`: several runs side by side."""

import json
from pathlib import Path

import click

from audit.errors import EvidenceError
from securefed.commands.console import stdout_console
from securefed.commands.options import json_option, require_run
from securefed.commands.paths import PATH
from securefed.errors import ConfigError


@click.command("compare", short_help="Utility, epsilon and bytes of runs side by side.")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN...")
@click.option("--format", "form", default="table", show_default=True, metavar="NAME", help="table or md.")
@json_option
def command(*, runs: tuple[Path, ...], form: str, as_json: bool) -> None:
    """Put RUNs side by side: utility on test data, privacy, bytes; each recomputed from the run's own record.

    Says why rows may not be comparable. Exit code 3 where a record does not verify.
    """
    from rich.table import Table

    from audit.report import build_report
    from audit.report.compare import compare_reports, comparison_markdown, comparison_table

    if form not in ("table", "md"):
        raise ConfigError("--format", f"{form!r} is unknown; use table or md")
    require_run(*runs)
    compared = compare_reports([build_report(run) for run in runs])
    if as_json:
        click.echo(json.dumps(compared))
    elif form == "md":
        click.echo(comparison_markdown(compared), nl=False)
    else:
        header, *rows = comparison_table(compared)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("")
        for row in rows:
            table.add_column(row[0], justify="right", overflow="fold")
        for index, name in enumerate(header[1:], 1):
            table.add_row(name, *(row[index] for row in rows))
        stdout_console().print(table)
        for warning in compared["warnings"]:
            click.echo(f"warning: {warning}", err=True)
    failed = [row["run_id"] for row in compared["runs"] if not row["verified"]]
    if failed:
        raise EvidenceError(-1, f"{failed[0]} DOES NOT VERIFY; audit verify names the first bad event")
