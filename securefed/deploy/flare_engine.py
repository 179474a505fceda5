"""NVIDIA FLARE as the engine of a deployment."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from securefed.deploy.deployment import SERVER
from securefed.deploy.flare_policy import SERVER_CLASS, SITE_CLASS, harden_server, harden_site
from securefed.deploy.flare_project import provision
from securefed.deploy.flare_run import (
    connected,
    job_state,
    refuse_split_paths,
    refuse_taken,
    start_kit,
    submit,
    wait_until_answering,
    wait_until_connected,
    write_job,
)
from securefed.deploy.plan import Plan
from securefed.deploy.processes import stop_parties
from securefed.engines.names import SITE_SOCKET


class FlareEngine:
    """Kits under `kits`, one a party; the policies of each are written by the party that starts it."""

    def make(self, folder: Path, plan: Plan) -> None:
        """Provision, where FLARE can run jobs."""
        refuse_split_paths(folder / "kits")
        provision(folder, list(plan.sites), plan.host, plan.port, plan.listen)

    def start_server(self, folder: Path, plan: Plan, variables: Mapping[str, str]) -> None:
        """Harden and start the server's kit."""
        kit = folder / "kits" / plan.host
        refuse_split_paths(kit)
        stop_parties(folder, SERVER)  # what a killed command has left behind holds its port
        refuse_taken(plan.server_port)
        harden_server(kit, folder / "storage")
        start_kit(folder, SERVER, kit, variables)
        wait_until_answering(folder, folder / "kits", SERVER)

    def admit(self, folder: Path, plan: Plan) -> bool:
        """Do nothing: a site's certificate is all that FLARE's server asks for."""
        del folder, plan
        return False

    def start_site(self, folder: Path, plan: Plan, site: str, socket_path: Path) -> None:
        """Harden and start a site's kit."""
        del plan
        kit = folder / "kits" / site
        refuse_split_paths(kit)
        harden_site(kit)
        start_kit(folder, site, kit, {SITE_SOCKET: str(socket_path)})

    def wait(self, folder: Path, plan: Plan, sites: Sequence[str]) -> None:
        """Wait until the sites are connected."""
        del plan
        wait_until_connected(folder, folder / "kits", sites)

    def submit(self, folder: Path, plan: Plan, sites: Sequence[str]) -> str:
        """Submit a job without code."""
        del plan
        write_job(folder / "flare_job", sites, server_class=SERVER_CLASS, site_class=SITE_CLASS)
        return submit(folder, folder / "kits", folder / "flare_job")

    def connected(self, folder: Path, plan: Plan) -> tuple[str, ...]:
        """Return the sites that FLARE's server knows."""
        del plan
        return connected(folder, folder / "kits")

    def state(self, folder: Path, plan: Plan, job: str) -> str:
        """Return FLARE's word."""
        del plan
        return job_state(folder, folder / "kits", job)
