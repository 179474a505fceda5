"""`keys`: identity keys and the roster."""

from pathlib import Path

import click

from securefed.commands.paths import PATH


@click.group("keys", short_help="Make identity keys and the roster that pins them.")
def command() -> None:
    """Make identity keys and the roster that pins them.

    Every party makes its own key where it will use it and hands out the .pub file; the roster of all public keys goes
    to every party before the study, by a way that the server does not control.
    """


@command.command("new", short_help="Make a key pair: NAME.key stays, NAME.pub goes out.")
@click.argument("name")
@click.option("--folder", type=PATH, default=Path(), metavar="DIR", help="Where to. [here]")
def new_command(*, name: str, folder: Path) -> None:
    """Make an Ed25519 key pair for NAME: NAME.key stays with its owner, NAME.pub goes out."""
    from securefed.identity import new_identity, read_public

    secret, public = new_identity(name, folder)
    click.echo(f"secret key, never hand it out: {secret}", err=True)
    click.echo(f"public key, hand it out: {public}", err=True)
    click.echo(read_public(public)[1])


@command.command("roster", short_help="Gather public keys into a roster file.")
@click.argument("output", type=PATH)
@click.option("--server", required=True, type=PATH, metavar="PUB", help="The server's .pub file.")
@click.argument("hospitals", nargs=-1, required=True, type=PATH)
def roster_command(*, output: Path, server: Path, hospitals: tuple[Path, ...]) -> None:
    """Write the roster OUTPUT of the server and the HOSPITALS (.pub files), and print its digest.

    Every party compares the digest with the others by telephone or in a meeting before it pins the file.
    """
    from securefed.identity import make_roster

    roster = make_roster(server, list(hospitals), output)
    click.echo(f"{len(roster.hospitals)} hospitals and a server in {output}; digest:", err=True)
    click.echo(roster.digest)
