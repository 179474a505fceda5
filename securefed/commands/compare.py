"""`audit compare`: several runs side by side."""

import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.cells import cell_len
from rich.table import Table

from audit.errors import EvidenceError
from securefed.commands.console import stdout_console
from securefed.commands.options import json_option, require_run
from securefed.commands.paths import PATH
from securefed.errors import ConfigError

_GAP = 2
"""Blanks between columns."""


@click.command("compare", short_help="Utility, epsilon and bytes of runs side by side.")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN...")
@click.option("--format", "form", default="table", show_default=True, metavar="NAME", help="table or md.")
@json_option
def command(*, runs: tuple[Path, ...], form: str, as_json: bool) -> None:
    """Put RUNs side by side: utility on test data, privacy, bytes; each recomputed from the run's own record.

    Says why rows may not be comparable. Exit code 3 where a record does not verify.
    """
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
        out = stdout_console()
        for number, block in enumerate(_blocks(header, rows, out.width)):
            if number:
                out.print()
            out.print(_side_by_side(header, block))
        for warning in compared["warnings"]:
            click.echo(f"warning: {warning}", err=True)
    failed = [row["run_id"] for row in compared["runs"] if not row["verified"]]
    if failed:
        raise EvidenceError(-1, f"{failed[0]} DOES NOT VERIFY; audit verify names the first bad event")


def _side_by_side(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table with a column a run and a line a figure."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    table.add_column("")
    for row in rows:
        table.add_column(row[0], justify="right", overflow="fold")
    for index, name in enumerate(header[1:], 1):
        table.add_row(name, *(row[index] for row in rows))
    return table


def _blocks(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[list[Sequence[str]]]:
    """Divide runs into blocks that are no wider than `width` characters, one run at least in each."""
    names = max(map(cell_len, header[1:]))
    blocks: list[list[Sequence[str]]] = []
    left = 0
    for row in rows:
        needed = _GAP + max(map(cell_len, row))
        if not blocks or needed > left:
            blocks.append([])
            left = width - names
        blocks[-1].append(row)
        left -= needed
    return blocks
