"""`deploy`: a study on an engine, between machines or on this one for a trial."""

import json
from pathlib import Path
from typing import Any

import click

from securefed.commands.paths import PATH, TypedPath


@click.group("deploy", short_help="Run a study between machines, on NVIDIA FLARE or Flower.")
def command() -> None:
    """Run a study between machines, on NVIDIA FLARE or Flower.

    Hospitals set themselves up with `site` and approve the study; then the lead makes a deployment. With the folders of
    all hospitals on this machine it is a trial on loopback. For real hosts: docs/engines.md.
    """


@command.command("node", short_help="Run a hospital's node: it answers what an engine delivers.")
@click.argument("folder", type=PATH)
@click.option("--socket", "socket_path", type=PATH, metavar="PATH", help="[FOLDER/node.sock]")
def node_command(*, folder: Path, socket_path: Path | None) -> None:
    """Run the node of the hospital's FOLDER in the foreground, for the study that it has approved.

    It logs to stderr, one JSON object a line. Have a service manager run it.
    """
    from securefed.deploy.node_process import serve_node

    serve_node(folder, socket_path)


@command.command("metrics", short_help="Show a study's progress to Prometheus.")
@click.argument("folder", type=PATH)
@click.option("--port", type=click.IntRange(1, 65535), default=9464, metavar="N", help="Port. [9464]")
@click.option("--address", default="127.0.0.1", metavar="IP", help="Where to listen; nothing protects it. [127.0.0.1]")
def metrics_command(*, folder: Path, port: int, address: str) -> None:
    """Answer Prometheus at /metrics from the journal of the deployment in FOLDER, in the foreground.

    It only reads what `status --watch` prints (install the extra: pip install 'securefed[metrics]').
    """
    from securefed.deploy.errors import DeploymentError

    plan = _plan(folder)
    try:
        from securefed.deploy.metrics import serve_metrics
    except ModuleNotFoundError as error:
        raise click.UsageError("prometheus_client is missing; pip install 'securefed[metrics]'") from error
    try:
        _, thread = serve_metrics(_open(plan.engine, folder).progress, port, address)
    except OSError as error:
        raise DeploymentError(
            f"cannot listen at {address}:{port} ({error.strerror}); choose another --port or --address"
        ) from error
    click.echo(f"http://{address}:{port}/metrics", err=True)
    thread.join()


def _engine_group(name: str, title: str) -> click.Group:
    """Return the commands of one engine: the same for both."""

    @click.group(name, short_help=f"Over {title}: init, start, submit, status, stop.")
    def group() -> None:
        pass

    group.help = f"A study over {title} (install the extra: pip install 'securefed[{name}]')."

    @group.command("init", short_help="Make certificates and policies for an approved study.")
    @click.argument("folder", type=PATH)
    @click.option("--study", required=True, type=PATH, metavar="FILE", help="The study file.")
    @click.option("--key", required=True, type=PATH, metavar="FILE", help="The server's key.")
    @click.option(
        "--approval", "approvals", multiple=True, type=PATH, metavar="FILE",
        help="A hospital's approval; one for each.",
    )  # fmt: skip
    @click.option("--host", default="localhost", metavar="NAME", help="How the sites call the server. [localhost]")
    @click.option("--port", type=int, default=8002, metavar="N", help="Port at which sites reach it. [8002]")
    @click.option("--listen", type=int, default=0, metavar="N", help="Its own port, if a firewall forwards to it.")
    @click.option("--site", "sites", multiple=True, metavar="NAME=FOLDER", help="A hospital on this machine.")
    @click.option(
        "--timeout",
        type=float,
        default=600.0,
        metavar="S",
        help="Seconds after which a stage ends; with a quorum of 1 a hospital costs so many when it is lost. [600]",
    )
    @click.option(
        "--grace",
        type=float,
        default=30.0,
        metavar="S",
        help="Seconds beyond the quorum; with a quorum of 1 only for those that were lost before. [30]",
    )
    @click.option(
        "--quorum",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="Share of the hospitals waited for without grace; 1: all but those that were lost before. [1]",
    )
    def init_command(
        *,
        folder: Path,
        study: Path,
        key: Path,
        approvals: tuple[Path, ...],
        host: str,
        port: int,
        listen: int,
        sites: tuple[str, ...],
        timeout: float,
        grace: float,
        quorum: float,
    ) -> None:
        """Make certificates, keys and policies in a new FOLDER for an approved study."""
        from protocols.transport import Patience
        from securefed.deploy.deployment import Deployment
        from securefed.deploy.plan import Plan
        from securefed.study import read_study

        local = dict(_name_and_folder(text) for text in sites)
        places = {site: local.pop(site, "") for site in read_study(study).roster.hospitals}
        plan = Plan(name, host, port, {**places, **local}, listen)
        wait = Patience(timeout=timeout, grace=grace, quorum=quorum)
        Deployment.make(folder, plan, _engine(name), study, approvals, key, wait)
        click.echo(str(folder))

    @group.command("start", short_help="Start server and sites of this machine.")
    @click.argument("folder", type=PATH)
    @click.argument("parties", nargs=-1)
    def start_command(*, folder: Path, parties: tuple[str, ...]) -> None:
        """Start the server and the sites whose folders are on this machine, or only the named PARTIES."""
        _open(name, folder).start(parties)

    @group.command("submit", short_help="Start the study, or go on with it.")
    @click.argument("folder", type=PATH)
    def submit_command(*, folder: Path) -> None:
        """Start the study at the server and all connected sites; a study that was interrupted goes on."""
        click.echo(_open(name, folder).submit())

    @group.command("status", short_help="Show parties, job and progress.")
    @click.argument("folder", type=PATH)
    @click.option("--watch", is_flag=True, help="Follow the progress until the study has ended.")
    def status_command(*, folder: Path, watch: bool) -> None:
        """Print parties, job and progress as JSON; with --watch the server's journal, a line an event.

        With --watch it exits with 1 where the study ended as failed.
        """
        deployment = _open(name, folder)
        if not watch:
            click.echo(json.dumps(deployment.status(), indent=1))
            return
        line: dict[str, Any] = {}
        for line in deployment.watch():
            click.echo(json.dumps(line))
        if line["event"] == "failed":
            raise SystemExit(1)

    @group.command("stop", short_help="End the processes of this machine.")
    @click.argument("folder", type=PATH)
    @click.argument("parties", nargs=-1)
    def stop_command(*, folder: Path, parties: tuple[str, ...]) -> None:
        """End all processes that were started from FOLDER on this machine, or only those of the named PARTIES."""
        _open(name, folder).stop(parties)

    return group


@click.command("join", short_help="At a hospital: write its own policies into a kit and start it.")
@click.argument("kit", type=TypedPath(path_type=Path, exists=True, file_okay=False))
@click.option("--socket", "socket_path", required=True, type=PATH, metavar="PATH", help="Its node.")
def join_command(*, kit: Path, socket_path: Path) -> None:
    """Start a hospital's KIT in the foreground, after its policies were replaced by the hospital's own.

    Nobody may bring code, a job may name two installed classes, no log is streamed. Have a service manager run it.
    """
    from securefed.deploy.flare_run import run_kit

    raise SystemExit(run_kit(kit, socket_path))


def _engine(name: str) -> Any:
    if name == "flare":
        from securefed.deploy.flare_engine import FlareEngine

        return FlareEngine()
    from securefed.deploy.flower_engine import FlowerEngine

    return FlowerEngine()


def _open(name: str, folder: Path) -> Any:
    from securefed.deploy.deployment import Deployment
    from securefed.deploy.errors import DeploymentError

    plan = _plan(folder)
    if plan.engine != name:
        raise DeploymentError(f"{folder} is a deployment over {plan.engine}: use deploy {plan.engine}")
    return Deployment(folder, plan, _engine(name))


def _plan(folder: Path) -> Any:
    from securefed.deploy.deployment import Deployment

    return Deployment.read_plan(folder)


def _name_and_folder(text: str) -> tuple[str, str]:
    site, separator, folder = text.partition("=")
    if not separator or not site or not folder:
        raise click.UsageError(f"--site {text}: write NAME=FOLDER")
    return site, str(Path(folder).absolute())


_flare = _engine_group("flare", "NVIDIA FLARE")
_flare.add_command(join_command)
command.add_command(_flare)
command.add_command(_engine_group("flower", "Flower"))
