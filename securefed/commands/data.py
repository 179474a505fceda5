"""`data`: look at a data set before anything is trained on it."""

import json
from pathlib import Path
from typing import Any

import click

from securefed.commands.options import (
    DATA_FLAGS,
    config_option,
    json_option,
    resolve_config,
)


@click.group("data", short_help="Look at a data set before anything is trained on it.")
def command() -> None:
    """Look at a data set before anything is trained on it."""


@command.command("inspect")
@click.argument("source", default="demo")
@click.option("--clients", type=int, metavar="N", help="Partition a single-site set over N hospitals.")
@click.option("--alpha", type=float, metavar="A", help="... by Dirichlet(A) instead of IID.")
@click.option("--path-column", metavar="NAME", help="Column of the image path. Likewise:")
@click.option("--label-column", metavar="NAME", help="  the class,")
@click.option("--site-column", metavar="NAME", help="  the hospital,")
@click.option("--patient-column", metavar="NAME", help="  the patient,")
@click.option("--split-column", metavar="NAME", help="  train, val or test.")
@config_option
@json_option
def inspect_command(
    *,
    source: str,
    config_file: Path | None,
    assignments: tuple[str, ...],
    as_json: bool,
    **flags: Any,
) -> None:
    """Count images by site, class and split, and list what deserves a look: broken images, leaks, gaps.

    SOURCE is demo, a folder, a CSV/Parquet manifest or a MedMNIST .npz. Exit code 1 where an image cannot be read.
    """
    from rich.console import Console

    from clients.data import inspect
    from securefed.commands.data_tables import print_report
    from securefed.preparation import load_sites

    config = resolve_config({**flags, "data": source}, DATA_FLAGS, config_file, assignments)
    dataset, warnings = load_sites(config.data, config.federation.seed)
    report = inspect(dataset, warnings)
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    else:
        print_report(report, Console(highlight=False))
