"""`sweep`: many runs from one file, resumable, ending in one table."""

import json
from pathlib import Path

import click

from securefed.commands.options import assign_option, cache_option, json_option
from securefed.commands.paths import PATH


@click.command("sweep", short_help="Run a grid of configurations and put the results in one table.")
@click.argument("file", type=PATH)
@click.option("--output", type=PATH, metavar="DIR", help="Folder. [sweeps/<name of the file>]")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Runs at the same time. [cores]")
@click.option("--ray", "cluster", metavar="ADDRESS", help="On a Ray cluster: auto, HOST:PORT, local. (Extra: ray.)")
@click.option("--dry-run", is_flag=True, help="List the runs and what is finished; run nothing.")
@assign_option
@cache_option
@click.option("--quiet", is_flag=True, help="No progress on stderr; warnings stay.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    file: Path,
    output: Path | None,
    jobs: int | None,
    cluster: str | None,
    dry_run: bool,
    assignments: tuple[str, ...],
    cache_dir: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run every combination of the values in the [grid] of a TOML file.

    The other sections are those of a run's configuration. Started again, it goes on where it was; finished runs are
    not repeated. The results of all are in results.csv and results.parquet (docs/sweep.md).
    """
    from securefed.commands.console import ConsoleObserver, stdout_console, sweep_table
    from securefed.config import parse_assignment
    from securefed.sweep.cell import CellResult
    from securefed.sweep.plan import Cell, read_plan
    from securefed.sweep.run import look_up_all, run_sweep
    from securefed.sweep.table import mean_accuracy

    plan = read_plan(file, dict(parse_assignment(text) for text in assignments))
    folder = output or Path("sweeps") / file.stem
    failed = 0
    if dry_run:
        results = look_up_all(plan, folder)
    else:
        with ConsoleObserver(quiet=quiet) as observer:

            def finished(cell: Cell, result: CellResult) -> None:
                observer.cell_finished(str(cell), result.status, result.error, len(plan.cells))

            done = sum(result.status == "finished" for result in look_up_all(plan, folder).values())
            observer.noted(f"sweep folder: {folder}; {len(plan.cells)} runs, {done} finished already")
            sweep = run_sweep(
                plan, folder, cache_dir=cache_dir, jobs=jobs, cluster=cluster, observer=observer, finished=finished
            )
        results, failed = dict(sweep.results), sweep.failed
    if as_json:
        cells = [
            {
                "cell": cell.name,
                "values": dict(cell.values),
                "status": results[cell.name].status,
                "accuracy": mean_accuracy(results[cell.name]),
                "error": results[cell.name].error or None,
            }
            for cell in plan.cells
        ]
        click.echo(json.dumps({"folder": str(folder), "cells": cells, "failed": failed}))
    else:
        out = stdout_console()
        out.print(sweep_table(plan.keys, [(cell.values, results[cell.name]) for cell in plan.cells]))
        if not dry_run:
            out.print(f"results: {folder / 'results.csv'}, plots: {folder / 'plots'}")
    if failed:
        context.exit(1)
