"""Flower as the engine of a deployment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from securefed.deploy.deployment import SERVER
from securefed.deploy.flower_run import (
    make_keys,
    online,
    register,
    run_state,
    start_link,
    start_node,
    submit,
    wait_until_online,
    write_app,
)
from securefed.deploy.plan import Plan

SERVER_APP: Final = "securefed.engines.flower_study:make_study_app()"
CLIENT_APP: Final = "securefed.engines.flower:make_client_app()"


class FlowerEngine:
    """Keys under `keys`, the app under `app`."""

    def make(self, folder: Path, plan: Plan) -> None:
        """Make certificates, keys and the app."""
        make_keys(folder, list(plan.sites), plan.host)
        write_app(folder, SERVER_APP, CLIENT_APP)

    def start_server(self, folder: Path, plan: Plan, variables: Mapping[str, str]) -> None:
        """Start the SuperLink and register the sites' keys."""
        start_link(folder, plan.host_here, plan.server_port, variables, party=SERVER, bind=plan.bind)
        register(folder, list(plan.sites))

    def admit(self, folder: Path, plan: Plan) -> bool:
        """Register the keys that an interrupted start has left out."""
        return register(folder, list(plan.sites))

    def start_site(self, folder: Path, plan: Plan, site: str, socket_path: Path) -> None:
        """Start a SuperNode."""
        own_port = plan.server_port + 1 + list(plan.sites).index(site)
        start_node(folder, site, f"{plan.host_here}:{plan.server_port}", own_port, socket_path, {})

    def wait(self, folder: Path, plan: Plan, sites: Sequence[str]) -> None:
        """Wait until the sites are online."""
        del plan
        wait_until_online(folder, sites)

    def submit(self, folder: Path, plan: Plan, sites: Sequence[str]) -> str:
        """Run the app; Flower asks whoever is online."""
        del plan, sites
        return submit(folder)

    def connected(self, folder: Path, plan: Plan) -> tuple[str, ...]:
        """Return the sites that the SuperLink sees online."""
        return tuple(site for site in plan.sites if site in online(folder))

    def state(self, folder: Path, plan: Plan, job: str) -> str:
        """Return Flower's word."""
        del plan
        return run_state(folder, job)
