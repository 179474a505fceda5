"""`site`: one hospital's own folder."""

import json
import os
from pathlib import Path
from typing import Any

import click

from audit.bounds import at_least
from securefed.commands.options import json_option
from securefed.commands.paths import PATH

_FOLDER = PATH


@click.group("site", short_help="One hospital's own folder: set up, check, approve, status.")
def command() -> None:
    """Set up and look at the folder of one hospital: data pointer, features, MLP, key, ledger, heads, policy.

    Nothing in FOLDER leaves it but the public key, the approval of a study, and what the protocol sends.
    """


@command.command("init", short_help="Make the folder and the hospital's key.")
@click.argument("folder", type=_FOLDER)
@click.option("--name", required=True, metavar="NAME", help="The hospital's name in the roster.")
@click.option("--data", required=True, metavar="SOURCE", help="Images: a folder, a manifest, features:PATH, ...")
@click.option(
    "--part", default="", metavar="SITE", help="Which site of the data this hospital is, if they are several."
)
@click.option("--encoder", default="", metavar="NAME", help="Where the encoder is here. [as the study says]")
@click.option("--device", default="auto", metavar="NAME", help="auto, cpu or cuda. [auto]")
@click.option("--path-column", metavar="NAME", help="Column of a manifest with the image path; likewise:")
@click.option("--label-column", metavar="NAME", help="... with the class.")
@click.option("--site-column", metavar="NAME", help="... with the hospital.")
@click.option("--patient-column", metavar="NAME", help="... with the patient.")
@click.option("--split-column", metavar="NAME", help="... with train, val or test.")
def init_command(*, folder: Path, name: str, data: str, part: str, encoder: str, device: str, **columns: Any) -> None:
    """Make FOLDER, readable by its owner only, with a new key; print the public key.

    Edit FOLDER/site.toml for the hospital's policy, then hand FOLDER/identity.pub to the lead.
    """
    from securefed.config import DataConfig
    from securefed.identity import read_public
    from securefed.site.folder import SiteFolder
    from securefed.site.settings import PlaceConfig, SiteSettings

    named = {key: value for key, value in columns.items() if value}
    place = PlaceConfig(name, part, _absolute(encoder, bare=False), device)
    settings = SiteSettings(place, DataConfig(source=_absolute(data, bare=True), **named))
    made = SiteFolder.create(folder, settings)
    click.echo(f"{folder} is ready; policy and data are in {made.settings}", err=True)
    if _is_missing(data):
        step = f"put the data there or name others in {made.settings}, then run site check {folder}"
        click.echo(f"warning: there are no data at {data}; {step}", err=True)
    click.echo(f"hand {made.public} to the lead; the secret key stays in {made.key}", err=True)
    click.echo(read_public(made.public)[1])


def _is_missing(data: str) -> bool:
    """Return whether a source of data names a file or folder that is not there."""
    path = Path(data.removeprefix("features:")).expanduser()
    return data != "demo" and not os.path.exists(path)  # noqa: PTH110 (false also for a name that no file can have)


def _absolute(source: str, *, bare: bool) -> str:
    """Name a file or folder so that a process started elsewhere finds it: KIND:PATH, or a bare PATH."""
    kind, colon, rest = source.rpartition(":")
    path = Path(rest).expanduser()
    return f"{kind}{colon}{path.resolve()}" if rest and (colon or bare) and path.exists() else source


@command.command("check", short_help="Say in plain words what is wrong here.")
@click.argument("folder", type=_FOLDER)
@click.option("--study", type=_FOLDER, metavar="FILE", help="The study to check for. [the approved one]")
@json_option
def check_command(*, folder: Path, study: Path | None, as_json: bool) -> None:
    """Check everything in and around FOLDER; exit 1 if a study cannot run.

    Looked at: permissions, key, data, classes, encoder, policy, budget, clock, disk, GPU.
    """
    from securefed.evidence import utc_now
    from securefed.site.checks import Level, check_site
    from securefed.site.folder import SiteFolder
    from securefed.study import read_study

    opened = SiteFolder(folder)
    path = study or (opened.study if opened.study.exists() else None)
    found = check_site(opened, None if path is None else read_study(path), utc_now())
    if as_json:
        click.echo(json.dumps([{"topic": f.topic, "level": f.level.value, "text": f.text} for f in found]))
    else:
        for finding in found:
            click.echo(f"{finding.level.value:5}  {finding.topic:9}{finding.text}")
    wrong = sum(finding.level is Level.WRONG for finding in found)
    if not as_json:
        click.echo(f"{wrong} to put right" if wrong else "nothing stands in the way", err=True)
    if wrong:
        raise SystemExit(1)


@command.command("approve", short_help="Check everything, then sign a study.")
@click.argument("folder", type=_FOLDER)
@click.argument("study", type=_FOLDER)
@click.option("--output", type=_FOLDER, metavar="FILE", help="The approval, for the lead. [NAME.approval.json]")
@click.option(
    "--digest", required=True, metavar="HEX", help="The study's digest, as the lead read it out (>= 16 digits)."
)
def approve_command(*, folder: Path, study: Path, output: Path | None, digest: str) -> None:
    """Sign STUDY for the hospital of FOLDER, if nothing stands in the way.

    Its node then runs this study and no other.
    """
    from securefed.errors import ConfigError
    from securefed.evidence import utc_now
    from securefed.site.approving import approve_study, hand_out
    from securefed.site.folder import SiteFolder
    from securefed.study import read_study

    read = read_study(study)
    typed = "".join(digest.split()).lower()
    if len(typed) < 16:
        raise ConfigError("--digest", f"has {len(typed)} digits, at least 16 are needed: type those that were read out")
    if not read.digest.startswith(typed):
        raise ConfigError("--digest", f"is not that of {study}; type what the lead read out, or ask why they differ")
    opened = SiteFolder.open(folder)
    approval = approve_study(opened, read, utc_now())
    target = output or Path(f"{approval.hospital}.approval.json")
    hand_out(opened, target)
    click.echo(f"{approval.hospital} approves {read.name!r}; hand {target} to the lead", err=True)
    click.echo(approval.study)


@command.command("status", short_help="What is approved, which runs were seen, what budget is left.")
@click.argument("folder", type=_FOLDER)
@json_option
def status_command(*, folder: Path, as_json: bool) -> None:
    """Print where the hospital of FOLDER stands."""
    from securefed.site.folder import SiteFolder
    from securefed.site.status import site_status

    status = site_status(SiteFolder.open(folder))
    if as_json:
        click.echo(json.dumps(status))
        return
    study = status["study"]
    click.echo(f"hospital  {status['site']}")
    named = f"{study['name']} ({study['rounds']} rounds), {study['digest'][:16]}..." if study else "none approved"
    click.echo(f"study     {named}")
    for run_id, run in status["runs"].items():
        if "damaged" in run:
            click.echo(f"run       {run_id}: {run['damaged']}")
            continue
        end = f"; model {run['kept']['fam_sha256'][:16]}... kept" if run["kept"] else ""
        click.echo(f"run       {run_id}: round {run['round']}, {run['witnessed']} events witnessed{end}")
    for line in status["budget"]:
        click.echo(f"budget    {at_least(line['remaining'])} of {line['budget']:g} left for the unit {line['unit']}")
