"""`data`: look at a data set before anything is trained on it."""

import json
from pathlib import Path
from typing import Any

import click

from securefed.commands.console import stdout_console
from securefed.commands.options import (
    DATA_FLAGS,
    config_option,
    json_option,
    resolve_config,
)
from securefed.commands.paths import PATH
from securefed.errors import RunFolderError


@click.group("data", short_help="Look at a data set before anything is trained on it.")
def command() -> None:
    """Look at a data set before anything is trained on it."""


@command.command("inspect", short_help="Count images and list what deserves a look.")
@click.argument("source", default="demo")
@click.option("--clients", type=int, metavar="N", help="Deal a single-site set to N hospitals ...")
@click.option("--alpha", type=float, metavar="A", help="... by Dirichlet(A) instead of IID.")
@click.option("--path-column", metavar="NAME", help="Column with the image path.")
@click.option("--label-column", metavar="NAME", help="Column with the class.")
@click.option("--site-column", metavar="NAME", help="Column with the hospital.")
@click.option("--patient-column", metavar="NAME", help="Column with the patient.")
@click.option("--split-column", metavar="NAME", help="Column with train, val or test.")
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
    """Count images by site, class and split, and list what deserves a look.

    SOURCE is demo, a folder <site>/<class>/<image>, a CSV or Parquet manifest, or a MedMNIST .npz.
    """
    from clients.data import inspect
    from securefed.commands.data_tables import print_report
    from securefed.preparation import load_sites

    config = resolve_config({**flags, "data": source}, DATA_FLAGS, config_file, assignments)
    dataset, warnings = load_sites(config.data, config.federation.seed)
    report = inspect(dataset, warnings)
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    else:
        print_report(report, stdout_console())


@command.command("demo", short_help="Write the synthetic cohort as an example.")
@click.argument("folder", type=PATH)
def demo_command(*, folder: Path) -> None:
    """Write the synthetic cohort to FOLDER, as an example of the layout.

    The scans are drawn by a program; none is of a patient.
    """
    from clients.demo import write_cohort

    try:
        count = write_cohort(folder)
    except OSError as error:
        raise RunFolderError(folder, f"{error.strerror or 'is not empty'}; name a new folder") from error
    click.echo(f"{count} synthetic scans in {folder}")
