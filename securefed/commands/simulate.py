"""`simulate`: a whole federation on this machine."""

import json
from pathlib import Path
from typing import Any

import click

from audit.errors import EvidenceError
from securefed.commands.console import ConsoleObserver, print_result
from securefed.commands.options import (
    RUN_FLAGS,
    cache_option,
    config_option,
    data_options_without_columns,
    json_option,
    privacy_options,
    resolve_config,
)
from securefed.commands.paths import PATH
from securefed.errors import ConfigError


@click.command("simulate", short_help="Run a whole federation on this machine, round by round.")
@data_options_without_columns
@click.option("--method", metavar="NAME", help="fedmedclip, fedclip, local, zero-shot, ...")
@click.option("--profile", metavar="NAME", help="default, paper (as published), private, private-one-way.")
@click.option("--rounds", type=int, metavar="N", help="Rounds of training. [50]")
@click.option("--seed", type=int, metavar="N", help="Seed of all but keys and pads. [0]")
@click.option("--device", metavar="NAME", help="auto, cpu or cuda. [auto]")
@click.option("--secure-agg/--no-secure-agg", default=None, help="Sum under pairwise masks. [on]")
@click.option("--threat-model", metavar="NAME", help="active or semi-honest server. [active]")
@click.option("--threshold", type=int, metavar="T", help="Hospitals that open a sum. [smallest safe]")
@click.option("--value-bits", type=int, metavar="B", help="Bits of a coordinate, 8 to 22. [16]")
@click.option("--compression", metavar="HOW", help="none, auto, ring:BITS,... [none]")
@privacy_options
@click.option("--dropout", type=float, metavar="RATE", help="Lose sites at random in every round.")
@click.option("--drop", multiple=True, metavar="SITE@ROUND:STAGE", help="Lose a site, e.g. north@3:Unmasking.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Hospitals at work at once. [cores]")
@click.option("--output", type=PATH, metavar="DIR", help="Run folder. [runs/<time>-...]")
@click.option("--resume", type=PATH, metavar="RUN", help="Continue an interrupted run.")
@cache_option
@config_option
@click.option("--quiet", is_flag=True, help="No progress on stderr; warnings stay.")
@json_option
def command(
    *,
    resume: Path | None,
    output: Path | None,
    workers: int | None,
    cache_dir: Path | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Run a whole federation on this machine, round by round, and write a run folder.

    Without options: synthetic scans of five hospitals and a small CLIP that come with the package. Columns of a
    manifest and --strict: as in `encode`.
    """
    from securefed.simulation import resume_run, simulate

    with ConsoleObserver(quiet=quiet) as observer:
        if resume is not None:
            given = [name for name, value in flags.items() if value not in (None, ())]
            if given or config_file or assignments or output:
                raise ConfigError("--resume", "a run is continued with its own config.toml; give no other option")
            result = resume_run(resume, cache_dir=cache_dir, observer=observer, workers=workers)
        else:
            config = resolve_config(flags, RUN_FLAGS, config_file, assignments)
            result = simulate(config, output=output, cache_dir=cache_dir, observer=observer, workers=workers)
    if as_json:
        click.echo(json.dumps(result.summary))
    else:
        print_result(result.summary, result.verdict, result.folder.path)
    if not result.is_verified:
        raise EvidenceError(-1, f"{result.folder.path} DOES NOT VERIFY; audit verify names the first bad event")
