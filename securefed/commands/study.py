"""`study`: the one file that all hospitals agree on."""

import json
from pathlib import Path
from typing import Any

import click

from securefed.commands.options import (
    PRIVACY_FLAGS,
    config_option,
    json_option,
    privacy_options,
    resolve_config,
)
from securefed.commands.paths import PATH

_FILE = PATH
_FLAGS = {
    "method": "federation.method",
    "profile": "training.profile",
    "rounds": "federation.rounds",
    "seed": "federation.seed",
    "threat_model": "secure_aggregation.threat_model",
    "threshold": "secure_aggregation.threshold",
    "compression": "secure_aggregation.compression",
    **PRIVACY_FLAGS,
}


@click.group("study", short_help="The one file that all hospitals agree on and sign.")
def command() -> None:
    """Write, check and read a study: what all hospitals agree on before the first round (docs/study.md).

    The lead runs `study init`; every hospital reads the file with `study show` and signs it with `site approve`.
    """


@command.command("init", short_help="Write a study file.")
@click.argument("output", type=_FILE)
@click.option("--roster", required=True, type=_FILE, metavar="FILE", help="Keys of all parties (`keys roster`).")
@click.option("--name", required=True, metavar="TEXT", help="What people call the study.")
@click.option("--class", "classes", multiple=True, required=True, metavar="NAME", help="A class; give all, in order.")
@click.option("--encoder", default="demo", metavar="NAME", help="ViT-B-32/openai, hf-hub:..., local-dir:... [demo]")
@click.option("--prompt", metavar="TEXT", help='Prompt of a class. ["a picture of a {class}"]')
@click.option("--method", metavar="NAME", help="fedmedclip, fedclip or fedavg-mlp. [fedmedclip]")
@click.option("--profile", metavar="NAME", help="default, paper (as published), private, private-one-way.")
@click.option("--rounds", type=int, metavar="N", help="Rounds of training. [50]")
@click.option("--seed", type=int, metavar="N", help="Seed of all but keys, pads and noise. [0]")
@click.option("--threat-model", metavar="NAME", help="active or semi-honest server. [active]")
@click.option("--threshold", type=int, metavar="T", help="Hospitals that open a sum. [smallest safe]")
@click.option("--compression", metavar="HOW", help="none, auto, ring:BITS,... [none]")
@privacy_options
@config_option
def init_command(
    *,
    output: Path,
    roster: Path,
    name: str,
    classes: tuple[str, ...],
    encoder: str,
    prompt: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    **flags: Any,
) -> None:
    """Write the study OUTPUT with every value in it, and print its digest.

    The encoder is loaded once for its digest. Purpose and legal fields: --set purpose.controller=..., or --config.
    """
    from audit.roster import Roster
    from securefed.study.making import make_study, write_new

    # A seed asks for the same start, not for noise that follows from it: a study's noise comes from the system.
    seeded = () if flags["seed"] is None else (f"federation.seed={flags['seed']}",)
    given = resolve_config({**flags, "seed": None}, _FLAGS, config_file, (*assignments, *seeded))
    study = make_study(name, classes, encoder, prompt, given, Roster.read(roster))
    write_new(study, output)
    click.echo(f"{output}: hand it to every hospital; each compares this digest before it approves:", err=True)
    click.echo(study.digest)


@command.command("check", short_help="Check a study, and who has approved it.")
@click.argument("study", type=_FILE)
@click.argument("approvals", nargs=-1, type=_FILE)
@json_option
def check_command(*, study: Path, approvals: tuple[Path, ...], as_json: bool) -> None:
    """Check the file STUDY and the APPROVALS of the hospitals (`site approve` makes them)."""
    from securefed.privacy.bearing import too_few_rounds
    from securefed.study import read_approval, read_study
    from securefed.study.promise import privacy_in_words
    from securefed.study.terms import noise_of

    read = read_study(study)
    is_borne = not too_few_rounds(read.config, noise_of(read))
    approved = []
    for path in approvals:
        approval = read_approval(path)
        approval.check(read)
        approved.append(approval.hospital)
    missing = sorted(set(read.roster.hospitals) - set(approved))
    if as_json:
        click.echo(json.dumps({"digest": read.digest, "approved": sorted(approved), "missing": missing}))
        return
    click.echo(f"{read.name}: a {'valid study' if is_borne else 'study that hospitals refuse'}; digest {read.digest}")
    for line in privacy_in_words(read):
        click.echo(line)
    click.echo(f"approved by {', '.join(sorted(approved)) or 'nobody so far'}")
    click.echo(f"not yet by {', '.join(missing)}" if missing else "all hospitals have approved it")


@command.command("show", short_help="Say in words what a study means.")
@click.argument("study", type=_FILE)
@json_option
def show_command(*, study: Path, as_json: bool) -> None:
    """Say in words what STUDY means for a hospital, then print every value and the digest."""
    from securefed.study import read_study
    from securefed.study.making import in_words

    read = read_study(study)
    if as_json:
        click.echo(json.dumps({"digest": read.digest, **read.values()}))
        return
    for line in in_words(read):
        click.echo(line)
    click.echo()
    click.echo(read.encode().decode(), nl=False)
    click.echo(f"\ndigest {read.digest}")
