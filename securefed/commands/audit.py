"""`audit`: evidence of a run, checked by somebody who trusts nobody who ran it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audit.errors import EvidenceError
from securefed.commands.attack import command as attack_command
from securefed.commands.compare import command as compare_command
from securefed.commands.ledger import command as ledger_command
from securefed.commands.options import json_option, require_files, require_run
from securefed.commands.paths import PATH
from securefed.errors import ConfigError

if TYPE_CHECKING:
    from audit.verify import Verification


@click.group("audit", short_help="Check the evidence of a run.")
def command() -> None:
    """Check the evidence of a run: offline, without the data, without torch."""


command.add_command(attack_command)
command.add_command(compare_command)
command.add_command(ledger_command)


@command.command("verify", short_help="Recompute everything that a run folder claims.")
@click.argument("run", type=PATH)
@click.option("--roster", type=PATH, metavar="FILE", help="Roster agreed on before the run.")
@click.option("--heads", type=PATH, multiple=True, metavar="FILE", help="Heads that a hospital kept.")
@click.option("--ledger", type=PATH, metavar="FILE", help="A ledger that must tell the same.")
@json_option
def verify_command(
    *, run: Path, roster: Path | None, heads: tuple[Path, ...], ledger: Path | None, as_json: bool
) -> None:
    """Recompute chain, signatures, configuration, model, bytes and epsilon of RUN from its files alone.

    Exit code 3 where something does not verify; the first bad event is named. An argument that cannot be read, or is
    of another kind, says nothing about the record: exit code 2. Without --roster the run is only shown to
    agree with itself.
    """
    from audit.verify import verify_run

    require_run(run)
    require_files(roster=roster, heads=heads, ledger=ledger)
    result = verify_run(run, roster=roster, heads=heads, ledger=ledger, report=True)
    if as_json:
        click.echo(json.dumps(_plain(result)))
    else:
        for check in result.checks:
            click.echo(f"{check.outcome:<8}{check.name:<16}{check.detail}")
        click.echo(f"root    {result.root}")
    if not result.is_verified:
        first = result.first_bad_event
        if first >= 0:
            raise EvidenceError(first, "DOES NOT VERIFY from here on")
        failed = ", ".join(check.name for check in result.failed)
        raise EvidenceError(first, f"{run} DOES NOT VERIFY: {failed}")


def _plain(result: "Verification") -> dict[str, Any]:
    """Return what verification found for a program; the events themselves are in the log."""
    return {
        "folder": str(result.folder),
        "run_id": result.run_id,
        "events": result.events,
        "root": result.root,
        "is_complete": result.is_complete,
        "is_pinned": result.is_pinned,
        "unsigned_by": list(result.unsigned_by),
        "checks": [asdict(check) for check in result.checks],
        "is_verified": result.is_verified,
        "first_bad_event": result.first_bad_event,
    }


@command.command("report", short_help="Write the report of a run, for people and machines.")
@click.argument("run", type=PATH)
@click.option("--format", "formats", multiple=True, metavar="NAME", help="html, md, json; pdf; registry. [first three]")
@click.option("--output", type=PATH, metavar="DIR", help="Where to. [the run folder]")
@click.option("--roster", type=PATH, metavar="FILE", help="Roster agreed on before the run.")
@click.option("--heads", type=PATH, multiple=True, metavar="FILE", help="Heads that a hospital kept.")
@click.option("--ledger", type=PATH, metavar="FILE", help="A ledger that must tell the same; says what is left.")
@click.option("--key", type=PATH, metavar="KEY", help="Sign report.json with the server's key.")
def report_command(
    *,
    run: Path,
    formats: tuple[str, ...],
    output: Path | None,
    roster: Path | None,
    heads: tuple[Path, ...],
    ledger: Path | None,
    key: Path | None,
) -> None:
    """Write the report of RUN, from its files alone, and print its verdict.

    Exit code 3 where the record does not verify; the report says so on its first page.
    """
    from audit.report import FORMATS, MORE_FORMATS, verdict_lines, write_report

    unknown = set(formats) - {*FORMATS, *MORE_FORMATS}
    if unknown:
        known = ", ".join((*FORMATS, *MORE_FORMATS))
        raise ConfigError("--format", f"{unknown.pop()!r} is unknown; use {known}")
    require_run(run)
    require_files(roster=roster, heads=heads, ledger=ledger)
    report, paths = write_report(
        run, formats or FORMATS, output=output, roster=roster, heads=heads, ledger=ledger, key=key
    )
    for line in verdict_lines(report):
        click.echo(line)
    for path in paths.values():
        click.echo(path)
    if any(line["verdict"] == "FAIL" and line["subject"] == "The record" for line in report["verdicts"]):
        raise EvidenceError(-1, f"{run} DOES NOT VERIFY; audit verify names the first bad event")
