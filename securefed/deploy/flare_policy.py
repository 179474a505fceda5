"""What a party lets FLARE do on its machine, written by the party itself into its kit's folder `local`.

The kit comes from the study's lead, so nothing in it is trusted to protect the hospital: `harden` replaces the policies
by these, whatever the kit held. They permit one thing: a job that names the two installed classes and carries no code.
"""

import json
from pathlib import Path
from typing import Any, Final

LEAD_ROLE: Final = "lead"
SITE_CLASS: Final = "securefed.engines.flare.FlareSite"
SERVER_CLASS: Final = "securefed.engines.flare_study.StudyServer"
EXECUTOR: Final = "nvflare.collab.runtime.executor.CollabExecutor"
CONTROLLER: Final = "nvflare.collab.runtime.controller.CollabController"

_NOTHING: Final = {
    "submit_job": "none",
    "clone_job": "none",
    "manage_job": "none",
    "download_job": "none",
    "operate": "none",
    "shell_commands": "none",
    "byoc": "none",
    "server-predeployed-flwr": "none",
    "view": "any",
}
"""FLARE's rights, all withheld but looking at what runs."""

_CLIENT_COMPONENTS: Final = (
    ("resource_manager", "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager"),
    ("resource_consumer", "nvflare.app_common.resource_consumers.gpu_resource_consumer.GPUResourceConsumer"),
    ("process_launcher", "nvflare.app_common.job_launcher.client_process_launcher.ClientProcessJobLauncher"),
    ("app_deployer", "securefed.engines.flare.NamingDeployer"),
)
"""FLARE's own parts at a site, without the one that streams the site's error log to the server; its deployer is made to
name in the site's log what it refuses."""


def authorization() -> dict[str, Any]:
    """Return authorization.json: the lead may submit, manage and download jobs; nobody may bring code or a shell."""
    lead = {**_NOTHING, "submit_job": "any", "manage_job": "n:submitter", "download_job": "n:submitter"}
    permissions = {role: dict(_NOTHING) for role in ("project_admin", "org_admin", "member")}
    return {"format_version": "1.0", "permissions": {**permissions, LEAD_ROLE: lead}}


def harden_site(kit: Path, site_class: str = SITE_CLASS) -> None:
    """Write a site's policies into its kit: no code in jobs, two classes, no streaming of logs.

    Args:
        kit: The site's startup kit.
        site_class: The class beside FLARE's executor that a job may name.
    """
    arguments = {"resource_manager": {"num_of_gpus": 0, "mem_per_gpu_in_GiB": 0, "expiration_period": 300}}
    resources = {
        "format_version": 2,
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": [EXECUTOR, site_class],
        "allow_log_streaming": False,
        "client": {"retry_timeout": 30, "compression": "Gzip"},
        "components": [
            {"id": name, "path": path, "args": arguments.get(name, {})} for name, path in _CLIENT_COMPONENTS
        ],
    }
    _write(kit, resources)


def harden_server(kit: Path, storage: Path, server_class: str = SERVER_CLASS) -> None:
    """Write the server's policies into its kit; jobs and snapshots stay in `storage` and not in a shared /tmp.

    Args:
        kit: The server's startup kit.
        storage: Folder of jobs and snapshots.
        server_class: The class beside FLARE's controller that a job may name.
    """
    resources = json.loads((kit / "local" / "resources.json.default").read_text(encoding="utf-8"))
    resources["class_list_enforcement_mode"] = "enforce"
    resources["class_allow_list"] = [CONTROLLER, server_class]
    resources["servers"][0]["heart_beat_timeout"] = 30
    resources["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(storage / "snapshots")
    for component in resources["components"]:
        if component["id"] == "job_manager":
            component["args"]["uri_root"] = str(storage / "jobs")
    resources["components"] = [part for part in resources["components"] if part["id"] != "log_receiver"]
    _write(kit, resources)


def _write(kit: Path, resources: dict[str, Any]) -> None:
    for name, content in (("resources.json", resources), ("authorization.json", authorization())):
        path = kit / "local" / name
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        path.chmod(0o600)
