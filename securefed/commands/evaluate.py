"""`evaluate`: all metrics of a finished run on a split."""

import json
from pathlib import Path

import click

from securefed.commands.console import ConsoleObserver, metric_table, stdout_console
from securefed.commands.options import cache_option, json_option
from securefed.commands.paths import PATH


@click.command("evaluate", short_help="Compute all metrics of a finished run on a split.")
@click.argument("run", type=PATH)
@click.option(
    "--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True, help="Which images."
)
@click.option("--data", metavar="SOURCE", help="Other data of the same sites. [the run's own]")
@click.option("--encoder", metavar="NAME", help="Where the run's encoder is, or its features. [as in the run]")
@click.option("--device", metavar="NAME", default="auto", help="auto, cpu or cuda. [auto]")
@cache_option
@click.option("--quiet", is_flag=True, help="No progress on stderr; warnings stay.")
@json_option
def command(
    *,
    run: Path,
    split: str,
    data: str | None,
    encoder: str | None,
    device: str,
    cache_dir: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Compute accuracy, balanced accuracy, macro F1, AUROC and calibration error of RUN.

    RUN is a run folder, or what a hospital's node has kept (FOLDER/runs/RUN), on that hospital's own data.

    For each site and their mean; for the FAM alone, the MLP alone and the ensemble. The run's own data must be as they
    were; of others (--data) it is said how many images the run may have trained on.
    """
    from securefed.prediction import evaluate_run

    with ConsoleObserver(quiet=quiet) as observer:
        result = evaluate_run(
            run, split, source=data, encoder=encoder, device=device, cache_dir=cache_dir, observer=observer
        )
    if as_json:
        click.echo(json.dumps(result))
    else:
        stdout_console().print(metric_table(result, f"{split} data, %"))
