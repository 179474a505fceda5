"""`audit ledger`: the privacy budget of hospitals over all runs."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audit.bounds import at_least, at_most
from audit.regular_file import read_regular
from securefed.commands.console import stdout_console
from securefed.commands.options import json_option
from securefed.commands.paths import PATH
from securefed.errors import ConfigError

if TYPE_CHECKING:
    from audit.ledger import Ledger, SignedRenewal

_FILE = PATH


@click.group("ledger", short_help="The privacy budget over all runs.")
def command() -> None:
    """Look at and change the privacy budget of hospitals over all runs.

    LEDGER is the file that runs charge before anything leaves; a run that would exceed a budget ends with exit code 4.
    Only the signer that a budget names can renew it.
    """


@command.command("show", short_help="Where every budget stands.")
@click.argument("ledger", type=_FILE)
@click.option("--hospital", metavar="NAME", help="Only this hospital. [all]")
@json_option
def show_command(*, ledger: Path, hospital: str | None, as_json: bool) -> None:
    """Print budget, epsilon spent and what is left of every budget line in LEDGER."""
    from audit.ledger import Ledger, budget_lines

    with Ledger.reading(ledger) as opened:
        lines = [line for line in budget_lines(opened) if hospital in (None, line["hospital"])]
        digest = opened.digest
    if hospital is not None and not lines:
        raise ConfigError("--hospital", f"{hospital} has no budget in {ledger}; leave the option out to see all")
    if as_json:
        click.echo(json.dumps({"lines": lines, "digest": digest}))
        return
    rows = [
        (
            line["hospital"],
            line["unit"],
            "all" if line["data"] is None else line["data"][:12],
            f"{line['budget']:g}",
            "infinite" if line["spent"] is None else at_most(line["spent"]),
            at_least(line["remaining"]),
            f"{line['delta']:g}",
            line["adjacency"],
            str(line["runs"]),
            str(line["charges"]),
            str(line["refused"]),
            str(line["renewals"]),
        )
        for line in lines
    ]
    header = ("hospital", "unit", "data", "budget", "spent", "left", "delta", "neighbours by")
    _print_table((*header, "runs", "charges", "refused", "renewals"), rows, numbers=3)
    click.echo(f"digest {digest}")


@command.command("policy", short_help="Give hospitals their first budget, or print it.")
@click.argument("ledger", type=_FILE)
@click.argument("file", type=_FILE, required=False)
def policy_command(*, ledger: Path, file: Path | None) -> None:
    """Install the budget policy FILE (TOML) in LEDGER, which is made where it is new; without FILE print the policy.

    A line that has a budget keeps it: another limit needs a signed renewal. docs/audit.md has an example of a policy.
    """
    from audit.ledger import Ledger, Policy, policy_toml

    if file is None:
        with Ledger.reading(ledger) as opened:
            click.echo(policy_toml(opened), nl=False)
        return
    policy = Policy.read(file)
    with Ledger(ledger) as opened:
        opened.install(policy)
    for line, budget in policy.budgets.items():
        click.echo(f"{line.hospital}: epsilon {budget.epsilon:g} at delta {budget.delta:g} for one {line.unit}")


@command.command("renew", short_help="Take in a signed renewal, or sign one.")
@click.argument("ledger", type=_FILE)
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, metavar="KEY", help="Sign first: the signer's .key file; FILE is then made.")
@click.option("--hospital", metavar="NAME", help="With --key: whose budget.")
@click.option(
    "--unit", metavar="UNIT", default="image", show_default=True, help="With --key: image, patient, hospital."
)
@click.option("--epsilon", type=float, metavar="E", help="With --key: the new limit over all runs.")
@click.option("--reason", metavar="TEXT", help="With --key: why, for the record.")
@click.option("--data", "fingerprint", metavar="SHA256", help="With --key: a budget for this data set alone.")
@click.option("--sign-only", is_flag=True, help="With --key: write FILE and change nothing.")
def renew_command(
    *,
    ledger: Path,
    file: Path,
    key: Path | None,
    hospital: str | None,
    unit: str,
    epsilon: float | None,
    reason: str | None,
    fingerprint: str | None,
    sign_only: bool,
) -> None:
    """Take the signed renewal FILE into LEDGER. With --key sign a new one first.

    A renewal is an absolute limit: what was spent before it stays spent. Exit code 3 where it is not by the signer of
    the budget, or old.
    """
    from audit.ledger import Ledger, SignedRenewal

    with Ledger.existing(ledger) as opened:
        if key is not None:
            signed = _sign(opened, key, (hospital, unit, fingerprint), epsilon, reason)
            _write_new(file, signed.encode(), ledger)
        elif any(value is not None for value in (hospital, epsilon, reason, fingerprint)) or sign_only:
            raise ConfigError("--key", "is needed to sign; without it FILE is a renewal that was signed elsewhere")
        else:
            signed = SignedRenewal.decode(_read(file))
        if not sign_only:
            opened.renew(signed)
    done = "signed, not yet in force" if sign_only else "in force"
    renewal = signed.renewal
    click.echo(f"renewal {renewal.serial} of {renewal.line.hospital}: epsilon {renewal.epsilon:g}, {done}")


@command.command("history", short_help="Everything that ever happened to the budgets.")
@click.argument("ledger", type=_FILE)
@click.option("--hospital", metavar="NAME", help="Only this hospital. [all]")
@json_option
def history_command(*, ledger: Path, hospital: str | None, as_json: bool) -> None:
    """Print every entry of LEDGER in order: policies, renewals, charges and refusals."""
    from audit.ledger import Ledger, history

    with Ledger.reading(ledger) as opened:
        entries = [entry for entry in history(opened) if hospital in (None, entry["hospital"])]
    if as_json:
        click.echo(json.dumps(entries))
        return
    rows = [
        (str(e["seq"]), e["time"][:19], e["kind"], e["hospital"] or "-", e["release_id"] or "-", _what(e))
        for e in entries
    ]
    _print_table(("entry", "time (UTC)", "what", "hospital", "release", "note"), rows, numbers=99)


def _what(entry: dict[str, Any]) -> str:
    if entry["kind"] == "refused":
        cost = "infinite" if entry["epsilon"] is None else at_most(entry["epsilon"])
        return f"epsilon would be {cost}, the budget is {entry['budget']:g}"
    if entry["budget"] is not None:
        because = f": {entry['reason']}" if entry["reason"] else ""
        return f"limit {entry['budget']:g}{because}"
    return f"run {entry['run_id']}" if entry["run_id"] else ""


def _sign(
    ledger: "Ledger",
    key: Path,
    whose: tuple[str | None, str, str | None],
    epsilon: float | None,
    reason: str | None,
) -> "SignedRenewal":
    from audit.ledger import BudgetLine, Renewal, SignedRenewal
    from audit.ledger.accounts import ALL_DATA
    from audit.signing_key import load_key

    hospital, unit, fingerprint = whose
    if hospital is None or epsilon is None or not reason:
        missing = "--hospital" if hospital is None else ("--epsilon" if epsilon is None else "--reason")
        raise ConfigError(missing, "is needed to sign a renewal")
    if not 0 < epsilon < math.inf:
        raise ConfigError("--epsilon", f"{epsilon:g}: use a positive number, the limit over all runs")
    line = BudgetLine(hospital, unit, fingerprint or ALL_DATA)
    budgets = ledger.budgets()
    if BudgetLine(hospital, unit) not in budgets:
        raise ConfigError("--hospital", f"{hospital} has no {unit} budget here; `audit ledger show` lists them")
    serial = budgets[line].serial + 1 if line in budgets else 1
    return SignedRenewal.decode(Renewal(line, serial, epsilon, reason).sign(load_key(key)).encode())


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise ConfigError("FILE", f"{path} cannot be read ({error.strerror}); check the path") from error


def _write_new(path: Path, content: bytes, ledger: Path) -> None:
    from audit.durable import write_new

    try:
        write_new(path, [content])
    except FileExistsError as error:
        raise ConfigError(
            "FILE",
            f"{path} cannot be made ({error.strerror}); no renewal is overwritten: name a new file, or take this one "
            f"in, if it was signed and that failed: audit ledger renew {ledger} {path}",
        ) from error
    except OSError as error:
        raise ConfigError(
            "FILE", f"{path} cannot be made ({error.strerror}); free space there, or name a writable place"
        ) from error


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index >= numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    stdout_console().print(table)
