"""What a site refuses, each tried on the processes of a deployment, and the line of its own log that names it."""

import copy
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployment_trial import Hospitals, Source, Trial, deployed, free_ports

from protocols.server.machine import ServerMachine
from protocols.transport import Patience
from securefed.deploy import flare_run, flower_run
from securefed.deploy.flare_policy import SERVER_CLASS, SITE_CLASS, harden_site
from securefed.deploy.flare_project import provision
from securefed.deploy.processes import stop_parties
from securefed.engines.local_socket import call
from securefed.nodes.control import ControlStage, encode_request
from securefed.nodes.site_run import CONTROL_VERSION
from securefed.study import read_study
from securefed.study.terms import terms_of

PATIENCE_SECONDS = 120.0
STUDY_THRESHOLD = 4


def refusals(engine: str, work: Path, source: Source) -> dict[str, Any]:
    """Try each; {what was tried: {site: the line of its log}}."""
    agreed = f"secure_aggregation.threshold={STUDY_THRESHOLD}"
    hospitals = Hospitals(work / "strict", source, 1, "last", agreed)
    with deployed(engine, work / "t", hospitals, Patience(timeout=600, grace=60, quorum=1)) as trial:
        found = {}
        if engine == "flare":
            trial.deployment.start()
            _let_server_pass_everything(trial)
            found |= {
                "a job that brings code": _code(trial, work),
                "a class off the allow-list": _another_class(trial, work),
                "a site with a foreign certificate": _stranger_on_flare(trial, work),
            }
        else:
            trial.deployment.start()
            found["a server with a foreign certificate"] = _stranger_on_flower(trial, work)
        found["a server with another roster"] = _another_roster(trial)
        found["a lowered threshold"] = _lowered_threshold(trial)
    return found


def _let_server_pass_everything(trial: Trial) -> None:
    """Start the server again with lax policies of its own: what is refused then, the sites refuse."""
    folder = trial.deployment.folder
    local = folder / "kits" / trial.deployment.plan.host / "local"
    stop_parties(folder, "server")
    rights = local / "authorization.json"
    rights.write_text(rights.read_text().replace('"byoc": "none"', '"byoc": "any"'))
    resources = json.loads((local / "resources.json").read_text())
    (local / "resources.json").write_text(json.dumps({**resources, "class_allow_list": ["*"]}))
    flare_run.start_kit(folder, "server", local.parent, {})
    flare_run.wait_until_connected(folder, folder / "kits", list(trial.sites), PATIENCE_SECONDS)


def _code(trial: Trial, work: Path) -> dict[str, str]:
    job, ran = _new(work / "job"), work / "code-ran"
    ran.unlink(missing_ok=True)
    sites = list(trial.sites)
    flare_run.write_job(job, sites, server_class=SERVER_CLASS, site_class=SITE_CLASS)
    (job / "app" / "custom").mkdir()
    (job / "app" / "custom" / "sitecustomize.py").write_text(f"open({str(ran)!r}, 'w')")
    flare_run.submit(trial.deployment.folder, trial.deployment.folder / "kits", job)
    found = {site: _line(_engine_log(trial, site), "BYOC not permitted") for site in sites}
    if ran.exists():
        raise RuntimeError("the job's code has run")
    return found


def _another_class(trial: Trial, work: Path) -> dict[str, str]:
    job, sites = work / "job", list(trial.sites)
    flare_run.write_job(job, sites, server_class=SERVER_CLASS, site_class="logging.Formatter")
    flare_run.submit(trial.deployment.folder, trial.deployment.folder / "kits", job)
    return {site: _line(_engine_log(trial, site), "'logging.Formatter'", "not in allow_list") for site in sites}


def _stranger_on_flare(trial: Trial, work: Path) -> dict[str, str]:
    folder, plan = _new(work / "stranger"), trial.deployment.plan
    kits = provision(folder / "d", ["stranger", *trial.sites], plan.host, plan.port)
    harden_site(kits / "stranger")
    flare_run.start_kit(folder, "stranger", kits / "stranger", {})
    try:
        return {"stranger": _line(folder / "logs" / "stranger.log", "CERTIFICATE_VERIFY_FAILED")}
    finally:
        stop_parties(folder)


def _stranger_on_flower(trial: Trial, work: Path) -> dict[str, str]:
    folder, plan = _new(work / "stranger"), trial.deployment.plan
    flower_run.make_keys(folder, ["stranger"], plan.host)
    link = f"{plan.host}:{plan.port}"
    flower_run.start_node(folder, "stranger", link, free_ports(1), folder / "none.sock", {})
    try:
        return {"stranger": _line(folder / "logs" / "stranger.log", "CERTIFICATE_VERIFY_FAILED")}
    finally:
        stop_parties(folder)


def _new(folder: Path) -> Path:
    """Return the folder without anything of an earlier trial, whose logs would speak for this one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _another_roster(trial: Trial) -> dict[str, str]:
    study = read_study(trial.deployment.server.study)
    fields = {"version": CONTROL_VERSION, "software": "x", "run_id": "r", "study": study.digest, "roster": "0" * 64}
    frame = encode_request(ControlStage.HELLO, fields)
    return _ask_nodes(trial, ControlStage.HELLO.value, lambda _: frame, "refused Hello: roster")


def _lowered_threshold(trial: Trial) -> dict[str, str]:
    """A threshold of three opens sums that the study wants four for; to the protocol itself it is a fair round."""
    study = read_study(trial.deployment.server.study)
    terms = terms_of(study)
    lowered = copy.copy(terms.parameters(terms.channels.server().codec, 1))
    object.__setattr__(lowered, "threshold", STUDY_THRESHOLD - 1)
    object.__setattr__(lowered, "min_survivors", STUDY_THRESHOLD - 1)
    requests = ServerMachine(lowered, study.protocol_roster, b"a model").requests("AdvertiseKeys")
    return _ask_nodes(trial, "AdvertiseKeys", lambda site: requests[site], "PolicyError: threshold")


def _ask_nodes(trial: Trial, stage: str, frame: Callable[[str], bytes], words: str) -> dict[str, str]:
    for site, folder in trial.sites.items():
        call(folder / "node.sock", stage, frame(site), PATIENCE_SECONDS)
    return {site: _line(trial.deployment.folder / "logs" / f"{site}-node.log", words) for site in trial.sites}


def _engine_log(trial: Trial, site: str) -> Path:
    return trial.deployment.folder / "logs" / f"{site}.log"


def _line(log: Path, *words: str) -> str:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        said = log.read_text(errors="replace") if log.exists() else ""
        for line in said.splitlines():
            if all(word in line for word in words):
                return line.strip()[:400]
        if time.monotonic() > deadline:
            raise RuntimeError(f"{log} does not say {words}: {said[-2000:]}")
        time.sleep(0.5)
